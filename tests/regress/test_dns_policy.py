"""What the DNS says about a client: block lists, and SPF for NDRs, from a real name server."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from conftest import CONTENT
from harness import exchange as does
from harness.journal import poll
from harness.servers import Nsd

ZONE = """$ORIGIN dns.test.
$TTL 60
@ SOA ns host 1 60 60 60 60
@ NS ns
ns A 127.0.0.1
sender TXT "v=spf1 ip4:192.0.2.1 include:spf.dns.test -all"
spf TXT "v=spf1 ip4:192.0.2.2 -all"
helo TXT "v=spf1 a -all"
helo A 192.0.2.3
2.0.0.127.bl A 127.0.0.2
1.2.0.192.bl A 127.0.0.2
2.2.0.192.bl A 127.0.0.12
3.2.0.192.bl A 127.255.255.254
*.everybody A 127.0.0.2
"""

DENIED = "550 5.7.1"
ACCEPTED = "250 2.1.5"


@pytest.fixture
def nsd(directory):
    path = tempfile.mkdtemp(dir=directory)
    os.chmod(path, 0o755)
    server = Nsd(path, {"dns.test": ZONE})
    yield server
    server.stop()


@pytest.fixture
def mx(nsd, exchange, postern):
    """Call it with more settings."""
    def start(**settings):
        downstream = exchange()
        one = postern(downstream, settings={
            "server": {"proxy_protocol": "127.0.0.0/8"},
            "dns": {"nameserver": f"127.0.0.1:{nsd.port}"}, **settings})
        one.exchange = downstream
        return one
    return start


def session(mx, address, helo="client.example.org"):
    client = mx.client(greet=False)
    client.send(f"PROXY TCP4 {address} 127.0.0.1 40000 25\r\n")
    assert client.reply().code == 220
    client.ehlo(helo)
    return client


def rcpt(mx, address, sender=""):
    client = session(mx, address)
    client.ok(f"MAIL FROM:<{sender}>")
    return client.command("RCPT TO:<anna@example.test>").status


def test_null_sender_zone(mx):
    one = mx(dnsbl={"null_sender": "bl.dns.test"})
    assert rcpt(one, "192.0.2.1") == DENIED
    assert rcpt(one, "192.0.2.1", "a@example.org") == ACCEPTED
    assert rcpt(one, "192.0.2.3") == ACCEPTED
    assert rcpt(one, "192.0.2.4") == ACCEPTED
    assert one.events("rcpt", client="192.0.2.1", reason="dnsbl", verdict="reject")


def test_any_sender_zone_takes_only_the_answers_named(mx):
    one = mx(dnsbl={"any_sender": "bl.dns.test=127.0.0.[2..11]"})
    assert rcpt(one, "192.0.2.1", "a@example.org") == DENIED
    assert rcpt(one, "192.0.2.2", "a@example.org") == ACCEPTED


def test_a_zone_that_lists_everybody_is_off(mx):
    one = mx(dnsbl={"any_sender": "everybody.dns.test, bl.dns.test"})
    fault = one.wait_log("dnsbl", state="down", host="everybody.dns.test")["error"]
    problems = [(p["name"], p["state"], p["error"]) for p in one.control("status")["problems"] if p["part"] == "dnsbl"]
    assert problems == [("everybody.dns.test", "down", fault)]
    assert rcpt(one, "192.0.2.4", "a@example.org") == ACCEPTED
    assert rcpt(one, "192.0.2.1", "a@example.org") == DENIED


def test_own_address_listed(mx):
    one = mx(dnsbl={"null_sender": "bl.dns.test", "self": "192.0.2.1"})
    one.wait_log("dnsbl", state="degraded", host="bl.dns.test", client="192.0.2.1")


def freeze_all(server):
    """It is several processes."""
    def is_frozen():
        states = subprocess.run(["ps", "-o", "state=", "-s", str(server.process.pid)], capture_output=True, text=True,
                                check=True).stdout.split()
        return states and set(states) == {"T"}
    os.killpg(server.process.pid, signal.SIGSTOP)
    poll(is_frozen, "all of it frozen")


@pytest.mark.parametrize("how", ["gone", "stopped"])
def test_a_dead_name_server_lists_nobody(mx, nsd, how):
    """And proves nobody; who is asked about waits no longer than the look-up may take."""
    one = mx(dnsbl={"any_sender": "bl.dns.test"}, dns={"nameserver": f"127.0.0.1:{nsd.port}", "timeout": "500ms"})
    assert rcpt(one, "192.0.2.1", "a@example.org") == DENIED
    if how == "stopped":
        freeze_all(nsd)
    else:
        nsd.stop()
    began = time.monotonic()
    for number in range(3):
        assert rcpt(one, f"192.0.2.{number + 9}", "a@example.org") == ACCEPTED
    if how == "stopped":
        assert time.monotonic() - began > 1
        os.killpg(nsd.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("address, helo, sender, proven", [
    ("192.0.2.1", "x.dns.test", "a@sender.dns.test", True),
    ("192.0.2.2", "x.dns.test", "a@sender.dns.test", True),
    ("192.0.2.9", "x.dns.test", "a@sender.dns.test", False),
    ("192.0.2.1", "x.dns.test", "a@nowhere.dns.test", False),
    ("192.0.2.1", "x.dns.test", "a@refused.invalid", False),
    ("192.0.2.3", "helo.dns.test", "", True),
    ("192.0.2.4", "helo.dns.test", "", False),
])
def test_ndrs_go_to_proven_senders_only(mx, address, helo, sender, proven):
    one = mx(**{"remote_domain default": {"ndr": "unproven"}})
    client = session(one, address, helo)
    assert client.deliver(CONTENT, "anna@example.test", sender=sender).status == "250 2.6.0"
    recipient = one.exchange.delivered[0].recipients[0]
    assert ("NOTIFY=NEVER" in recipient) is not proven
    assert one.wait_log("message").get("ndr") == (None if proven else "no")


@contextlib.contextmanager
def silent_name_server():
    """It hears questions, which can be received from it, and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        yield server


def begin(one, sender):
    client = one.client()
    client.envelope(sender, "anna@example.test")
    client.ok("DATA")
    client.send(CONTENT + b".\r\n")
    return client


def hung(exchange, postern, server, timeout, deadline):
    """Whose SPF takes TIMEOUT, and whose downstream takes for ever."""
    downstream = exchange()
    downstream.on("EOD", does.hang)
    return postern(downstream, settings={
        "server": {"reply_deadline": deadline}, "remote_domain example.org": {"ndr": "unproven"},
        "dns": {"nameserver": f"127.0.0.1:{server.getsockname()[1]}", "timeout": timeout}})


def test_reply_deadline_includes_the_time_that_spf_took(exchange, postern):
    """Whose message ended later, but needed no SPF, is not answered before."""
    with silent_name_server() as server:
        one = hung(exchange, postern, server, "2s", "3s")
        first = begin(one, "a@example.org")
        server.recv(512)
        second = begin(one, "a@example.net")
        assert second.reply().status == "451 4.4.2"
        first.socket.settimeout(1)
        assert first.reply().status == "451 4.4.2"


def test_reply_deadline_ends_a_wait_for_spf(exchange, postern):
    with silent_name_server() as server:
        one = hung(exchange, postern, server, "1h", "300ms")
        client = begin(one, "a@example.org")
        assert client.reply().status == "451 4.4.2"
        assert one.wait_log("message")["status"] == "4.4.2"
        assert one.metrics()['postern_messages_total{status="deferred"}'] == 1
        assert client.command("NOOP").code == 250
