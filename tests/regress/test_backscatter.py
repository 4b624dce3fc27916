"""What the downstream is told about reports to the sender: [remote_domain] on the inner leg, and what becomes of it
at a real Postfix."""

import os

import pytest

from harness import servers
from harness.exchange import CAPABILITIES
from harness.journal import poll
from harness.postern import free_port

PEOPLE = ["anna@example.test", "ben@example.test", "carl@example.test"]
HEAD = b"From: <sender@example.org>\r\nSubject: a test\r\n"
BODY = b"\r\nHello.\r\n"


@pytest.fixture
def mx(exchange, postern):
    """Call it with [remote_domain] sections, by name, and what the downstream offers."""
    def start(capabilities=CAPABILITIES, **sections):
        downstream = exchange(capabilities=capabilities)
        one = postern(downstream, recipients=PEOPLE,
                      settings={f"remote_domain {name}": keys for name, keys in sections.items()})
        one.exchange = downstream
        return one
    return start


def send(mx, content=HEAD + BODY, sender="sender@example.org", mail="", rcpt=("",)):
    """The message as the downstream got it; RCPT: the parameters of each recipient."""
    client = mx.client()
    client.ok(f"MAIL FROM:<{sender}>{mail}")
    for address, parameters in zip(PEOPLE, rcpt):
        client.ok(f"RCPT TO:<{address}>{parameters}")
    count = len(mx.exchange.delivered)
    assert client.data(content).status == "250 2.6.0"
    client.quit()
    return mx.exchange.delivered[count]


def parameters(line):
    """Of a MAIL or RCPT, without those that are the relay's own business."""
    return {p for p in line.split()[1:] if not p.startswith(("SIZE=", "BODY="))}


def notify(message):
    found = []
    for line in message.recipients:
        given = [p.removeprefix("NOTIFY=") for p in line.split() if p.startswith("NOTIFY=")]
        assert len(given) < 2
        found.append(set(given[0].split(",")) if given else None)
    return found


# Which rule

@pytest.mark.parametrize("sender, rule", [
    ("a@example.net", "exact"), ("a@EXAMPLE.net", "exact"), ("a@sub.example.net", "long"),
    ("a@x.sub.example.net", "longer"), ("a@y.x.sub.example.net", "longer"), ("a@other.example.net", "long"),
    ("a@xexample.net", "short"), ("a@example.org", "default"), ("a@net", "default"), ("a@other.net", "short"),
    ("", "default"), ("a@bücher.example", "idn"), ("a@xn--bcher-kva.example", "idn"), ('"b@example.org"@example.net', "exact")])
def test_precedence(mx, sender, rule):
    """Exact, then the longest wildcard, then default.  Each rule leaves a mark of its own."""
    marks = {"exact": {"ndr": "no"}, "long": {"auto_replies": "no"}, "longer": {"read_receipts": "no"},
             "short": {"delivery_reports": "no"}, "idn": {"ndr": "no", "auto_replies": "no"}, "default": {}}
    names = {"exact": "example.net", "long": "*.example.net", "longer": "*.sub.example.net", "short": "*.net",
             "idn": "xn--bcher-kva.example", "default": "default"}
    one = mx(**{names[key]: {"ndr": "yes", **keys} for key, keys in marks.items()})
    message = send(one, HEAD + b"Disposition-Notification-To: <x@example.org>\r\n" + BODY, sender,
                   " SMTPUTF8" if not sender.isascii() else "", (" NOTIFY=SUCCESS,FAILURE",))
    given = marks[rule]
    suppress = b"X-Auto-Response-Suppress: OOF, AutoReply" in message.content
    assert suppress == ("auto_replies" in given)
    assert (b"Disposition" in message.content) == ("read_receipts" not in given)
    wanted = {"NEVER"} if "ndr" in given else {"FAILURE"} if "delivery_reports" in given else {"SUCCESS", "FAILURE"}
    assert notify(message) == [wanted]
    assert one.wait_log("message").get("ndr") == ("no" if wanted == {"NEVER"} else None)


def test_a_domain_s_own_wildcard_does_not_match_itself(mx):
    one = mx(**{"*.example.net": {"ndr": "no"}})
    assert notify(send(one, sender="a@example.net")) == [None]
    assert notify(send(one, sender="a@x.example.net")) == [{"NEVER"}]


def test_rules_of_a_section_do_not_come_from_default(mx):
    """As in Exchange, a rule stands for itself; what it does not say has the key's default."""
    one = mx(default={"ndr": "no", "auto_replies": "no"}, **{"example.net": {"read_receipts": "no"}})
    message = send(one, sender="a@example.net")
    assert notify(message) == [None] and b"X-Auto-Response-Suppress" not in message.content


# The envelope

GIVEN = ["", " NOTIFY=NEVER", " NOTIFY=SUCCESS", " NOTIFY=FAILURE", " NOTIFY=DELAY", " NOTIFY=SUCCESS,FAILURE",
         " NOTIFY=SUCCESS,FAILURE,DELAY", " NOTIFY=FAILURE,DELAY"]


def asked(parameter):
    return set(parameter.removeprefix(" NOTIFY=").split(",")) if parameter else None


@pytest.mark.parametrize("given", GIVEN)
def test_no_rule_changes_nothing(mx, given):
    assert notify(send(mx(), rcpt=(given,))) == [asked(given)]


@pytest.mark.parametrize("given", GIVEN)
def test_ndr_no(mx, given):
    assert notify(send(mx(default={"ndr": "no"}), rcpt=(given,))) == [{"NEVER"}]


@pytest.mark.parametrize("given", GIVEN)
def test_delivery_reports_no(mx, given):
    """Nothing asked for stays so: RFC 3461 then means FAILURE, which no rule forbids."""
    message = send(mx(default={"delivery_reports": "no"}), rcpt=(given,))
    wanted = asked(given)
    if wanted is not None:
        wanted = wanted - {"SUCCESS"} or {"NEVER"}
    assert notify(message) == [wanted]


def test_each_recipient_by_itself_and_the_rest_is_kept(mx):
    """ORCPT, RET and ENVID go on as they came."""
    message = send(mx(default={"delivery_reports": "no"}), mail=" RET=HDRS ENVID=QQ314159+2Bx", rcpt=(
        " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Anna+2Bx@example.test", " ORCPT=rfc822;ben@example.test", " NOTIFY=SUCCESS"))
    assert parameters(message.mail) == {"RET=HDRS", "ENVID=QQ314159+2Bx"}
    assert [parameters(line) for line in message.recipients] == [
        {"NOTIFY=DELAY", "ORCPT=rfc822;Anna+2Bx@example.test"}, {"ORCPT=rfc822;ben@example.test"}, {"NOTIFY=NEVER"}]
    message = send(mx(default={"ndr": "no"}), mail=" RET=FULL ENVID=e1", rcpt=(
        " ORCPT=rfc822;anna@example.test", " NOTIFY=SUCCESS ORCPT=rfc822;ben@example.test"))
    assert parameters(message.mail) == {"RET=FULL", "ENVID=e1"}
    assert [parameters(line) for line in message.recipients] == [
        {"NOTIFY=NEVER", "ORCPT=rfc822;anna@example.test"}, {"NOTIFY=NEVER", "ORCPT=rfc822;ben@example.test"}]


def test_by_bdat_too(mx):
    one = mx(default={"ndr": "no", "auto_replies": "no"})
    client = one.client()
    client.envelope("sender@example.org", "anna@example.test")
    assert client.bdat(HEAD, BODY)[-1].status == "250 2.6.0"
    message = one.exchange.delivered[0]
    assert notify(message) == [{"NEVER"}]
    assert message.without_trace() == b"X-Auto-Response-Suppress: OOF, AutoReply, DR, NDR\r\n" + HEAD + BODY


# The header

@pytest.mark.parametrize("rules, value", [
    ({}, None), ({"ndr": "no"}, None), ({"delivery_reports": "no"}, None), ({"read_receipts": "no"}, None),
    ({"auto_replies": "no"}, b"OOF, AutoReply"), ({"auto_replies": "no", "delivery_reports": "no"}, b"OOF, AutoReply"),
    ({"auto_replies": "no", "ndr": "no"}, b"OOF, AutoReply, DR, NDR")])
def test_auto_replies(mx, rules, value):
    message = send(mx(default=rules))
    added = b"" if value is None else b"X-Auto-Response-Suppress: " + value + b"\r\n"
    assert message.without_trace() == added + HEAD + BODY


RECEIPTS = [
    b"Disposition-Notification-To: <x@example.org>\r\n",
    b"disposition-NOTIFICATION-to:<x@example.org>\r\n",
    b"Return-Receipt-To: <x@example.org>\r\n",
    b"Disposition-Notification-To: <x@example.org>,\r\n\t<y@example.org>,\r\n <z@example.org>\r\n",
    b"Return-Receipt-To:\r\n <x@example.org>\r\n",
    b"Disposition-Notification-To : <x@example.org>\r\n",
    b"Return-Receipt-To: <x@example.org>\r\nReturn-Receipt-To: <y@example.org>\r\n",
]


@pytest.mark.parametrize("field", RECEIPTS)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_read_receipts_no(mx, field, where):
    """Whole fields go, folded ones with all their lines, and nothing else."""
    others = [b"From: <sender@example.org>\r\n", b"Subject: Disposition-Notification-To: is no field\r\n here\r\n"]
    at = {"first": 0, "middle": 1, "last": 2}[where]
    fields = others[:at] + [field] + others[at:]
    one = mx(default={"read_receipts": "no"})
    assert send(one, b"".join(fields) + BODY).without_trace() == b"".join(others) + BODY


def test_only_the_top_header_block(mx):
    """A forwarded message within is content."""
    body = (b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nDisposition-Notification-To: <x@example.org>\r\n"
            b"X-MS-Exchange-Organization-SCL: 9\r\nSubject: within\r\n\r\nReturn-Receipt-To: <x@example.org>\r\n\r\n--b--\r\n")
    head = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n"
    one = mx(default={"read_receipts": "no", "auto_replies": "no"})
    message = send(one, head + b"Return-Receipt-To: <x@example.org>\r\n" + body)
    assert message.without_trace() == b"X-Auto-Response-Suppress: OOF, AutoReply\r\n" + head + body


def test_fields_that_only_look_alike_stay(mx):
    fields = (b"X-Disposition-Notification-To: <x@example.org>\r\nDisposition-Notification-Options: a=b\r\n"
              b"Return-Receipt: <x@example.org>\r\nReturn-Receipt-To-X: <x@example.org>\r\n")
    one = mx(default={"read_receipts": "no"})
    assert send(one, HEAD + fields + BODY).without_trace() == HEAD + fields + BODY


def test_a_message_without_an_empty_line(mx):
    one = mx(default={"read_receipts": "no", "auto_replies": "no"})
    message = send(one, HEAD + b"Return-Receipt-To: <x@example.org>\r\n")
    assert message.without_trace() == b"X-Auto-Response-Suppress: OOF, AutoReply\r\n" + HEAD


# A downstream without DSN

NO_DSN = [capability for capability in CAPABILITIES if capability != "DSN"]


@pytest.mark.parametrize("rules, value", [
    ({}, None), ({"read_receipts": "no"}, None), ({"auto_replies": "no"}, b"OOF, AutoReply"),
    ({"ndr": "no"}, b"DR, NDR"), ({"delivery_reports": "no"}, b"DR"),
    ({"ndr": "no", "auto_replies": "no"}, b"OOF, AutoReply, DR, NDR")])
def test_without_dsn_the_header_does_what_it_can(mx, rules, value):
    one = mx(NO_DSN, default=rules)
    assert "DSN" not in one.client().offered
    for _ in range(3):
        message = send(one, HEAD + f"X: {_}\r\n".encode() + BODY)
        added = b"" if value is None else b"X-Auto-Response-Suppress: " + value + b"\r\n"
        assert message.without_trace().startswith(added + HEAD)
        assert all(not parameters(line) for line in [message.mail, *message.recipients])
    said = [e for e in one.events("downstream", state="degraded") if "DSN" in e.text]
    assert len(said) == (1 if {"ndr", "delivery_reports"} & set(rules) else 0)


# Postfix

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix's master needs root")


@pytest.fixture
def postfix(directory, certificates, postern):
    """A Postern in front of Postfix, which takes mail for failing@ and finds later that it cannot deliver it.
    Its sender's domain is at home there, too."""
    os.chmod(directory, 0o755)  # for Postfix's users
    os.mkdir(path := os.path.join(directory, "postfix"))
    server = servers.Postfix(path, certificates.exchange, domains=("example.test", "sender.test"))

    def start(**rules):
        one = postern(server.address, recipients=["failing@example.test", "anna@example.test"],
                      settings={"remote_domain default": rules,
                                "dns": {"nameserver": f"127.0.0.1:{free_port()}", "timeout": "300ms"}})
        one.postfix = server
        return one
    yield start
    server.stop()


def fail(one, sender="writer@sender.test", parameters=""):
    """A message that was accepted, and could not be delivered: until Postfix has forgotten it."""
    client = one.client()
    client.ok(f"MAIL FROM:<{sender}>")
    client.ok(f"RCPT TO:<failing@example.test>{parameters}")
    assert client.data(HEAD + BODY).status == "250 2.6.0"
    queued = one.wait_log("message", status="2.0.0")["reply"].rpartition(" ")[2]
    poll(lambda: f"{queued}: removed" in one.postfix.log(), "the end of the message in Postfix's queue")
    assert "status=bounced" in one.postfix.log()


def deliver_after(one):
    """A message that comes behind all that Postfix had to do for the last one."""
    assert one.client().deliver(HEAD + BODY, "anna@example.test", sender="late@sender.test").status == "250 2.6.0"


def is_bounce(mail):
    return b"Undelivered Mail Returned to Sender" in mail and b"failing@example.test" in mail


@needs_root
def test_postfix_bounces_with_ndr_yes(postfix):
    one = postfix(ndr="yes")
    fail(one)
    mail, = one.postfix.wait_mails(1)
    assert is_bounce(mail) and b"To: writer@sender.test" in mail


@needs_root
def test_postfix_does_not_bounce_with_ndr_no(postfix):
    one = postfix(ndr="no")
    fail(one)
    deliver_after(one)
    mail, = one.postfix.wait_mails(1)
    assert not is_bounce(mail) and b"Hello." in mail
    assert "sender non-delivery notification" not in one.postfix.log()


@needs_root
def test_postfix_does_not_bounce_to_the_unproven(postfix):
    """No name server answers: unproven."""
    one = postfix(ndr="unproven")
    fail(one)
    deliver_after(one)
    assert not any(map(is_bounce, one.postfix.wait_mails(1)))
    assert "sender non-delivery notification" not in one.postfix.log()


@needs_root
@pytest.mark.parametrize("rules, reported", [({}, True), ({"delivery_reports": "no"}, False)])
def test_postfix_reports_success(postfix, rules, reported):
    one = postfix(**rules)
    client = one.client()
    client.ok("MAIL FROM:<writer@sender.test>")
    client.ok("RCPT TO:<anna@example.test> NOTIFY=SUCCESS,FAILURE")
    assert client.data(HEAD + BODY).status == "250 2.6.0"
    if reported:
        assert any(b"Successful Mail Delivery Report" in mail for mail in one.postfix.wait_mails(2))
        return
    deliver_after(one)
    assert not any(b"Delivery Report" in mail for mail in one.postfix.wait_mails(2))
    assert "sender delivery status notification" not in one.postfix.log()
