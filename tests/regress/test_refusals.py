"""What the downstream refuses, and what becomes of it for the client (the table of the contract)."""

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.journal import poll

LEAKS = ("ex1.corp", "corp.example", "Hostname=", "10.1.2.3", "name=")


def deliver(mx, *recipients, content=CONTENT):
    reply = mx.client().deliver(content, *(f"{name}@example.test" for name in recipients))
    for leak in LEAKS:
        assert leak not in str(reply), f"{leak} shows: {reply}"
    return reply


REFUSALS = [
    ("550 5.1.1 User unknown", "550 5.1.1"),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "550 5.1.10"),
    ("550 5.7.1 RESOLVER.RST.AuthRequired; authentication required "
     "[Stage: CreateMessage] [name=ex1.corp.example.test]", "550 5.7.1"),
    ("550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient", "550 5.2.3"),
    ("452 4.3.1 Insufficient system resources at ex1.corp.example.test (10.1.2.3)", "452 4.3.1"),
    ("451 4.7.0 Temporary server error. Please try again later. PRX2 [Hostname=ex1.corp.example.test]", "451 4.7.0"),
    ("554 5.6.0 Corrupt message content", "554 5.6.0"),
    ("421 4.3.2 Service not active", "451 4.3.2"),
]


@pytest.mark.parametrize("given, status", REFUSALS)
@pytest.mark.parametrize("verb", ["RCPT", "EOD"])
def test_only_recipient(mx, verb, given, status):
    mx.exchange.on(verb, faults.reply(given))
    assert deliver(mx, "anna").status == status
    assert not mx.exchange.delivered


@pytest.mark.parametrize("given, status", [
    ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", "550 5.7.60"),
    ("452 4.3.1 Insufficient system resources", "452 4.3.1"), ("501 5.1.7 Invalid address", "501 5.1.7")])
def test_mail(mx, given, status):
    mx.exchange.on("MAIL", faults.reply(given))
    assert deliver(mx, "anna").status == status
    assert not mx.exchange.received
    assert not mx.exchange.junk


def test_reply_without_an_enhanced_code_gets_one(mx):
    mx.exchange.on("EOD", faults.reply("550 no"))
    assert deliver(mx, "anna").status.startswith("550 5.")


def test_multi_line_refusal(mx):
    mx.exchange.on("EOD", faults.reply("550-5.7.1 first line\r\n550 5.7.1 second line"))
    reply = deliver(mx, "anna")
    assert reply.status == "550 5.7.1"


@pytest.mark.parametrize("odd", ["354 go on", "150 what", "999 what", "25 ok", "ok"])
def test_reply_out_of_place_is_no_delivery(mx, odd):
    mx.exchange.on("EOD", faults.reply(odd))
    reply = deliver(mx, "anna")
    assert reply.code == 451 and reply.enhanced.startswith("4.")


def test_all_of_several_permanently(mx):
    mx.exchange.on("RCPT", lambda step: f"550 5.1.1 {'last' if 'ben' in step.argument else 'first'} one")
    reply = deliver(mx, "anna", "ben")
    assert reply.status == "550 5.1.1"
    assert "last" in str(reply)


def test_all_of_several_differently(mx):
    mx.exchange.on("RCPT", lambda step: "450 4.2.1 busy" if "anna" in step.argument else "550 5.1.1 no")
    assert deliver(mx, "anna", "ben").status == "451 4.5.0"
    assert not mx.exchange.received


def test_some_recipients(mx):
    """Nothing is delivered; the refused one is asked for live at the retry, and refuses nobody else's mail."""
    mx.exchange.on("RCPT", faults.for_argument("ben", faults.reply("550 5.1.1 User unknown")))
    assert deliver(mx, "anna", "ben").status == "451 4.5.0"
    assert not mx.exchange.received
    mx.wait_log("drift", to="<ben@example.test>", status="5.1.1")

    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    reply = client.command("RCPT TO:<ben@example.test>")
    assert reply.status == "550 5.1.1"
    assert client.data(CONTENT).status == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [["anna@example.test"]]

    # The mailbox is made: the next question takes the mark off.
    mx.exchange.usual()
    client.ok("MAIL FROM:<sender@example.org>")
    client.ok("RCPT TO:<ben@example.test>")
    questions = mx.exchange.count("RCPT")
    client.ok("RSET")
    client.ok("MAIL FROM:<sender@example.org>")
    client.ok("RCPT TO:<ben@example.test>")
    assert mx.exchange.count("RCPT") == questions
    assert client.data(CONTENT).status == "250 2.6.0"


def test_marked_recipient_is_asked_for_with_this_sender(mx):
    mx.exchange.on("RCPT", faults.reply("550 5.1.1 User unknown"))
    assert deliver(mx, "anna", "ben").status == "550 5.1.1"
    client = mx.client()
    client.ok("MAIL FROM:<other@example.org>")
    assert client.command("RCPT TO:<anna@example.test>").status == "550 5.1.1"
    asked = mx.exchange.commands.wait(lambda c: "other@" in c.line, "the question").connection
    poll(lambda: [c.line for c in list(mx.exchange.commands) if c.connection is asked][-3:] ==
         ["MAIL FROM:<other@example.org>", "RCPT TO:<anna@example.test>", "RSET"], "MAIL, RCPT, RSET")


def test_marked_recipient_and_nobody_answers(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"reply_timeout": "300ms"}})
    downstream.on("RCPT", faults.reply("550 5.1.1 User unknown"))
    assert mx.client().deliver(CONTENT, "anna@example.test", "ben@example.test").status == "550 5.1.1"
    downstream.on("RCPT", faults.hang)
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<anna@example.test>").status == "451 4.4.1"


RECIPIENT_SAKE = ["550 5.1.1 User unknown", "550 5.1.10 RESOLVER.ADR.RecipientNotFound", "552 5.2.2 mailbox full",
                  "550 5.4.1 Recipient address rejected: Access denied", "550 5.7.124 sender not allowed",
                  "550 5.7.133 not in the list", "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required"]
MESSAGE_SAKE = ["550 5.1.7 Invalid sender", "550 5.1.8 Access denied, bad outbound sender", "554 5.6.0 Corrupt",
                "550 5.7.1 Message rejected as spam", "550 5.7.900 by a transport rule", "554 5.4.6 Hop count exceeded"]


@pytest.mark.parametrize("given", RECIPIENT_SAKE)
def test_after_the_data_for_a_recipient_s_sake(mx, given):
    mx.exchange.on("EOD", faults.reply(given))
    assert deliver(mx, "anna", "ben").status == "451 4.5.0"


@pytest.mark.parametrize("given", MESSAGE_SAKE)
def test_after_the_data_for_the_message_s_sake(mx, given):
    mx.exchange.on("EOD", faults.reply(given))
    assert deliver(mx, "anna", "ben").status == " ".join(given.split()[:2])


def test_after_the_data_fewer_recipients_are_taken(mx):
    """None of them is absent, so half are taken from this sender at a time, until the culprit is alone."""
    def refuse_ben(step):
        named = [r for r in step.connection.recipients if "ben" in r]
        return "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required" if named else None
    mx.exchange.on("EOD", refuse_ben)
    left = ["anna", "ben", "carl"]
    replies = []
    for _ in range(6):
        client = mx.client()
        client.ok("MAIL FROM:<sender@example.org>")
        taken = []
        for name in left:
            reply = client.command(f"RCPT TO:<{name}@example.test>")
            assert reply.status in ("250 2.1.5", "452 4.5.3", "550 5.7.1"), reply
            if reply.code == 250:
                taken.append(name)
            elif reply.code == 550:
                replies.append((name, reply.status))
        if taken:
            reply = client.data(CONTENT)
            if reply.code != 451:
                left = [name for name in left if name not in taken]
                replies += [(name, reply.status) for name in taken]
        if not left:
            break
    assert sorted(replies) == [("anna", "250 2.6.0"), ("ben", "550 5.7.1"), ("carl", "250 2.6.0")]
    assert sorted(a for m in mx.exchange.delivered for a in m.addresses) == ["anna@example.test", "carl@example.test"]


def test_after_the_data_the_absent_one_is_refused_at_the_retry(mx):
    """Ben's mailbox goes while a message to him is on its way."""
    gate = faults.Gate(faults.reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound"))
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", "ben@example.test")
    gate.reached.wait()
    mx.write_recipients(["anna@example.test"])
    mx.reload()
    gate.open()
    assert client.reply().status == "451 4.5.0"
    mx.exchange.usual()
    client.ok("MAIL FROM:<sender@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    assert client.command("RCPT TO:<ben@example.test>").status == "550 5.1.1"
    assert client.data(CONTENT).status == "250 2.6.0"


def retries(mx, *names):
    """What comes of NAMES as a sender tries again and again, a message each time to all who are left."""
    left, answers = list(names), {}
    for _ in range(8):
        client = mx.client()
        client.ok("MAIL FROM:<sender@example.org>")
        taken = [name for name in left if client.command(f"RCPT TO:<{name}@example.test>").code == 250]
        reply = client.data(CONTENT)
        client.close()
        if reply.code != 451:
            answers |= {name: reply.status for name in taken}
            left = [name for name in left if name not in taken]
        if not left:
            break
    return answers


NOBODY = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"
FULL = "552 5.2.2 Mailbox full"
CROWD = "452 4.5.3 Too many recipients"


@pytest.mark.parametrize("who, verb, action, came", [
    ("postmaster", "EOD", lambda step: NOBODY if "postmaster" in str(step.connection.recipients) else None, "550 5.1.10"),
    ("postmaster", "RCPT", lambda step: NOBODY if "postmaster" in step.argument else None, "550 5.1.10"),
    ("carl", "RCPT", lambda step: FULL if "carl" in step.argument and "SIZE=" in step.connection.mail else None, "552 5.2.2"),
    ("carl", "RCPT", lambda step: CROWD if len(step.connection.recipients) == 2 else None, "250 2.6.0"),
])
def test_nobody_keeps_the_others_mail(mx, who, verb, action, came):
    """Refused with others each time, though taken when it is asked about alone, or always, as a postmaster: they are
    divided until it is alone."""
    mx.exchange.on(verb, action)
    assert retries(mx, "anna", who, "ben") == {"anna": "250 2.6.0", who: came, "ben": "250 2.6.0"}


def test_the_downstreams_text_is_in_the_log(mx):
    assert deliver(mx, "anna").status == "250 2.6.0"
    event = mx.wait_log("message", status="2.6.0")
    assert "Queued mail for delivery" in event["reply"]
    assert event["rcpts"] == "1"
    assert event["from"] == "<sender@example.org>"
    mx.exchange.on("EOD", faults.reply("550 5.7.1 no [name=ex1.corp.example.test]"))
    deliver(mx, "ben")
    assert "ex1.corp.example.test" in mx.wait_log("message", status="5.7.1")["reply"]


def test_refused_connection_stays_usable(mx):
    mx.exchange.on("RCPT", faults.for_argument("ben", faults.reply("450 4.2.1 busy")))
    for _ in range(3):
        assert deliver(mx, "ben").status == "450 4.2.1"
    assert deliver(mx, "anna").status == "250 2.6.0"
    assert len(mx.exchange.transactions()) < 4
