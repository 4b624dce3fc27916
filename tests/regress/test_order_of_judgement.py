"""What comes first wins; [blocked]; loops."""

import pytest

from conftest import CONTENT

PROXY = "127.0.0.20"
HOST = "198.51.100.7"


@pytest.fixture
def pair(exchange, postern):
    def start(settings=None, recipients=("anna@example.test", "ben@example.test", "postmaster@example.test")):
        downstream = exchange()
        one = postern(downstream, recipients=recipients, settings={
            "server": {"proxy_protocol": PROXY}, "harvest": {"action": "reject", "threshold": 2, "message_threshold": 0},
            **(settings or {})})
        one.exchange = downstream
        return one
    return start


def session(mx, client=HOST):
    conn = mx.client(source=PROXY, told=client)
    conn.ok("MAIL FROM:<sender@example.org>")
    return conn


def rcpt(conn, path):
    return conn.command(f"RCPT TO:<{path}>").status


# [blocked]

BLOCKED = {"blocked": {"senders": "Bad@example.org, @bad.example", "clients": "198.51.100.0/24, 2001:db8::/32",
                       "recipients": "BEN@example.test, ghost@example.test, postmaster@example.test"}}


def test_blocked_clients(pair):
    mx = pair(BLOCKED)
    for client in (HOST, "198.51.100.255", "2001:db8:ffff::1"):
        conn = mx.client(source=PROXY, told=client, ehlo=False)
        assert conn.greeting.status == "554 5.7.1"
        conn.ended()
    for client in ("198.51.101.0", "2001:db9::1"):
        assert mx.client(source=PROXY, told=client).command("NOOP").code == 250
    assert mx.metrics()['postern_connections_refused_total{reason="blocked"}'] == 3


@pytest.mark.parametrize("sender, status", [
    ("bad@example.org", "550 5.7.1"), ("BAD@Example.Org", "550 5.7.1"), ('"bad"@example.org', "550 5.7.1"),
    ("x@bad.example", "550 5.7.1"), ("x@BAD.example", "550 5.7.1"), ("x@sub.bad.example", "250 2.1.0"),
    ("x@notbad.example", "250 2.1.0"), ("bad@example.net", "250 2.1.0"), ("", "250 2.1.0")])
def test_blocked_senders(pair, sender, status):
    mx = pair(BLOCKED)
    conn = mx.client(source=PROXY, told="192.0.2.1")
    reply = conn.command(f"MAIL FROM:<{sender}>")
    assert reply.status == status
    if reply.code == 550:
        event = mx.wait_log("rcpt", client="192.0.2.1")
        assert (event["from"], event["verdict"], event["reason"]) == (f"<{sender}>", "reject", "blocked-sender")
        assert conn.command("RCPT TO:<anna@example.test>").status == "503 5.5.1"
        assert mx.metrics()['postern_recipients_total{verdict="reject",reason="blocked-sender"}'] == 1


def test_blocked_recipients(pair):
    """Whether they exist or not; nobody is a harvester for them."""
    mx = pair(BLOCKED)
    conn = session(mx, "192.0.2.1")
    for name in ("ben", "Ben", "ghost", "GHOST"):
        assert (str(conn.command(f"RCPT TO:<{name}@example.test>"))
                == f"550 5.7.1 <{name}@example.test>: Recipient address rejected: Access denied")
    assert rcpt(conn, "postmaster@example.test") == "250 2.1.5"  # RFC 5321 4.5.1, and first
    assert rcpt(conn, "anna@example.test") == "250 2.1.5"
    assert not mx.events("harvest")


def test_blocked_under_monitor(pair):
    """Of recipients it is a verdict on recipients, which is not given; a blocked client stays out."""
    mx = pair({**BLOCKED, "server": {"proxy_protocol": PROXY, "monitor": "yes"}})
    conn = session(mx, "192.0.2.1")
    assert rcpt(conn, "ben@example.test") == "250 2.1.5"
    event = mx.wait_log("rcpt", to="<ben@example.test>")
    assert (event["verdict"], event["status"], event["reason"]) == ("would-reject", "5.7.1", "blocked")
    assert mx.client(source=PROXY, told=HOST, ehlo=False).greeting.status == "554 5.7.1"


# Order

def test_client_blocked_before_harvester(pair):
    mx = pair(BLOCKED)
    assert mx.control("block", HOST)["ok"]
    assert mx.client(source=PROXY, told=HOST, ehlo=False).greeting.status == "554 5.7.1"


def harvester(mx):
    conn = session(mx)
    for n in range(2):
        assert rcpt(conn, f"x{n}@example.test") == "550 5.1.1"
    return conn


def test_harvester_before_all_else(pair):
    conn = harvester(pair({"blocked": {"recipients": "ben@example.test"}}))
    for path in ("bad syntax@@", "a@elsewhere.example", "postmaster@example.test", "ben@example.test", "x9@example.test"):
        assert rcpt(conn, path) == "550 5.7.1"


@pytest.mark.parametrize("path, status", [
    ("ben@@elsewhere.example", "501 5.1.3"),         # syntax before the domain
    ("ghost@elsewhere.example", "550 5.7.1"),        # the domain before its route
    ("anna@down.test", "451 4.4.1"),                 # the route before postmaster, blocked and the directory
    ("postmaster@down.test", "451 4.4.1"),
    ("ghost@down.test", "451 4.4.1"),
    ("postmaster@example.test", "250 2.1.5"),        # postmaster before blocked
    ("ghost@example.test", "550 5.7.1"),             # blocked before unknown
])
def test_what_comes_first_wins(pair, exchange, path, status):
    dead = exchange()
    dead.stop_listening()
    mx = pair({"blocked": {"recipients": "ghost@example.test, ghost@down.test, postmaster@example.test"},
               "downstream dead": {"hosts": dead.host, "tls": "off", "health_interval": "1h"},
               "domain down.test": {"downstream": "dead"}})
    mx.wait_log("downstream", state="down", host=dead.host)
    reply = session(mx).command(f"RCPT TO:<{path}>")
    assert reply.status == status
    if "elsewhere" in path and "@@" not in path:
        assert "Relay access denied" in reply.lines[0]


# Loops

def test_a_message_that_keeps_coming_back(pair):
    """Our own trace a few times over is a loop long before max_hops."""
    mx = pair()
    content, passes = CONTENT, 0
    for passes in range(25):
        conn = mx.client(source=PROXY, told=HOST)
        reply = conn.deliver(content, "anna@example.test")
        conn.quit()
        if reply.code != 250:
            break
        content = mx.exchange.delivered[passes].content
    assert reply.status == "554 5.4.6"
    assert 2 <= passes <= 6
    mx.wait_log("message", status="5.4.6")


def test_our_name_in_others_traces_is_no_loop(pair):
    """A host may say of itself, or of its client, what it likes."""
    mx = pair()
    received = b"".join(b"Received: from mx.example.test (mx.example.test [192.0.2.1])\r\n\tby relay.example.net id %d; "
                        b"Tue, 24 Nov 2026 10:00:00 +0000\r\n" % n for n in range(10))
    conn = mx.client(source=PROXY, told=HOST)
    assert conn.deliver(received + CONTENT, "anna@example.test").status == "250 2.6.0"
