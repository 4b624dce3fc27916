"""A downstream or a client that fails at any instant: what is acknowledged is delivered.

Each test ends with the counts compared: what the client was told, and what the downstream took."""

import threading

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.exchange import CAPABILITIES
from harness.journal import DEADLINE_S, poll
from harness.ldap_server import LdapServer, entry

VERBS = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT", "EOD"]
FAULTS = {
    "dropped": lambda: faults.drop(),
    "reset": lambda: faults.drop(reset=True),
    "silent": lambda: faults.hang,
    "not reading": lambda: faults.stop_reading,
    "421": lambda: faults.reply_and_drop("421 4.3.2 Service not active"),
    "garbage": lambda: faults.reply_and_drop(b"\x00\xff garbage \r\n" * 20),
    "half a reply": lambda: faults.reply_and_drop(b"250 2.1"),
    "half a line pair": lambda: faults.reply_and_drop(b"250-2.1.0 there is more\r\n"),
    "codes that differ": lambda: faults.reply_and_drop(b"250-2.1.0 ok\r\n550 5.1.1 no\r\n"),
    "endless line": lambda: faults.endless(b"2" * 4096),
    "endless lines": lambda: faults.endless(b"250-2.0.0 and so on\r\n"),
}
AFTER_THE_END = ("CONTENT", "EOD")


VIAS = ["BDAT", "DATA"]
via_each = pytest.mark.parametrize("via", VIAS)


@pytest.fixture
def pair(exchange, postern):
    """A Postern that has no patience, in front of one Exchange that takes content by BDAT or by DATA."""
    def start(via):
        downstream = exchange(capabilities=[c for c in CAPABILITIES
                                            if via == "BDAT" or c not in ("CHUNKING", "BINARYMIME")])
        one = postern(downstream, settings={
            "server": {"reply_deadline": "3s"},
            "downstream exchange": {"reply_timeout": "400ms", "data_timeout": "400ms", "connect_timeout": "400ms",
                                    "health_interval": "200ms"}})
        one.exchange = downstream
        return one
    return start


def assert_books_balance(mx, replies):
    """Every 250 to a message has a delivery of its own."""
    taken = sum(reply.code == 250 for reply in replies)
    assert taken <= len(mx.exchange.delivered), f"{taken} acknowledged, {len(mx.exchange.delivered)} delivered"
    assert not mx.exchange.junk, [str(c) for c in mx.exchange.junk]


@pytest.mark.parametrize("via, verb", [(via, verb) for via in VIAS for verb in VERBS if (via, verb) != ("BDAT", "DATA")])
@pytest.mark.parametrize("fault", FAULTS)
def test_downstream_fails(pair, via, verb, fault):
    mx = pair(via)
    mx.exchange.drop_all()
    mx.exchange.on(verb, FAULTS[fault]())
    reply = mx.client().attempt(CONTENT, "anna@example.test")
    assert reply.code == 451, reply
    assert reply.enhanced in (("4.4.1", "4.4.2", "4.3.2") if verb in AFTER_THE_END else ("4.4.1", "4.3.2")), reply
    assert not mx.exchange.delivered
    # And when it is well again, so are we: nothing is left of the failure.
    mx.exchange.usual()
    mx.exchange.drop_all()
    poll(lambda: mx.client().command("MAIL FROM:<>").code == 250, "the downstream up")
    for n in range(3):
        assert mx.client().deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 3
    assert not mx.exchange.junk, [str(c) for c in mx.exchange.junk]


IMPATIENT = {"reply_timeout": "400ms", "data_timeout": "400ms", "connect_timeout": "400ms", "health_interval": "200ms"}


@pytest.mark.parametrize("verb", ["STARTTLS", "XCLIENT", "second EHLO"])
@pytest.mark.parametrize("fault", FAULTS)
def test_downstream_fails_before_the_envelope(exchange, postern, certificates, verb, fault):
    """Of what only some have: nothing is said of the message, in the clear or for another client."""
    downstream = exchange(capabilities=[*CAPABILITIES, "XCLIENT ADDR HELO"], tls=certificates.server_context())
    mx = postern(downstream, settings={"server": {"reply_deadline": "3s"},
                                       "downstream exchange": {"tls": "required", "xclient": "yes", **IMPATIENT}})
    seen, act = [], FAULTS[fault]()

    def second(step):
        seen.append(step.connection)
        return act(step) if seen.count(step.connection) == 2 else None
    downstream.on(verb.removeprefix("second "), second if verb.startswith("second") else act)
    downstream.drop_all()
    replies = [mx.client().attempt(CONTENT + b"%d\r\n" % n, "anna@example.test") for n in range(2)]
    assert {reply.status for reply in replies} <= {"451 4.4.1", "451 4.7.5", "451 4.3.2"}, replies
    assert not downstream.transactions() and not downstream.junk
    downstream.usual()
    downstream.drop_all()
    poll(lambda: mx.client().command("MAIL FROM:<>").code == 250, "the downstream up")
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == 1 and downstream.delivered[0].connection.tls


@pytest.mark.parametrize("fault", FAULTS)
def test_downstream_fails_at_rset(exchange, postern, fault):
    """Behind a refused envelope: the refusal stands, and who comes next does not wait for it."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {"max_connections": 1, **IMPATIENT}})
    downstream.on("RSET", FAULTS[fault]())
    downstream.on("RCPT", faults.for_argument("anna", faults.reply("550 5.7.1 no")))
    for n in range(3):
        assert mx.client().deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "550 5.7.1"
        assert mx.client().deliver(CONTENT + b"%d\r\n" % n, "ben@example.test").status == "250 2.6.0"
    assert [message.addresses for message in downstream.delivered] == [["ben@example.test"]] * 3
    assert downstream.count("RSET") > 0 and not downstream.junk


@pytest.mark.parametrize("fault", FAULTS)
def test_downstream_fails_at_quit(exchange, postern, fault):
    """The message before it is delivered, and the one behind it goes over another connection."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {
        "max_connections": 1, "connection_messages": 1, "queue_timeout": "10s", **IMPATIENT}})
    downstream.on("QUIT", FAULTS[fault]())
    for n in range(3):
        assert mx.client().deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == len({message.connection for message in downstream.delivered}) == 3
    assert not downstream.junk


@via_each
def test_replies_octet_by_octet(pair, via):
    mx = pair(via)
    mx.exchange.drop_all()
    mx.exchange.split_replies = True
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


@via_each
@pytest.mark.parametrize("reset", [False, True])
def test_delivered_but_the_answer_is_lost(pair, via, reset):
    """Its fate is unknown to us, so the client is to try again; never a second host by ourselves."""
    mx = pair(via)
    mx.exchange.on("EOD", faults.first(1, faults.deliver_and_drop(reset)))
    reply = mx.client().deliver(CONTENT, "anna@example.test")
    assert reply.status == "451 4.4.2"
    assert len(mx.exchange.delivered) == 1
    assert_books_balance(mx, [reply])


def test_lost_after_the_end_of_data_no_second_host_is_tried(exchange, postern):
    hosts = [exchange(), exchange()]
    mx = postern(*hosts, wait_downstream=False)
    for host in hosts:
        mx.wait_log("downstream", state="up", host=host.host)
        host.on("EOD", faults.drop())
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "451 4.4.2"
    assert sum(host.count("MAIL") for host in hosts) == 1


@via_each
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "EOD"])
def test_unasked_replies(pair, via, verb):
    """More replies than questions: whatever becomes of the message, no answer is taken for another's."""
    mx = pair(via)
    mx.exchange.drop_all()
    if verb != "EOD":
        # The downstream takes none of it, so a 250 can only be one that nobody asked for.
        mx.exchange.on("CONTENT", faults.hang)
    usual = {"CONNECT": "220 hello", "EHLO": "250-hello\r\n250 8BITMIME", "MAIL": "250 2.1.0 ok",
             "RCPT": "250 2.1.5 ok", "EOD": "250 2.6.0 ok"}[verb]
    mx.exchange.on(verb, faults.reply(f"{usual}\r\n250 2.6.0 unasked\r\n250 2.6.0 unasked"))
    replies = [mx.client().attempt(CONTENT + b"%d\r\n" % n, "anna@example.test") for n in range(3)]
    assert_books_balance(mx, replies)


@via_each
def test_downstream_answers_after_the_client_was_told(pair, via):
    mx = pair(via)
    gate = faults.Gate()
    mx.exchange.on("EOD", faults.first(1, gate))
    client = mx.client()
    reply = client.deliver(CONTENT, "anna@example.test")
    assert reply.code == 451
    gate.open()
    assert_books_balance(mx, [reply])


@via_each
@pytest.mark.parametrize("octets", [0, 1, 1000, 200000])
@pytest.mark.parametrize("reset", [False, True], ids=["dropped", "reset"])
def test_downstream_ends_within_the_content(pair, via, octets, reset):
    mx = pair(via)
    mx.exchange.on("CONTENT", faults.drop_in_content(octets, reset))
    reply = mx.client().deliver(CONTENT + (b"x" * 78 + b"\r\n") * 10000, "anna@example.test")
    assert reply.code == 451
    assert not mx.exchange.received


@pytest.mark.parametrize("number", [2, 3])
def test_killed_while_many_are_under_way(exchange, postern, number):
    downstream = exchange()
    mx = postern(downstream, settings={"server": {"workers": 2}})
    mx.exchange = downstream
    gate = faults.Gate(faults.drop(reset=True))
    mx.exchange.on("EOD", lambda step: gate(step) if len(mx.exchange.received) >= number else None)
    clients = []
    for n in range(10):
        client = mx.client(source=f"127.0.0.{n + 10}")
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT + b"%d\r\n.\r\n" % n)
        clients.append(client)
    gate.reached.wait_count(1)
    mx.exchange.stop_listening()
    mx.exchange.drop_all()
    gate.open()
    replies = [client.reply() for client in clients]
    assert_books_balance(mx, replies)
    assert sum(r.code == 250 for r in replies) == len(mx.exchange.delivered)
    assert all(r.code == 451 for r in replies if r.code != 250)


# The client fails

COMMANDS = [b"EHLO client.example.org\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<anna@example.test>\r\n",
            b"DATA\r\n", b"Subject: x\r\n\r\nbo"]


@pytest.mark.parametrize("commands", range(len(COMMANDS) + 1))
@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_gone(mx, commands, end):
    client = mx.client(ehlo=False)
    for octets in COMMANDS[:commands]:
        client.send(octets)
        if octets.endswith(b"\r\n") and b"Subject" not in octets:
            client.reply()
    getattr(client, end)()
    mx.clients.remove(client)
    session = mx.wait_log("connect")["session"]
    mx.wait_log("close", session=session)
    assert not mx.exchange.transactions()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


ENVELOPE = COMMANDS[1:3]
HALVES = {
    "a command": [b"MAIL FROM:<a@exam"],
    "a command that is too long": [b"x" * 5000],
    "a pipelined envelope": [b"".join(ENVELOPE) + b"DA"],
    "a chunk": [*ENVELOPE, b"BDAT 1000\r\nSubject: x\r\n"],
    "a last chunk": [*ENVELOPE, b"BDAT 1000 LAST\r\nSubject: x\r\n"],
    "a message of two chunks": [*ENVELOPE, b"BDAT 5\r\nX: y\n"],
    "a refused chunk": [b"BDAT 1000 LAST\r\nSubject: x\r\n"],
    "an end of data": [*ENVELOPE, b"DATA\r\n", b"Subject: x\r\n\r\n."],
    "a handshake": [b"STARTTLS\r\n", b"\x16\x03\x01\x02\x00\x01"],
    "a file": [*ENVELOPE, b"DATA\r\n", b"Subject: x\r\n\r\n" + b"x" * 700000],
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_gone_with_half_of(exchange, postern, certificates, half, end):
    downstream = exchange()
    mx = postern(downstream, settings={
        "tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    client = mx.client()
    *before, last = HALVES[half]
    for octets in before:
        client.send(octets)
        assert client.reply().code in (220, 250, 354)
    client.send(last)
    session = mx.wait_log("connect")["session"]
    getattr(client, end)()
    mx.clients.remove(client)
    mx.wait_log("close", session=session)
    assert not downstream.transactions()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == 1
    assert mx.metrics()["postern_connections"] == 1


@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_gone_while_the_directory_is_asked(exchange, postern, end):
    asked, over = threading.Event(), threading.Event()

    def answer(search):
        if "ben" in search.filter:
            asked.set()
            over.wait(DEADLINE_S)
        return [entry("cn=x,dc=x", {"proxyAddresses": ["SMTP:anna@example.test", "smtp:ben@example.test"]})]
    server = LdapServer(answer)
    mx = postern(downstream := exchange(), settings={"directory": {
        "type": "ad", "file": "", "uri": server.uri, "bind": "anonymous", "base": "dc=x", "timeout": "30s", "connections": 1}})
    try:
        assert mx.client().attempt(CONTENT, "anna@example.test").code == 250
        client = mx.client()
        client.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<ben@example.test>\r\n")
        assert asked.wait(DEADLINE_S)
        since = len(mx.log)
        getattr(client, end)()
        mx.wait_log("close", since=since)
        assert mx.client().deliver(CONTENT + b"2\r\n", "anna@example.test").status == "250 2.6.0"
        over.set()
        assert mx.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
        assert len(downstream.delivered) == 3
    finally:
        over.set()
        mx.stop()
        server.stop()


def start_message(mx, content=CONTENT):
    client = mx.client()
    client.send_message(content, "anna@example.test", sender="a@example.org")
    return client


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "EOD"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_client_gone_while_its_message_is_handed_on(mx, verb, end):
    """Whether the burst is cut short or runs on: its retry is answered, and there is one delivery."""
    gate = faults.Gate()
    mx.exchange.on(verb, gate)
    client = start_message(mx)
    gate.reached.wait()
    getattr(client, end)()
    mx.clients.remove(client)
    gate.open()
    mx.wait_log("close", session=mx.wait_log("connect")["session"])
    if verb == "EOD":
        mx.exchange.delivered.wait()  # it is never cut short past its end of data
    assert mx.client().deliver(CONTENT, "anna@example.test", sender="a@example.org").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == len(mx.exchange.received) == 1


@pytest.mark.parametrize("verb, status", [("MAIL", "4.4.2"), ("EOD", "2.6.0")])
def test_message_of_a_client_that_is_gone_has_its_line(mx, verb, status):
    """What was read to its end is told and counted, whatever came of it."""
    gate = faults.Gate()
    mx.exchange.on(verb, gate)
    client = start_message(mx)
    gate.reached.wait()
    client.reset()
    mx.clients.remove(client)
    mx.wait_log("close", reason="client-reset")
    gate.open()
    assert mx.wait_log("message")["status"] == status
    assert mx.metrics()['postern_messages_total{status="deferred"}'] == 1  # for all that the client knows


def test_retry_waits_for_the_burst_under_way(mx):
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = start_message(mx)
    gate.reached.wait()
    client.reset()
    mx.clients.remove(client)
    retry = start_message(mx)
    # Somebody else's message, sent later, has been handed on by now.
    other = start_message(mx, CONTENT + b"another\r\n")
    gate.reached.wait_count(2)
    retry.silent()
    gate.open()
    assert retry.reply().status == other.reply().status == "250 2.6.0"
    assert len(mx.exchange.received) == 2


def test_retry_with_another_recipient_is_delivered_to_that_one_only(mx):
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = start_message(mx)
    gate.reached.wait()
    client.reset()
    mx.clients.remove(client)
    gate.open()
    mx.wait_log("close")
    mx.exchange.usual()
    reply = mx.client().deliver(CONTENT, "anna@example.test", "ben@example.test", sender="a@example.org")
    assert reply.status == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [["anna@example.test"], ["ben@example.test"]]


def test_the_same_message_again_is_a_new_one_once_the_client_has_heard(mx):
    client = mx.client()
    for _ in range(2):
        assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


def test_killed_in_the_midst_of_a_burst(mx):
    """SIGKILL of ourselves: the client has no 250, and a new process serves its retry."""
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = start_message(mx)
    gate.reached.wait()
    mx.kill()
    with pytest.raises((ConnectionError, OSError)):
        client.reply()
    gate.open()
    mx.exchange.usual()
    mx.start(wait_downstream=False)
    mx.log.wait(lambda e: e["event"] == "downstream" and e["state"] == "up", since=len(mx.log) - 5)
    reply = mx.client().deliver(CONTENT, "anna@example.test", sender="a@example.org")
    assert reply.status == "250 2.6.0"
    assert len(mx.exchange.delivered) >= 1
