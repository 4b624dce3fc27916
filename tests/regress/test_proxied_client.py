"""The real client behind a proxy: told by a PROXY header or XCLIENT coming in, passed on by XCLIENT going out."""

import ipaddress
import struct

import pytest

from conftest import CONTENT
from harness.client import proxy_header

PROXY = "127.0.0.20"
STRANGER = "198.51.100.7"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
XCLIENT = "NAME ADDR PORT PROTO HELO"


def v2(client, command=1, kind=None, extra=b"", port=40000):
    """A PROXY header, version 2; `extra` stands behind the addresses."""
    if client is None:
        addresses = b""
    else:
        source = ipaddress.ip_address(client)
        server = ipaddress.ip_address("192.0.2.25" if source.version == 4 else "2001:db8::25")
        addresses = source.packed + server.packed + struct.pack(">HH", port, 25)
        kind = kind or (0x11 if source.version == 4 else 0x21)
    body = addresses + extra
    return SIGNATURE + bytes([0x20 | command, kind or 0]) + struct.pack(">H", len(body)) + body


@pytest.fixture
def mx(exchange, postern):
    """Call it with more settings: PROXY headers are expected of 127.0.0.20 alone."""
    def start(settings=None, **keys):
        downstream = exchange(**keys)
        settings = {"server": {}, **(settings or {})}
        settings["server"] = {"proxy_protocol": f"{PROXY}, 127.0.0.21", **settings["server"]}
        one = postern(downstream, settings=settings)
        one.exchange = downstream
        return one
    return start


def raw(one, octets, source=PROXY):
    client = one.client(source=source, greet=False)
    client.send(octets)
    return client


def client_of(one, octets):
    """Whose session the log says it is."""
    since = len(one.log)
    client = raw(one, octets)
    assert client.reply().code == 220
    event = one.wait_log("connect", since=since)
    client.ehlo()
    client.quit()
    assert one.wait_log("close", since=since)["client"] == event["client"]
    return event["client"], event["port"]


# PROXY

@pytest.mark.parametrize("header, client, port", [
    (proxy_header(STRANGER), STRANGER, "40000"),
    (proxy_header("2001:db8::9"), "2001:db8::9", "40000"),
    (b"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.25 40000 25\r\n", STRANGER, "40000"),
    (v2(STRANGER), STRANGER, "40000"),
    (v2("2001:db8::9"), "2001:db8::9", "40000"),
    (v2("::ffff:198.51.100.7"), STRANGER, "40000"),
    (v2(STRANGER, extra=b"\x04\0\1x" + b"\x20\0\5\1\0\0\0\0"), STRANGER, "40000"),  # TLVs are passed over
])
def test_told_address(mx, header, client, port):
    assert client_of(mx(), header) == (client, port)


@pytest.mark.parametrize("header", [
    b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
    v2(None, command=0), v2(STRANGER, command=0), v2(None, kind=0),
    v2(None, kind=0x31, extra=b"x" * 216)])
def test_unknown_and_local_keep_the_socket_s_address(mx, header):
    assert client_of(mx(), header)[0] == PROXY


def test_header_octet_by_octet(mx):
    one = mx()
    for header in (proxy_header(STRANGER), v2(STRANGER)):
        client = one.client(source=PROXY, greet=False)
        client.send(header, trickle=True)
        assert client.reply().code == 220
    assert [e["client"] for e in one.events("connect")] == [STRANGER] * 2


@pytest.mark.parametrize("octets", [
    b"EHLO client.example.org\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.25 40000\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 65536\r\n",
    b"PROXY TCP4 198.51.100.777 192.0.2.25 40000 25\r\n",
    b"PROXY TCP4 2001:db8::9 2001:db8::25 40000 25\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 25 x\r\n",
    b"PROXY TCP4  198.51.100.7 192.0.2.25 40000 25\r\n",
    b"PROXY UDP4 198.51.100.7 192.0.2.25 40000 25\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.25 40000 25\n",
    b"PROXY \r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"proxy TCP4 198.51.100.7 192.0.2.25 40000 25\r\n",
    b"\r\n\r\n\0\r\nQUIT\r",
    SIGNATURE + b"\x11\x11\0\x0c" + b"\1" * 12,  # version 1 of version 2
    SIGNATURE + b"\x22\x11\0\x0c" + b"\1" * 12,  # a command that is none
    SIGNATURE + b"\x21\x11\0\x0b" + b"\1" * 11,  # too short for its family
    SIGNATURE + b"\x21\x51\0\x0c" + b"\1" * 12,
])
def test_bad_header_closes(mx, octets):
    one = mx()
    client = raw(one, octets)
    client.ended()
    event = one.wait_log("close")
    assert event["client"] == PROXY and event["commands"] == "0"
    assert client_of(one, proxy_header(STRANGER))[0] == STRANGER


def test_no_header_within_5_s_closes(mx):
    """Neither half a header nor silence keeps a session; nothing is said to it."""
    one = mx()
    silent, half = one.client(source=PROXY, greet=False), raw(one, proxy_header(STRANGER)[:-1])
    silent.ended()
    half.ended()
    durations = [float(one.wait_log("close", since=since)["duration"]) for since in (0, 0)]
    assert all(4.9 <= duration < 10 for duration in durations)
    assert one.metrics()['postern_connections_refused_total{reason="proxy"}'] == 2


@pytest.mark.parametrize("header", [proxy_header(STRANGER), v2(STRANGER), v2(None, command=0)])
def test_data_behind_the_header_is_too_early(mx, header):
    one = mx()
    client = raw(one, header + b"EHLO client.example.org\r\n")
    assert client.reply().status == "554 5.5.0"
    client.ended()


def test_only_the_configured_networks_tell(mx):
    """A header of anybody else's is no header: it talks before the greeting, or is no command."""
    one = mx()
    client = one.client(source="127.0.0.30", ehlo=False)
    client.send(proxy_header(STRANGER))
    assert client.reply().status == "500 5.5.2"
    client.quit()
    assert one.wait_log("close")["client"] == "127.0.0.30"
    assert not one.events("connect", client=STRANGER)


def test_told_client_is_everywhere(mx):
    """Log, Received and verdicts are about the told client, not about the proxy."""
    one = mx({"blocked": {"clients": "203.0.113.0/24"}})
    client = one.client(source=PROXY, told=STRANGER)
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    for event in ("connect", "rcpt", "message"):
        assert one.wait_log(event)["client"] == STRANGER
    trace = one.exchange.delivered[0].content.partition(b"\r\n\tby ")[0]
    assert STRANGER.encode() in trace and PROXY.encode() not in trace
    refused = one.client(source=PROXY, told="203.0.113.9", ehlo=False)
    assert refused.greeting.status == "554 5.7.1"
    refused.ended()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_that_is_told_is_not_allowed(mx, address):
    """The default `allow` is for who is here, not for who is said to be."""
    one = mx({"harvest": {"threshold": 2, "message_threshold": 0, "block_private": "yes"}})
    client = one.client(source=PROXY, told=address)
    client.ok("MAIL FROM:<a@example.org>")
    client.command("RCPT TO:<x1@example.test>")
    assert client.command("RCPT TO:<x2@example.test>").status == "421 4.7.0"
    one.wait_log("harvest", action="block")
    local = one.client(source=PROXY, greet=False)
    local.send(v2(None, command=0))
    assert local.reply().code == 220
    local.ehlo()
    local.ok("MAIL FROM:<a@example.org>")
    for n in range(5):
        assert local.command(f"RCPT TO:<x{n}@example.test>").status == "550 5.1.1"


def test_connections_are_counted_for_the_told_client(mx):
    one = mx({"server": {"max_connections_per_client": 2}, "harvest": {"allow": ""}})
    kept = [one.client(source=PROXY, told=STRANGER) for _ in range(2)]
    third = one.client(source=PROXY, told=STRANGER, ehlo=False)
    assert third.greeting.status == "421 4.7.0"
    third.ended()
    # The proxy's other address counts for the same client; another client, and the proxy itself, do not.
    third = one.client(source="127.0.0.21", told=STRANGER, ehlo=False)
    assert third.greeting.status == "421 4.7.0"
    others = [one.client(source=PROXY, told=f"198.51.100.{n}") for n in range(10, 16)]
    for _ in range(4):
        local = raw(one, v2(None, command=0))
        assert local.reply().code == 220
        others.append(local)
    kept.pop().quit()
    one.wait_log("close", client=STRANGER, reason="quit")
    assert one.client(source=PROXY, told=STRANGER).command("NOOP").code == 250
    assert len(others) == 10


def test_ipv6_clients_are_networks_of_64(mx):
    one = mx({"server": {"max_connections_per_client": 1}})
    one.client(source=PROXY, told="2001:db8:0:1::1")
    assert one.client(source=PROXY, told="2001:db8:0:1:ffff::2", ehlo=False).greeting.status == "421 4.7.0"
    assert one.client(source=PROXY, told="2001:db8:0:2::1").greeting.code == 220


# XCLIENT, coming in

@pytest.fixture
def front(mx):
    """XCLIENT is for 127.0.0.40 and for 192.0.2.40 behind the proxy."""
    return lambda **settings: mx({"server": {"xclient": "127.0.0.40, 192.0.2.40"}, **settings})


FRONT = "127.0.0.40"


def test_xclient_is_for_some(front):
    one = front()
    client = one.client(source="127.0.0.41")
    assert "XCLIENT" not in client.offered
    assert client.command(f"XCLIENT ADDR={STRANGER}").code // 100 == 5
    assert client.command("NOOP").code == 250
    assert not one.events("rcpt", client=STRANGER)
    client = one.client(source=FRONT)
    assert set(XCLIENT.split()) <= set(client.offered["XCLIENT"].split())
    # Of a proxy's client it is the told address that counts.
    assert "XCLIENT" in one.client(source=PROXY, told="192.0.2.40").offered
    assert "XCLIENT" not in one.client(source=PROXY, told=STRANGER).offered


def test_xclient_starts_over_at_the_greeting(front):
    one = front()
    client = one.client(source=FRONT)
    client.envelope("a@example.org", "anna@example.test")
    assert client.command(f"XCLIENT ADDR={STRANGER}").status == "503 5.5.1"  # not within a transaction
    client.ok("RSET")
    reply = client.command(f"XCLIENT NAME=mail.example.org ADDR={STRANGER} PORT=4711 PROTO=ESMTP HELO=mail.example.org")
    assert reply == client.greeting
    assert client.command("MAIL FROM:<a@example.org>").status == "503 5.5.1"
    client.ehlo("other.example.org")
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert one.wait_log("message")["client"] == STRANGER
    trace = one.exchange.delivered[0].content.partition(b"\r\n\tby ")[0]
    assert STRANGER.encode() in trace and b"other.example.org" in trace and FRONT.encode() not in trace


@pytest.mark.parametrize("arguments, client", [
    ("ADDR=IPV6:2001:db8::9", "2001:db8::9"), ("ADDR=2001:db8::9", "2001:db8::9"), ("addr=" + STRANGER, STRANGER),
    ("ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]", FRONT), ("NAME=[TEMPUNAVAIL] HELO=[UNAVAILABLE]", FRONT),
    ("ADDR=198.51.100+2E7", STRANGER)])
def test_xclient_addresses(front, arguments, client):
    one = front()
    session = one.client(source=FRONT)
    assert session.command(f"XCLIENT {arguments}").code == 220
    session.quit()
    assert one.wait_log("close")["client"] == client


@pytest.mark.parametrize("arguments", ["", "ADDR", "ADDR=x", "ADDR=198.51.100", "FOO=1", "PORT=65536 ADDR=" + STRANGER,
                                       "PORT=x", "PROTO=SOAP", "HELO=a+0Ab", "ADDR=IPV6:198.51.100.7x"])
def test_bad_xclient_changes_nothing(front, arguments):
    one = front()
    session = one.client(source=FRONT)
    assert session.command(f"XCLIENT {arguments}".rstrip()).status == "501 5.5.4"
    assert session.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert one.wait_log("message")["client"] == FRONT


def test_xclient_again_and_again(front):
    """A front end that keeps its connection tells each client: its right is its own, not its clients'."""
    one = front()
    session = one.client(source=FRONT)
    for n in range(3):
        assert session.command(f"XCLIENT ADDR=198.51.100.{n + 1}").code == 220
        assert "XCLIENT" in session.ehlo()
        assert session.deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    one.wait_log("message", client="198.51.100.3")
    assert [e["client"] for e in one.events("message")] == [f"198.51.100.{n + 1}" for n in range(3)]


@pytest.mark.parametrize("arguments, client", [
    ("ADDR=[UNAVAILABLE]", FRONT), ("ADDR=[TEMPUNAVAIL] PORT=7", FRONT), ("NAME=mail.example.org", STRANGER)])
def test_xclient_of_a_client_that_nobody_knows(front, arguments, client):
    """It is not the one before; only what is not named stays."""
    one = front()
    session = one.client(source=FRONT)
    session.ok(f"XCLIENT ADDR={STRANGER}")
    session.ok(f"XCLIENT {arguments}")
    session.quit()
    assert one.wait_log("close")["client"] == client


def test_xclient_is_judged_anew(front):
    one = front(blocked={"clients": "203.0.113.0/24"})
    session = one.client(source=FRONT)
    reply = session.command("XCLIENT ADDR=203.0.113.5")
    assert reply.status == "554 5.7.1"
    session.ended()
    # A block that came meanwhile, and one that is there.
    session = one.client(source=FRONT)
    assert one.control("block", "198.51.100.0/24")["ok"]
    assert session.command(f"XCLIENT ADDR={STRANGER}").status == "421 4.7.0"
    session.ended()


def test_xclient_counts_connections_of_the_told_client(front):
    one = front(server={"xclient": FRONT, "max_connections_per_client": 2}, harvest={"allow": ""})
    kept = [one.client(source=PROXY, told=STRANGER) for _ in range(2)]
    session = one.client(source=FRONT)
    assert session.command(f"XCLIENT ADDR={STRANGER}").status == "421 4.7.0"
    session.ended()
    kept[0].quit()
    one.wait_log("close", client=STRANGER, reason="quit")
    session = one.client(source=FRONT)
    assert session.command(f"XCLIENT ADDR={STRANGER}").code == 220
    assert one.client(source=PROXY, told=STRANGER, ehlo=False).greeting.status == "421 4.7.0"


def test_xclient_counts_for_one_client_at_a_time(front):
    """The one before is free again, whether the next one is counted or not."""
    one = front(server={"xclient": FRONT, "max_connections_per_client": 1}, harvest={"allow": "192.0.2.9"})
    session = one.client(source=FRONT)
    for address, counts in [(STRANGER, True), ("198.51.100.8", True), ("192.0.2.9", False), ("[UNAVAILABLE]", True),
                            (STRANGER, True)]:
        session.ok(f"XCLIENT ADDR={address}")
        for other in (STRANGER, "198.51.100.8", "192.0.2.9", FRONT):
            client = one.client(source=PROXY, told=other, ehlo=False)
            is_same = other == (FRONT if address[0] == "[" else address)
            assert client.greeting.code == (421 if counts and is_same else 220), (address, other)
            if client.greeting.code == 220:
                since = len(one.log)
                client.quit()
                one.wait_log("close", since=since, client=other)
    session.close()
    one.wait_log("close", client=STRANGER, reason="client-closed")
    assert one.client(source=PROXY, told=STRANGER).command("NOOP").code == 250


def test_xclient_loopback_is_not_allowed(front):
    one = front(harvest={"threshold": 2, "message_threshold": 0, "action": "disconnect"})
    session = one.client(source=FRONT)
    session.ok("XCLIENT ADDR=127.0.0.1")
    session.ehlo()
    session.ok("MAIL FROM:<a@example.org>")
    session.command("RCPT TO:<x1@example.test>")
    assert session.command("RCPT TO:<x2@example.test>").status == "421 4.7.0"


# XCLIENT, going out

def asked_since(downstream, since):
    return [c.line for c in list(downstream.commands)[since:]]


@pytest.fixture
def inner(mx):
    def start(offer=f"XCLIENT {XCLIENT}", wanted="yes", **keys):
        return mx({"downstream exchange": {"xclient": wanted}},
                  capabilities=["PIPELINING", "8BITMIME", "SIZE 1000000", *([offer] if offer else [])], **keys)
    return start


def test_downstream_is_told_before_each_transaction(inner):
    one = inner()
    for n, address in enumerate(["198.51.100.1", "2001:db8::9"]):
        client = one.client(source=PROXY, told=address)
        client.ehlo(f"host{n}.example.org")
        assert client.deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    verbs = [c.verb for c in one.exchange.transactions()[0].commands]
    assert len(one.exchange.transactions()) == 1  # a kept connection
    assert verbs == ["EHLO", "XCLIENT", "EHLO", "MAIL", "RCPT", "DATA", "XCLIENT", "EHLO", "MAIL", "RCPT", "DATA"]
    told = [c.line for c in one.exchange.commands if c.verb == "XCLIENT"]
    assert [dict(x.split("=", 1) for x in line.split()[1:]) for line in told] == [
        {"NAME": "[UNAVAILABLE]", "ADDR": address, "PORT": "40000", "PROTO": "ESMTP", "HELO": f"host{n}.example.org"}
        for n, address in enumerate(["198.51.100.1", "IPV6:2001:db8::9"])]


def test_downstream_gets_what_it_names(inner):
    one = inner(offer="XCLIENT ADDR HELO")
    client = one.client(source=PROXY, told=STRANGER)
    client.send("HELO [198.51.100.7]\r\n")
    assert client.reply().code == 250
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert [c.line for c in one.exchange.commands if c.verb == "XCLIENT"] == [
        f"XCLIENT ADDR={STRANGER} HELO=[198.51.100.7]"]


@pytest.mark.parametrize("offer, wanted", [(f"XCLIENT {XCLIENT}", "no"), (None, "yes")])
def test_downstream_is_not_told(inner, offer, wanted):
    one = inner(offer=offer, wanted=wanted)
    assert one.client(source=PROXY, told=STRANGER).deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert one.exchange.count("XCLIENT") == 0


@pytest.mark.parametrize("answer", ["550 5.7.0 insufficient authorization", "421 4.3.2 Service not active"])
def test_downstream_will_not_be_told(inner, answer):
    """What is meant for one client is never sent as somebody else's."""
    from harness import exchange as faults
    one = inner()
    one.exchange.on("XCLIENT", faults.reply(answer))
    reply = one.client(source=PROXY, told=STRANGER).attempt(CONTENT, "anna@example.test")
    assert reply.code in (451, 550) and not one.exchange.delivered


def test_marked_recipient_is_asked_for_as_this_client(inner):
    """A live question is a transaction as well: the downstream's answer may depend on who asks."""
    from harness import exchange as faults
    one = inner()
    one.exchange.on("RCPT", faults.for_argument("ben", faults.reply("550 5.1.1 User unknown")))
    client = one.client(source=PROXY, told="198.51.100.1")
    assert client.deliver(CONTENT, "anna@example.test", "ben@example.test").status == "451 4.5.0"
    since = len(one.exchange.commands)
    other = one.client(source=PROXY, told="198.51.100.2")
    other.ok("MAIL FROM:<a@example.org>")
    assert other.command("RCPT TO:<ben@example.test>").status == "550 5.1.1"
    lines = asked_since(one.exchange, since)
    assert any(line.startswith("XCLIENT ") and "ADDR=198.51.100.2" in line
               for line in lines[:lines.index("MAIL FROM:<a@example.org>")]), lines


def offers_less_after_xclient(*keywords):
    """At EHLO: once the downstream was told of a client it lacks these."""
    def action(step):
        if not any(c.verb == "XCLIENT" for c in step.connection.commands):
            return None
        lines = [line[4:] for line in step.usual.split("\r\n") if not any(word in line for word in keywords)]
        return "\r\n".join([f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"])
    return action


def test_a_downstream_that_takes_one_client_only(inner):
    """The connection is the first one's: the second has another."""
    one = inner()
    one.exchange.on("EHLO", offers_less_after_xclient("XCLIENT"))
    for n in range(2):
        client = one.client(source=PROXY, told=f"198.51.100.{n + 1}")
        assert client.deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert [[c.line.split()[2] for c in t.commands if c.verb == "XCLIENT"] for t in one.exchange.transactions()] == [
        ["ADDR=198.51.100.1"], ["ADDR=198.51.100.2"]]


@pytest.mark.parametrize("lacking, mail, content", [
    ("CHUNKING", " BODY=BINARYMIME", b"Subject: x\n\nbare\r.\r\n\0"), ("BINARYMIME", " BODY=BINARYMIME", b"\0\n"),
    ("SMTPUTF8", " SMTPUTF8", CONTENT)])
def test_a_downstream_that_offers_this_client_less(mx, lacking, mail, content):
    """The message is not sent without what it needs; other ones are."""
    offer = ["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8", f"XCLIENT {XCLIENT}"]
    one = mx({"downstream exchange": {"xclient": "yes"}}, capabilities=offer)
    one.exchange.on("EHLO", offers_less_after_xclient(lacking))
    client = one.client(source=PROXY, told=STRANGER)
    client.ehlo()
    for _ in range(2):
        client.envelope("a@example.org", "anna@example.test", mail=mail)
        assert client.bdat(content)[-1].code == 451
    assert not one.exchange.received
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
