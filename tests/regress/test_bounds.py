"""Every bound on what an outsider can make us hold, reached.  (Those that are settings of their own are in
test_limits.py and test_spool.py.)"""

import os
import re
import socket
import threading
import time

import pytest

from conftest import CONTENT
from harness import Client
from harness import exchange as does
from harness import postern as built
from harness.journal import DEADLINE_S, poll
from harness.ldap_server import LdapServer, Raw, entry


def fill(mx, count):
    """COUNT connections that say nothing, and the replies to them."""
    clients = [Client(mx.address, source=f"127.0.0.{2 + n // 40}", greet=False) for n in range(count)]
    return clients, [client.reply() for client in clients]


def test_descriptors_are_kept_for_what_serves_a_session(exchange, postern, directory, monkeypatch):
    """With few descriptors the sessions beyond three quarters are turned away, and those who are in
    can have a message delivered, by way of a file."""
    few = os.path.join(directory, "few")
    with open(few, "w", encoding="ascii") as script:
        script.write(f'#!/bin/sh\nulimit -n 200\nexec {built.BINARY} "$@"\n')
    os.chmod(few, 0o700)
    monkeypatch.setattr(built, "BINARY", few)
    mx = postern(exchange(), settings={"spool": {"memory": "4K"}})
    early = mx.client()
    clients, replies = fill(mx, 250)
    taken = [reply.code for reply in replies].count(220)
    assert 50 < taken < 150
    assert {reply.status for reply in replies} == {"220", "421 4.3.2"}
    assert early.deliver(CONTENT + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 9000,
                         "anna@example.test").status == "250 2.6.0"
    for client in clients:
        client.close()
    poll(lambda: mx.try_client() if Client(mx.address, greet=False).reply().code == 220 else None, "room")


def test_handshakes_under_way(exchange, postern, certificates):
    mx = postern(exchange(), settings={
        "server": {"max_connections": 200},
        "tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    last = mx.client()
    shaking = [mx.client(source=f"127.0.0.{2 + n // 40}", ehlo=False) for n in range(64)]
    for client in shaking:
        assert client.command("STARTTLS").code == 220
    assert last.command("STARTTLS").status == "454 4.7.0"
    assert last.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    shaking[0].reset()
    mx.wait_log("close")
    last.starttls(certificates.client_context())
    last.ehlo()
    assert last.deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    for client in shaking[1:]:
        client.close()


def test_handshake_that_does_not_go_on(exchange, postern, certificates):
    """It has half a minute, whatever it sends."""
    mx = postern(exchange(), settings={"tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    client = mx.client()
    assert client.command("STARTTLS").code == 220
    client.send(b"\x16\x03\x01\x02\x00\x01")
    assert mx.log.wait(lambda event: event["event"] == "close", "the end", timeout=60)["reason"] == "tls-timeout"
    closed(client)


def test_long_headers_count_as_memory(exchange, postern):
    """64 KiB in all: one header of 40,000 octets fits, a second one does not until the first is gone."""
    mx = postern(exchange(), settings={"spool": {"memory": "4K", "memory_total": "64K"}})
    header = b"X-Long: " + b"a" * 40000 + b"\r\n"
    first, second = mx.client(), mx.client()
    first.envelope("a@example.org", "anna@example.test")
    assert first.command("DATA").code == 354
    first.send(header)
    poll(lambda: second.attempt(header + b"\r\nx\r\n", "ben@example.test").status == "452 4.3.1", "no room")
    first.send(b"\r\nx\r\n.\r\n")
    assert first.reply().status == "250 2.6.0"
    assert second.attempt(header + b"\r\nx\r\n", "ben@example.test").status == "250 2.6.0"


def test_messages_beyond_the_memory_of_all_go_by_small_blocks(exchange, postern):
    downstream = exchange()
    mx = postern(downstream, settings={"spool": {"memory": "4K", "memory_total": "4K"}})
    body = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 65536 + b"\r\n"
    client = mx.client()
    assert client.deliver(body, "anna@example.test").status == "250 2.6.0"
    assert downstream.delivered[0].without_trace() == body


def test_command_that_never_ends(mx):
    client = mx.client()
    before = mx.memory_kib()
    for _ in range(64):
        client.send(b"x" * (1 << 20))
    assert mx.is_sanitized() or mx.memory_kib() < before + (4 << 10)
    client.send(b"\r\n")
    assert client.reply().status == "500 5.5.2"


@pytest.mark.parametrize("octets, status", [(4096, "250 2.0.0"), (4097, "500 5.5.2")])
def test_longest_command(mx, octets, status):
    assert mx.client().command("NOOP " + "x" * (octets - 7)).status == status


@pytest.mark.parametrize("local, parameter, status", [
    (571 - len("@example.test"), "", "250 2.1.5"), (572 - len("@example.test"), "", "501 5.1.3"),
    (1, " ORCPT=rfc822;" + "y" * 493, "250 2.1.5"), (1, " ORCPT=rfc822;" + "y" * 494, "501 5.5.4")])
def test_longest_recipient(exchange, postern, local, parameter, status):
    mx = postern(exchange(), settings={"domain example.test": {"recipients": "any"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command(f"RCPT TO:<{'x' * local}@example.test>{parameter}").status == status


def closed(client):
    """It is, without a word."""
    with pytest.raises(ConnectionError):
        client.reply()


def test_proxy_header_that_never_ends(exchange, postern):
    mx = postern(exchange(), settings={"server": {"proxy_protocol": "127.0.0.9"}})
    client = Client(mx.address, source="127.0.0.9", greet=False)
    client.send(b"PROXY UNKNOWN " + b"x" * 93)
    closed(client)


def test_longest_proxy_header(exchange, postern):
    """Version 2: there can be none that is longer."""
    mx = postern(exchange(), settings={"server": {"proxy_protocol": "127.0.0.9"}})
    header = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\xff\xff" + bytes(65535)
    client = Client(mx.address, source="127.0.0.9", greet=False)
    client.send(header)
    assert client.reply().code == 220


def test_accepting_rests_when_descriptors_run_out(exchange, postern, directory, monkeypatch):
    """Sessions leave a quarter of them; idle readers of the metrics take that.  Who comes then is let go of, and once
    there are descriptors again the next is served."""
    few = os.path.join(directory, "few")
    with open(few, "w", encoding="ascii") as script:
        script.write(f'#!/bin/sh\nulimit -n 160\nexec {built.BINARY} "$@"\n')
    os.chmod(few, 0o700)
    monkeypatch.setattr(built, "BINARY", few)
    mx = postern(exchange())
    clients, _ = fill(mx, 110)
    readers = [socket.create_connection(mx.http) for _ in range(60)]
    since = len(mx.log)
    poll(lambda: len(os.listdir(f"/proc/{mx.process.pid}/fd")) == 160 or clients.append(
        Client(mx.address, greet=False)), "all descriptors in use")
    with pytest.raises((ConnectionError, OSError)):
        Client(mx.address)
    assert mx.wait_log("worker", since=since)["error"] == "out of file descriptors"
    for reader in readers:
        reader.close()
    for client in clients:
        client.close()
    poll(lambda: mx.try_client() if Client(mx.address, greet=False).reply().code == 220 else None, "room")
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert mx.metrics()['postern_connections_refused_total{reason="system"}'] >= 1


def test_silence_when_crowded(exchange, postern):
    """More than four of five connections: ten seconds are borne, whatever command_timeout is."""
    mx = postern(exchange(), settings={"server": {"max_connections": 5, "command_timeout": "5m"}})
    clients = [mx.client(source=f"127.0.0.{n + 10}") for n in range(5)]
    began = time.monotonic()
    assert clients[0].reply().status == "421 4.4.2"
    assert time.monotonic() - began > 5
    clients[0].ended()


def test_client_that_never_reads_is_let_go(exchange, postern):
    mx = postern(exchange(), settings={"server": {"command_timeout": "1s"}})
    client = mx.client()
    client.socket.settimeout(0.5)
    block = b"NOOP\r\n" * 10000
    sent = 0
    with pytest.raises(OSError):
        while True:
            sent += client.socket.send(block[sent % 6:])
    assert mx.wait_log("close")["reason"] == "timeout"


def test_messages_beyond_the_memory_of_all_are_files(exchange, postern):
    """256 KiB hold two blocks' worth; of eight messages of 100 KiB the others are in files from the first octet."""
    mx = postern(exchange(), settings={"spool": {"memory": "128K", "memory_total": "256K"}})
    body = b"X: y\r\n\r\n" + b"0123456789abcd\r\n" * 6400
    clients = []
    for _ in range(8):
        clients.append(client := mx.client())
        client.envelope("a@example.org", "anna@example.test")
        client.send(b"BDAT %d\r\n" % len(body) + body)
        assert client.reply().code == 250

    def files():
        links = [f"/proc/{mx.process.pid}/fd/{name}" for name in os.listdir(f"/proc/{mx.process.pid}/fd")]
        return sum("/state/#" in os.readlink(link) for link in links if os.path.islink(link))
    poll(lambda: files() >= 6, "files")
    assert files() < 8
    for client in clients:
        client.send(b"BDAT 0 LAST\r\n")
        assert client.reply().status == "250 2.6.0"
    poll(lambda: files() == 0, "no file")


def test_commands_ahead_of_an_answer(mx):
    """What a client sends on while it is to wait stays in the kernel, but for what was read with its message."""
    gate = does.Gate()
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    before, sent, block = mx.memory_kib(), 0, b"NOOP\r\n" * 10000
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while sent < 128 << 20:
            sent += client.socket.send(block[sent % 6:])
    assert mx.is_sanitized() or mx.memory_kib() < before + 1024
    gate.open()
    client.socket.settimeout(DEADLINE_S)
    assert client.reply().status == "250 2.6.0"
    for _ in range(sent // 6):
        assert client.receive_line().startswith(b"250 ")


def test_messages_whose_client_is_gone(exchange, postern):
    """Past their end of data they are handed on all the same, each over a connection of those there are."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {"max_connections": 2, "queue_timeout": "200ms"}})
    gate = does.Gate()
    downstream.on("EOD", gate)
    for number in range(5):
        client = mx.client(source=f"127.0.0.{number + 10}")
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT + b"%d\r\n.\r\n" % number)
        if number < 2:
            gate.reached.wait_count(number + 1)
            client.reset()
        else:
            assert client.reply().status == "451 4.3.2"
    gate.open()
    downstream.delivered.wait_count(2)
    assert downstream.count("MAIL") == 2


def test_retry_that_waits_for_its_twin(exchange, postern):
    """As long as a reply may take, then it is told to come again."""
    downstream = exchange()
    mx = postern(downstream, settings={"server": {"reply_deadline": "1s"}})
    gate = does.Gate()
    downstream.on("EOD", gate)
    replies = [mx.client().deliver(CONTENT, "anna@example.test") for _ in range(3)]
    assert [reply.status for reply in replies] == ["451 4.4.2"] * 3
    assert downstream.count("MAIL") == 1
    gate.open()
    downstream.delivered.wait()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == 1


# A downstream

@pytest.mark.parametrize("lines, octets, is_taken", [(128, 100, True), (129, 100, False), (2, 4096, True), (2, 4097, False)])
def test_replies_of_a_downstream(exchange, postern, lines, octets, is_taken):
    """Of so many lines of so many octets, the end included; more, and its connection is."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {"health_interval": "200ms"}})
    text = "x" * (octets - len("250-2.1.0 \r\n"))
    downstream.on("MAIL", does.reply("".join(f"250-2.1.0 {text}\r\n" for _ in range(lines - 1)) + f"250 2.1.0 {text}"))
    reply = mx.client().deliver(CONTENT, "anna@example.test")
    assert reply.status == ("250 2.6.0" if is_taken else "451 4.4.1")
    assert len(downstream.delivered) == is_taken
    if not is_taken:
        downstream.connections.wait(lambda one: one.ended and any(command.verb == "MAIL" for command in one.commands))


def test_refusals_that_are_looked_into(exchange, postern):
    """Behind the data, for a recipient's sake: each recipient is asked about.  A directory that is slow has 64 messages'
    recipients to tell about at most."""
    slow = threading.Event()

    def answer(search):
        if "anna" in search.filter:
            slow.wait(DEADLINE_S)
        name = re.search(r"=smtp:(\w+)@", search.filter)[1]
        return [entry(f"cn={name},dc=x", {"proxyAddresses": [f"SMTP:{name}@example.test"]})]
    server = LdapServer(answer)
    downstream = exchange()
    mx = postern(downstream, settings={"directory": {
        "type": "ad", "file": "", "uri": server.uri, "bind": "anonymous", "base": "dc=x", "timeout": "1m", "connections": 1}})
    try:
        downstream.on("EOD", does.reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"))
        client = mx.client()
        for number in range(140):  # that they are there is in the cache from here on
            client.ok("MAIL FROM:<a@example.org>")
            client.ok(f"RCPT TO:<user{number}@example.test>")
            client.ok("RSET")
        mx.client().send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<anna@example.test>\r\n")
        server.searches.wait(lambda search: "anna" in search.filter)
        for number in range(70):
            assert mx.client().attempt(CONTENT, f"user{number}@example.test", f"user{number + 70}@example.test").status == "451 4.5.0"
        assert mx.control("directory")["directories"][0]["pending"] == 1 + 2 * 64
    finally:
        slow.set()
        poll(lambda: mx.control("directory")["directories"][0]["pending"] == 0, "no question left")
        server.stop()


# A directory

@pytest.mark.parametrize("size, is_taken", [((32 << 20) - 1000, True), ((32 << 20) + 1, False)])
def test_message_of_a_directory(exchange, postern, size, is_taken):
    """One of 32 MiB is read, one that says that it is longer ends its connection before it is."""
    def answer(search):
        if "anna" not in search.filter:
            return []
        if not is_taken:
            return [Raw(b"\x30\x84" + size.to_bytes(4, "big") + b"\x02\x01\x02" + b"x" * 1000000)]
        return [entry("cn=anna,dc=x", {"proxyAddresses": ["SMTP:anna@example.test"], "x": [b"x" * (size - 100)]})]
    server = LdapServer(answer)
    mx = postern(exchange(), settings={"directory": {
        "type": "ad", "file": "", "uri": server.uri, "bind": "anonymous", "base": "dc=x", "timeout": "20s", "connections": 1}})
    try:
        before = mx.memory_kib()
        client = mx.client()
        client.ok("MAIL FROM:<a@example.org>")
        assert client.command("RCPT TO:<anna@example.test>").status == ("250 2.1.5" if is_taken else "451 4.4.3")
        assert is_taken or len(server.connections) > 1
        assert is_taken or mx.is_sanitized() or mx.memory_kib() < before + (8 << 10)
    finally:
        server.stop()
