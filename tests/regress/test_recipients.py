"""The verdict at RCPT."""

import pytest

from conftest import CONTENT


def rcpt(client, path, parameters=""):
    return client.command(f"RCPT TO:{path}{parameters}")


@pytest.fixture
def client(mx):
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    return client


@pytest.mark.parametrize("path", [
    "<anna@example.test>", "<ANNA@Example.TEST>", "<Anna@example.test>", '<"anna"@example.test>',
    r'<"an\na"@example.test>', "<@a.example,@b.example:anna@example.test>", " <anna@example.test>"])
def test_known(client, path):
    assert rcpt(client, path).status == "250 2.1.5"


@pytest.mark.parametrize("address", [
    "nobody@example.test", "Nobody@Example.Test", "ann@example.test", "annaa@example.test", "*@example.test",
    "anna*@example.test", "(anna)@example.test", "anna+tag@example.test", "a.nna@example.test", '"anna "@example.test',
    "%@example.test", "anna%example.org@example.test"])
def test_unknown(client, address):
    if address.startswith("(") or "(" in address:
        assert rcpt(client, f"<{address}>").status == "501 5.1.3"
        return
    reply = rcpt(client, f"<{address}>")
    assert str(reply) == f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"


@pytest.mark.parametrize("address", [
    "anna@example.org", "anna@sub.example.test", "anna@example.test.example.org", "anna@[127.0.0.1]",
    "anna@[IPv6:2001:db8::1]", "anna@test"])
def test_relay(client, address):
    assert str(rcpt(client, f"<{address}>")) == f"550 5.7.1 <{address}>: Relay access denied"


@pytest.mark.parametrize("path", [
    "<>", "<@example.test>", "<anna@>", "<anna@example.test", "anna@example.test", "<anna@exam ple.test>",
    "<an na@example.test>", "<anna@@example.test>", "<anna@example..test>", '<"anna@example.test>', "<anna>",
    "<anna\x01@example.test>", "<anna@[300.1.1.1]>", "<anna@example.test>>", "<" + "a" * 600 + "@example.test>", ""])
def test_bad_syntax(client, path):
    reply = rcpt(client, path)
    assert reply.status in ("501 5.1.3", "501 5.5.4" if path.endswith(">>") or not path else "501 5.1.3"), reply


@pytest.mark.parametrize("path", ["<@example.org>", "<a@>", "a@example.org", "<a@exa mple.org>", "<a b@example.org>",
                                  "<a@@example.org>", "<a\x7f@example.org>", "<a@example.org"])
def test_bad_sender(mx, path):
    assert mx.client().command(f"MAIL FROM:{path}").status == "501 5.1.7"


@pytest.mark.parametrize("path", ["<>", "<a@example.org>", '<"a b"@example.org>', "<a@[192.0.2.1]>",
                                  "<@x.example:a@example.org>", " <a@example.org>"])
def test_good_sender(mx, path):
    assert mx.client().command(f"MAIL FROM:{path}").status == "250 2.1.0"


@pytest.mark.parametrize("command, status", [
    ("MAIL FROM:<a@example.org> FOO=1", "555 5.5.4"),
    ("MAIL FROM:<a@example.org> AUTH=<>", "555 5.5.4"),
    ("MAIL FROM:<a@example.org> SIZE=x", "501 5.5.4"),
    ("MAIL FROM:<a@example.org> SIZE=1 SIZE=1", "501 5.5.4"),
    ("MAIL FROM:<a@example.org> BODY=9BIT", "501 5.5.4"),
    ("MAIL FROM:<a@example.org> RET=SOME", "501 5.5.4"),
    ("MAIL <a@example.org>", "501 5.5.4"),
    ("MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x+2By", "250 2.1.0"),
    ("MAIL FROM:<a@example.org> BODY=BINARYMIME SMTPUTF8", "250 2.1.0"),
    ("mail from:<a@example.org> body=7bit", "250 2.1.0"),
])
def test_parameters_of_mail(mx, command, status):
    assert mx.client().command(command).status == status


@pytest.mark.parametrize("parameters, status", [
    (" NOTIFY=NEVER", "250 2.1.5"), (" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;anna@example.test", "250 2.1.5"),
    (" NOTIFY=NEVER,SUCCESS", "501 5.5.4"), (" NOTIFY=", "501 5.5.4"), (" FOO", "555 5.5.4"),
    (" NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4")])
def test_parameters_of_rcpt(client, parameters, status):
    assert rcpt(client, "<anna@example.test>", parameters).status == status


def test_parameters_reach_the_downstream(mx):
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org> RET=HDRS ENVID=x+2By BODY=8BITMIME SIZE=60")
    client.ok("RCPT TO:<anna@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Anna@example.test")
    assert client.data(CONTENT).status == "250 2.6.0"
    message = mx.exchange.delivered[0]
    sender, *parameters = message.mail.split()
    assert sender == "<a@example.org>"
    assert {"RET=HDRS", "ENVID=x+2By", "BODY=8BITMIME"} <= set(parameters)
    recipient, *parameters = message.recipients[0].split()
    assert recipient == "<anna@example.test>"
    assert set(parameters) == {"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Anna@example.test"}


@pytest.mark.parametrize("path", ["<postmaster>", "<PostMaster>", "<postmaster@example.test>",
                                  "<POSTMASTER@Example.Test>", '<"postmaster"@example.test>'])
def test_postmaster_is_always_accepted(mx, path):
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert rcpt(client, path).status == "250 2.1.5"
    assert client.data(CONTENT).status == "250 2.6.0"
    assert mx.exchange.delivered[0].addresses[0].lower().replace('"', "") == "postmaster@example.test"


def test_postmaster_setting(exchange, postern):
    downstream = exchange()
    mx = postern(downstream, settings={"server": {"postmaster": "anna@example.test"}})
    client = mx.client()
    for path in ("postmaster", "postmaster@example.test"):
        assert client.deliver(CONTENT, path).status == "250 2.6.0"
    assert [m.addresses for m in downstream.delivered] == [["anna@example.test"]] * 2


@pytest.mark.parametrize("path", ["postmaster", "Postmaster@example.test"])
def test_where_the_mail_of_postmaster_goes_is_not_told(exchange, postern, path):
    """A refusal names who was asked for."""
    mx = postern(exchange(), settings={"server": {"postmaster": "anna@example.test"},
                                       "harvest": {"allow": "", "action": "reject", "threshold": 1}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert rcpt(client, "<nobody@example.test>").status == "550 5.1.1"
    reply = rcpt(client, f"<{path}>")
    assert str(reply) == f"550 5.7.1 <{path}>: Recipient address rejected: Too many unknown recipients"


def test_same_recipient_twice(mx):
    client = mx.client()
    assert client.deliver(CONTENT, "anna@example.test", "ANNA@example.test", "ben@example.test").code == 250
    message, = mx.exchange.delivered
    assert {address.lower() for address in message.addresses} == {"anna@example.test", "ben@example.test"}


def test_address_goes_on_as_it_was_written(mx):
    client = mx.client()
    assert client.deliver(CONTENT, "Anna@Example.test", sender="Some.One@Example.org").code == 250
    message = mx.exchange.delivered[0]
    assert message.mail.split()[0] == "<Some.One@Example.org>"
    assert message.addresses == ["Anna@Example.test"]


def test_whole_domain_and_comments_in_the_file(exchange, postern):
    recipients = ["# people", "anna@example.test", "", "@example.org", "  Ben@Example.Test  "]
    mx = postern(exchange(), recipients=recipients, settings={"domain example.org": {"downstream": "exchange"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.net>")
    for address, status in [("anna@example.test", "250 2.1.5"), ("ben@example.test", "250 2.1.5"),
                            ("whoever@example.org", "250 2.1.5"), ("carl@example.test", "550 5.1.1")]:
        assert rcpt(client, f"<{address}>").status == status, address


def test_wildcard_domain(exchange, postern):
    mx = postern(exchange(), recipients=["a@example.test", "a@x.example.test", "a@y.x.example.test"],
                 settings={"domain example.test": None, "domain *.example.test": {"downstream": "exchange"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.net>")
    for address, status in [("a@x.example.test", "250 2.1.5"), ("a@y.x.example.test", "250 2.1.5"),
                            ("b@x.example.test", "550 5.1.1"), ("a@example.test", "550 5.7.1"),
                            ("a@xexample.test", "550 5.7.1")]:
        assert rcpt(client, f"<{address}>").status == status, address


def test_directories_by_name(exchange, postern, directory):
    second = directory + "/second"
    with open(second, "w", encoding="utf-8") as out:
        out.write("zoe@example.org\nzoe@example.test\n")
    mx = postern(exchange(), settings={
        "directory second": {"type": "file", "file": second},
        "domain example.org": {"downstream": "exchange", "directory": "second"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.net>")
    for address, status in [("zoe@example.org", "250 2.1.5"), ("zoe@example.test", "550 5.1.1"),
                            ("anna@example.test", "250 2.1.5"), ("anna@example.org", "550 5.1.1")]:
        assert rcpt(client, f"<{address}>").status == status, address


def test_recipients_any(exchange, postern):
    mx = postern(exchange(), settings={"domain example.test": {"recipients": "any"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.net>")
    assert rcpt(client, "<whoever@example.test>").status == "250 2.1.5"
    assert rcpt(client, "<whoever@example.org>").status == "550 5.7.1"


def test_recipients_of_two_downstreams(exchange, postern):
    first, second = exchange(), exchange()
    mx = postern(first, recipients=["a@example.test", "b@example.test", "a@example.org"], settings={
        "domain example.org": {"downstream": "second"},
        "downstream second": {"hosts": second.host, "tls": "off", "health_interval": "1h"}})
    mx.wait_log("downstream", state="up", host=second.host)
    client = mx.client()
    client.ok("MAIL FROM:<s@example.net>")
    for address, status in [("a@example.test", "250 2.1.5"), ("a@example.org", "452 4.5.3"),
                            ("b@example.test", "250 2.1.5")]:
        assert rcpt(client, f"<{address}>").status == status, address
    assert client.data(CONTENT).status == "250 2.6.0"
    assert client.deliver(CONTENT, "a@example.org").status == "250 2.6.0"
    assert [m.addresses for m in first.delivered] == [["a@example.test", "b@example.test"]]
    assert [m.addresses for m in second.delivered] == [["a@example.org"]]


def test_blocked_recipient_and_sender(exchange, postern):
    mx = postern(exchange(), settings={"blocked": {"recipients": "ben@example.test",
                                                   "senders": "bad@example.org, @bad.example"}})
    client = mx.client()
    for sender in ("bad@example.org", "BAD@example.org", "any@bad.example"):
        assert client.command(f"MAIL FROM:<{sender}>").status == "550 5.7.1"
    client.ok("MAIL FROM:<good@example.org>")
    assert (str(rcpt(client, "<ben@example.test>"))
            == "550 5.7.1 <ben@example.test>: Recipient address rejected: Access denied")
    assert rcpt(client, "<anna@example.test>").status == "250 2.1.5"


def test_blocked_client(exchange, postern):
    mx = postern(exchange(), settings={"blocked": {"clients": "127.0.0.7"}})
    client = mx.client(source="127.0.0.7", ehlo=False)
    assert client.greeting.status == "554 5.7.1"
    client.ended()
    assert mx.client(source="127.0.0.8").greeting.code == 220


def test_a_label_too_long_for_the_dns(mx):
    """As an A-label, though what was written has no more than 63 characters."""
    domain = "ü" * 63 + ".example"
    client = mx.client()
    assert client.command(f"MAIL FROM:<a@{domain}> SMTPUTF8").status == "501 5.1.7"
    client.ok("MAIL FROM:<a@example.org> SMTPUTF8")
    assert client.command(f"RCPT TO:<a@{domain}>").status == "501 5.1.3"
    assert mx.wait_log("rcpt", reason="syntax")["status"] == "5.1.3"


def test_client_blocked_since_a_reload(mx):
    """Its open session ends at the next MAIL, and the transaction under way does not."""
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    mx.write_config({"blocked": {"clients": "127.0.0.1"}})
    mx.reload()
    assert client.data(b"Subject: x\r\n\r\nx\r\n").status == "250 2.6.0"
    assert client.command("MAIL FROM:<a@example.org>").status == "554 5.7.1"
    client.ended()
    assert mx.wait_log("close")["reason"] == "blocked"
    assert mx.events("rcpt", verdict="reject", status="5.7.1", reason="blocked-client")[0]["from"] == "<a@example.org>"
    mx.assert_counts_are_the_log_s()


@pytest.fixture
def idn(exchange, postern):
    """Names beyond ASCII in the file; the configuration has them as A-labels."""
    return postern(exchange(), recipients=["anna@bücher.example", "JÖRG@Bücher.example"],
                   settings={"domain xn--bcher-kva.example": {"downstream": "exchange"},
                             "blocked": {"senders": "BÖSE@example.org", "recipients": "ÄRGER@xn--bcher-kva.example"}})


@pytest.mark.parametrize("address, status", [
    ("anna@bücher.example", "250 2.1.5"), ("anna@BÜCHER.example", "250 2.1.5"),
    ("anna@xn--bcher-kva.example", "250 2.1.5"), ("jörg@bücher.example", "250 2.1.5"),
    ("jörg@xn--bcher-kva.example", "250 2.1.5"), ("karl@bücher.example", "550 5.1.1"),
    ("anna@andere.example", "550 5.7.1"), ("anna@änder.example", "550 5.7.1")])
def test_idn(idn, address, status):
    client = idn.client()
    client.ok("MAIL FROM:<sénder@exämple.org> SMTPUTF8")
    reply = rcpt(client, f"<{address}>")
    assert reply.status == status
    if status[0] == "5":
        assert f"<{address}>" in reply.lines[0]


def test_idn_blocked(idn):
    client = idn.client()
    for sender in ("böse@example.org", "BÖSE@Example.org"):
        assert client.command(f"MAIL FROM:<{sender}> SMTPUTF8").status == "550 5.7.1"
    client.ok("MAIL FROM:<sénder@example.org> SMTPUTF8")
    assert rcpt(client, "<ärger@bücher.example>").status == "550 5.7.1"


def test_idn_needs_smtputf8(idn):
    client = idn.client()
    assert client.command("MAIL FROM:<sénder@example.org>").status == "553 5.6.7"
    client.ok("MAIL FROM:<sender@example.org>")
    assert rcpt(client, "<jörg@bücher.example>").status == "553 5.6.7"
    assert rcpt(client, "<anna@xn--bcher-kva.example>").status == "250 2.1.5"


def test_bad_utf8_in_an_address(idn):
    client = idn.client()
    client.ok("MAIL FROM:<sender@example.org> SMTPUTF8")
    assert client.command(b"RCPT TO:<j\xf6rg@xn--bcher-kva.example>").status == "501 5.1.3"


def test_each_verdict_is_logged(mx):
    client = mx.client()
    client.ok("MAIL FROM:<Sender@example.org>")
    for address in ("anna@example.test", "nobody@example.test", "anna@example.org"):
        rcpt(client, f"<{address}>")
    session = mx.wait_log("connect")["session"]
    common = {"session": session, "client": "127.0.0.1", "helo": "client.example.org", "from": "<Sender@example.org>"}
    mx.wait_log("rcpt", **common, to="<anna@example.test>", verdict="accept", source="file")
    mx.wait_log("rcpt", **common, to="<nobody@example.test>", verdict="reject", status="5.1.1", source="file")
    mx.wait_log("rcpt", **common, to="<anna@example.org>", verdict="reject", status="5.7.1", source="policy")


def test_monitor(exchange, postern):
    mx = postern(exchange(), settings={"server": {"monitor": "yes"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert rcpt(client, "<nobody@example.test>").status == "250 2.1.5"
    assert rcpt(client, "<anna@example.org>").status == "550 5.7.1"  # relaying is no verdict on a recipient
    mx.wait_log("rcpt", to="<nobody@example.test>", verdict="would-reject")


def test_recipients_asked_of_the_downstream(exchange, postern):
    from harness import exchange as faults
    downstream = exchange()
    downstream.on("RCPT", faults.for_argument(
        "unknown", faults.reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found")))
    mx = postern(downstream, settings={"domain example.test": {"recipients": "downstream"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert rcpt(client, "<known@example.test>").status == "250 2.1.5"
    assert rcpt(client, "<unknown@example.test>").code == 550
    asked = [c.line for c in downstream.commands if c.verb in ("MAIL", "RCPT", "RSET")]
    assert asked[:2] == ["MAIL FROM:<>", "RCPT TO:<known@example.test>"]
    # Both answers are remembered; a passing trouble is not.
    count = downstream.count("RCPT")
    assert rcpt(client, "<known@example.test>").status == "250 2.1.5"
    assert rcpt(client, "<unknown@example.test>").code == 550
    assert downstream.count("RCPT") == count
    downstream.on("RCPT", faults.reply("452 4.3.1 Insufficient system resources"))
    for _ in range(2):
        assert rcpt(client, "<later@example.test>").status == "452 4.3.1"
    assert downstream.count("RCPT") == count + 2
    downstream.on("RCPT", faults.reply("421 4.3.2 Service not active"))
    assert rcpt(client, "<later@example.test>").status == "451 4.3.2"


def test_its_answers_are_kept_as_the_directory_s_are(exchange, postern):
    from harness import exchange as faults
    downstream = exchange()
    downstream.on("RCPT", faults.for_argument("unknown", faults.reply("550 5.1.10 Recipient not found")))
    mx = postern(downstream, settings={"domain example.test": {"recipients": "downstream"},
                                       "directory": {"cache_positive": "0s", "cache_negative": "0s"}})

    def asked():
        count = downstream.count("RCPT")
        assert [mx.rcpt(f"{name}@example.test").code for name in ("known", "unknown")] == [250, 550]
        return downstream.count("RCPT") - count
    assert [asked(), asked()] == [2, 2]
    mx.write_config({"directory": {"cache_negative": "1h"}})
    mx.reload()
    assert [asked(), asked()] == [1, 1]


@pytest.mark.parametrize("how", ["another name", "another host"])
def test_what_one_downstream_said_is_not_what_another_says(exchange, postern, how):
    from harness import exchange as faults
    old, new = exchange(), exchange()
    old.on("RCPT", faults.for_argument("boss", faults.reply("550 5.1.10 Recipient not found")))
    mx = postern(old, settings={"domain example.test": {"recipients": "downstream"}})
    assert mx.rcpt("boss@example.test").status == "550 5.1.1"
    if how == "another name":
        mx.write_config({"downstream second": {"hosts": new.host, "tls": "off"},
                         "domain example.test": {"downstream": "second"}})
    else:
        mx.write_config({"downstream exchange": {"hosts": new.host}})
    since = len(mx.log)
    mx.reload()
    mx.wait_log("downstream", state="up", host=new.host, since=since)
    assert mx.rcpt("boss@example.test").status == "250 2.1.5"


def test_the_same_recipient_twice_is_none_too_many(exchange, postern):
    mx = postern(exchange(), settings={"server": {"max_recipients": 1}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert [rcpt(client, f"<{name}@example.test>").status for name in ("anna", "ANNA", "ben")] == [
        "250 2.1.5", "250 2.1.5", "452 4.5.3"]


def test_a_downstream_without_null_senders_says_nothing_of_recipients(exchange, postern):
    """Exchange's sender filter refuses MAIL FROM:<> by 5.1.0, which is no unknown user."""
    from harness import exchange as faults
    downstream = exchange()
    mx = postern(downstream, settings={"domain example.test": {"recipients": "downstream"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    downstream.on("MAIL", faults.reply("554 5.1.0 Sender denied"))
    for _ in range(2):
        assert rcpt(client, "<known@example.test>").lines == ["5.1.0 Sender denied"]
    downstream.usual("MAIL")
    assert rcpt(client, "<known@example.test>").status == "250 2.1.5"


@pytest.mark.parametrize("recipients", ["directory", "downstream"])
def test_a_marked_recipient_is_asked_about_with_the_sender(exchange, postern, recipients):
    """Where the downstream is the directory as well that is a second question, when nothing is cached."""
    from harness import exchange as faults
    mx = postern(downstream := exchange(), settings={
        "domain example.test": {"recipients": recipients}, "directory": {"cache_positive": "0s"}})
    downstream.on("RCPT", faults.for_argument(
        "ben", lambda step: None if step.connection.mail.startswith("<>") else "550 5.7.1 Not from you"))
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test", "ben@example.test")
    assert client.data(CONTENT).status == "451 4.5.0"
    client.ok("MAIL FROM:<sender@example.org>")
    assert rcpt(client, "<ben@example.test>").status == "550 5.7.1"
    assert rcpt(client, "<anna@example.test>").status == "250 2.1.5"
