"""What the DNS says about a client: block lists, and SPF for NDRs, from a real name server."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import CONTENT
from harness import exchange as does
from harness.journal import poll
from harness.postern import free_port
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
strict TXT "v=spf1 -all"
2.0.0.127.strict A 127.0.0.2
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


def listed(question, flags=0x8180, owner=b"\xc0\x0c", kind=1, data=b"\x7f\0\0\2", count=1):
    """The answer to QUESTION, a message: 127.0.0.2, unless told otherwise."""
    end = question.index(b"\0", 12) + 5
    record = owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    return question[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + question[12:end] + record * count


def unlisted(question):
    return listed(question, flags=0x8183, count=0)


def truncated(question):
    return listed(question, flags=0x8380, count=0)


def changed(at):
    """The answer to a question that differs in the octet AT."""
    return lambda question: listed(question[:at] + bytes([question[at] ^ 1]) + question[at + 1:])


def framed(question):
    return struct.pack(">H", len(listed(question))) + listed(question)


# What a name server sends by UDP, and by TCP if it is asked there; whose socket it sends from; the verdict.
LIES = {
    "more than fits": ([lambda question: listed(question, count=1500)], framed, "own", DENIED),
    "TCP": ([truncated], framed, "own", DENIED),
    "closed TCP": ([truncated], lambda question: b"", "own", ACCEPTED),
    "TCP cut": ([truncated], lambda question: framed(question)[:-1], "own", ACCEPTED),
    "the truth": ([listed], None, "own", DENIED),
    "twice": ([listed] * 3, None, "own", DENIED),
    "another id, then the truth": ([changed(0), listed], None, "own", DENIED),
    "nothing, then the truth": ([lambda question: b"", listed], None, "own", DENIED),
    "another id": ([changed(0)], None, "own", ACCEPTED),
    "another name": ([changed(13)], None, "own", ACCEPTED),
    "another port": ([listed], None, "stranger", ACCEPTED),
    "the question": ([lambda question: question], None, "own", ACCEPTED),
    "of another name": ([lambda question: listed(question, owner=b"\1x\0")], None, "own", ACCEPTED),
    "an alias of itself": ([lambda question: listed(question, kind=5, data=b"\xc0\x0c")], None, "own", ACCEPTED),
    "cut": ([lambda question: listed(question)[:-1]], None, "own", ACCEPTED),
    "no answer": ([], None, "own", ACCEPTED),
}


class Liar:
    """It lists 127.0.0.2, as a block list must; of 192.0.2.N it says the Nth of LIES."""

    def __init__(self):
        self.port = free_port()
        self.own, self.stranger = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.own.bind(("127.0.0.1", self.port))
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        self.threads = [threading.Thread(target=serve, daemon=True) for serve in (self.serve_udp, self.serve_tcp)]
        for thread in self.threads:
            thread.start()

    def lie(self, question):
        labels = question[12:question.index(b"\0", 12)].split(b"\2bl")[0]
        if b"192" not in labels:
            return [listed if labels.startswith(b"\x012") else unlisted], None, "own", None
        return list(LIES.values())[int(labels[1:1 + labels[0]])]

    def serve_udp(self):
        while True:
            question, peer = self.own.recvfrom(2000)
            if not question:
                return
            answers, _, source, _ = self.lie(question)
            for answer in answers:
                getattr(self, source).sendto(answer(question), peer)

    def serve_tcp(self):
        while True:
            connection, _ = self.tcp.accept()
            with connection:
                question = connection.recv(2000)[2:]
                if not question:
                    return
                connection.sendall(self.lie(question)[1](question))

    def stop(self):
        self.stranger.sendto(b"", ("127.0.0.1", self.port))
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self.threads:
            thread.join()
        for sock in (self.own, self.stranger, self.tcp):
            sock.close()


def test_lies_of_a_name_server(exchange, postern):
    """What is not the answer to the question, from where it was asked, is none."""
    server = Liar()
    try:
        one = postern(exchange(), settings={
            "server": {"proxy_protocol": "127.0.0.0/8"}, "dnsbl": {"any_sender": "bl.test"},
            "dns": {"nameserver": f"127.0.0.1:{server.port}", "timeout": "2s"}})
        verdicts, waiting = {}, {}
        for number, (name, (_, by_tcp, _, _)) in enumerate(LIES.items()):
            client = session(one, f"192.0.2.{number}")
            client.ok("MAIL FROM:<a@example.org>")
            client.send("RCPT TO:<anna@example.test>\r\n")
            if by_tcp:
                verdicts[name] = client.reply().status
            else:
                waiting[name] = client
        verdicts.update((name, client.reply().status) for name, client in waiting.items())
        assert verdicts == {name: verdict for name, (_, _, _, verdict) in LIES.items()}
    finally:
        server.stop()


@pytest.mark.parametrize("address, helo, sender, proven", [
    ("192.0.2.1", "x.dns.test", "a@sender.dns.test", True),
    ("192.0.2.2", "x.dns.test", "a@sender.dns.test", True),
    ("192.0.2.9", "x.dns.test", "a@sender.dns.test", False),
    pytest.param("192.0.2.1", "x.dns.test", "x" * 325 + "@sender.dns.test", True, id="long local part"),
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


@pytest.mark.parametrize("zone, address, verdict", [
    ("bl.dns.test", "192.0.2.1", DENIED),
    ("strict.dns.test", "192.0.2.77", ACCEPTED),
])
def test_spf_of_a_zones_name_is_no_answer_of_the_zone(mx, zone, address, verdict):
    """Neither does it take a listed client off, nor does a failure list an innocent one."""
    one = mx(dnsbl={"null_sender": zone}, **{"remote_domain default": {"ndr": "unproven"}})
    client = session(one, address)
    assert client.deliver(CONTENT, "anna@example.test", sender=f"a@{zone}").status == "250 2.6.0"
    assert rcpt(one, address) == verdict


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


def test_a_client_that_leaves_while_spf_is_asked_has_its_line(exchange, postern):
    with silent_name_server() as server:
        one = hung(exchange, postern, server, "1h", "1h")
        client = begin(one, "a@example.org")
        server.recv(512)
        client.reset()
        assert one.wait_log("close")["messages"] == "1"
        assert [(e["status"], e["reply"]) for e in one.events("message")] == [("4.4.2", "client-reset")]
        assert one.metrics()['postern_messages_total{status="deferred"}'] == 1
