"""What a client may take up, and the reply when it wants more."""

import select

import pytest

from conftest import CONTENT
from harness import Client
from harness.journal import poll


def start(postern, exchange, section="server", **keys):
    downstream = exchange()
    one = postern(downstream, settings={section: keys})
    one.exchange = downstream
    return one


def test_errors(exchange, postern):
    client = start(postern, exchange, max_errors=3).client()
    for _ in range(2):
        assert client.command("FOO").status == "500 5.5.2"
    replies = [client.command("FOO")]
    if replies[0].status == "500 5.5.2":
        replies.append(client.command("NOOP"))
    assert replies[-1].status == "421 4.7.0"
    client.ended()


def test_unknown_recipients_are_no_errors(exchange, postern):
    client = start(postern, exchange, max_errors=3).client()
    client.ok("MAIL FROM:<a@example.org>")
    for n in range(10):
        assert client.command(f"RCPT TO:<x{n}@example.test>").status == "550 5.1.1"


def test_recipients(exchange, postern):
    downstream = exchange()
    known = [f"user{n}@example.test" for n in range(6)]
    mx = postern(downstream, recipients=known, settings={"server": {"max_recipients": 4}})
    client = mx.client()
    assert "RCPTMAX=4" in client.offered["LIMITS"].split()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<nobody@example.test>").code == 550
    for address in known[:4]:
        client.ok(f"RCPT TO:<{address}>")
    for address in known[4:]:
        assert client.command(f"RCPT TO:<{address}>").status == "452 4.5.3"
    assert client.data(CONTENT).status == "250 2.6.0"
    assert downstream.delivered[0].addresses == known[:4]


@pytest.mark.parametrize("hops, status", [(25, "250 2.6.0"), (26, "554 5.4.6")])
def test_hops(mx, hops, status):
    content = b"Received: from a by b;\r\n date\r\nReceived-SPF: none\r\n" + b"received : x\r\n" * (hops - 1)
    reply = mx.client().deliver(content + b"\r\nReceived: in the body\r\n", "anna@example.test")
    assert reply.status == status
    assert len(mx.exchange.received) == (status[0] == "2")


def test_hops_setting(exchange, postern):
    mx = start(postern, exchange, max_hops=2)
    assert mx.client().deliver(b"Received: x\r\n" * 3 + b"\r\n", "anna@example.test").status == "554 5.4.6"
    assert mx.client().deliver(b"Received: x\r\n" * 2 + b"\r\n", "anna@example.test").status == "250 2.6.0"


@pytest.mark.parametrize("size, status", [(250 << 10, "250 2.6.0"), ((256 << 10) + 100, "552 5.3.4")])
@pytest.mark.parametrize("shape", ["one line", "many lines"])
def test_header_size(mx, size, status, shape):
    line = b"X: " + b"y" * 75 + b"\r\n"
    head = b"X: " + b"y" * size + b"\r\n" if shape == "one line" else line * (size // len(line) + 1)
    client = mx.client()
    assert client.deliver(head + b"\r\nbody\r\n", "anna@example.test").status == status
    assert client.command("NOOP").code == 250


def test_message_size_at_mail(exchange, postern):
    mx = start(postern, exchange, max_message_size="100000")
    client = mx.client()
    assert client.command("MAIL FROM:<a@example.org> SIZE=100001").status == "552 5.3.4"
    event = mx.wait_log("rcpt")
    assert (event["status"], event["verdict"], event["reason"]) == ("5.3.4", "reject", "size")
    assert mx.metrics()['postern_recipients_total{verdict="reject",reason="size"}'] == 1
    assert client.command("MAIL FROM:<a@example.org> SIZE=" + "9" * 20).status == "552 5.3.4"  # RFC 1870 4
    client.ok("MAIL FROM:<a@example.org> SIZE=100000")


@pytest.mark.parametrize("via", ["DATA", "BDAT"])
def test_message_size_at_the_end(exchange, postern, via):
    mx = start(postern, exchange, max_message_size="100000")
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test", mail=" SIZE=10")
    content = CONTENT + (b"x" * 78 + b"\r\n") * 2000
    if via == "DATA":
        assert client.data(content).status == "552 5.3.4"
    else:
        replies = client.bdat(content[:50000], content[50000:120000], content[120000:])
        assert replies[0].code == 250
        assert "552 5.3.4" in [reply.status for reply in replies]
        assert all(reply.code >= 500 for reply in replies[2:])
    assert client.command("NOOP").code == 250
    assert not mx.exchange.received
    assert [(e["status"], e["rcpts"]) for e in mx.events("message")] == [("5.3.4", "1")]
    assert mx.metrics()['postern_messages_total{status="refused"}'] == 1


def test_message_as_large_as_the_limit(exchange, postern):
    mx = start(postern, exchange, max_message_size="100000")
    head = b"Subject: x\r\n\r\n"
    content = head + b"x" * (100000 - len(head) - 2) + b"\r\n"
    assert mx.client().deliver(content, "anna@example.test").status == "250 2.6.0"


def test_bdat_chunk_larger_than_any_message(mx):
    """It is refused as soon as it is announced, or read away; its octets are never commands."""
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.send(b"BDAT 60000000 LAST\r\n" + b"RSET\r\n" * 100)
    client.close()
    mx.clients.remove(client)
    mx.wait_log("close")
    assert not mx.exchange.transactions()


def test_connections(exchange, postern):
    mx = start(postern, exchange, max_connections=3)
    kept = [mx.client(source=f"127.0.0.{n + 10}") for n in range(3)]
    one_more = mx.client(source="127.0.0.20", ehlo=False)
    assert one_more.greeting.status == "421 4.3.2"
    one_more.ended()
    assert all(client.command("NOOP").code == 250 for client in kept)
    kept.pop().quit()
    poll(lambda: mx.client(source="127.0.0.21", ehlo=False).greeting.code == 220, "room again")


def test_connections_of_a_client(exchange, postern):
    downstream = exchange()
    mx = postern(downstream, settings={"server": {"max_connections_per_client": 2}, "harvest": {"allow": ""}})
    kept = [mx.client(source="127.0.0.10") for _ in range(2)]
    one_more = mx.client(source="127.0.0.10", ehlo=False)
    assert one_more.greeting.status == "421 4.7.0"
    one_more.ended()
    assert mx.client(source="127.0.0.11").greeting.code == 220
    assert all(client.command("NOOP").code == 250 for client in kept)


@pytest.mark.parametrize("first", [b"", b"EHLO client.example.org\r\n"], ids=["silent", "early"])
def test_who_is_turned_away_takes_nobody_s_place(exchange, postern, first):
    """However often a client comes, and though it never goes."""
    mx = postern(exchange(), settings={"server": {"max_connections": 20, "max_connections_per_client": 2},
                                       "harvest": {"allow": ""}})
    greedy = [Client(mx.address, "127.0.0.10", greet=False, first=first) for _ in range(60)]
    poll(lambda: sum(value for name, value in mx.metrics().items() if "connections_refused" in name) >= 58,
         "all but two are turned away")
    assert mx.metrics()['postern_connections_refused_total{reason="limit"}'] == 0
    other = mx.client(source="127.0.0.11")
    assert other.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    for client in greedy:
        client.close()


def test_connections_of_a_client_by_network(exchange, postern):
    mx = postern(exchange(), settings={"server": {"max_connections_per_client": 1},
                                       "harvest": {"allow": "", "prefix4": 24}})
    assert mx.client(source="127.0.0.10").greeting.code == 220
    assert mx.client(source="127.0.0.11", ehlo=False).greeting.status == "421 4.7.0"
    assert mx.client(source="127.0.1.11").greeting.code == 220


@pytest.mark.parametrize("octets", [b"", b"NOO", b"MAIL FROM:<a@example.org>\r\nRCPT TO:<anna@example.test>\r\nDATA\r\nSub"])
def test_command_timeout(exchange, postern, octets):
    client = start(postern, exchange, command_timeout="300ms").client()
    client.send(octets)
    for _ in range(octets.count(b"\r\n")):
        client.reply()
    assert client.reply().status == "421 4.4.2"
    client.ended()


def test_session_timeout(exchange, postern):
    client = start(postern, exchange, session_timeout="1s").client()
    assert client.reply().status == "421 4.4.2"
    client.ended()


def test_no_flood_puts_the_session_timeout_off(exchange, postern):
    mx = start(postern, exchange, session_timeout="1s")
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    lines = (b"x" * 70 + b"\r\n") * 900
    while not select.select([client.socket], [], [], 0)[0]:
        client.send(lines)
    assert client.reply().status == "421 4.4.2"
    assert float(mx.wait_log("close", reason="timeout")["duration"]) < 2


def test_slow_octets_do_not_extend_a_command(exchange, postern):
    """The time is for the whole command: an octet now and then buys no more of it."""
    mx = start(postern, exchange, command_timeout="500ms")
    client = Client(mx.address)
    mx.clients.append(client)
    client.socket.settimeout(0.1)
    sent = 0
    while True:
        try:
            client.socket.sendall(b"x")
            sent += 1
            assert sent < 150, "the command goes on for ever"
            reply = client.reply()
            break
        except TimeoutError:
            continue
    assert reply.status == "421 4.4.2"
