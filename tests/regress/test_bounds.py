"""Every bound on what an outsider can make us hold, reached.  (Those that are settings of their own are in
test_limits.py and test_spool.py.)"""

import os
import socket

import pytest

from conftest import CONTENT
from harness import Client
from harness import postern as built
from harness.journal import poll


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


def test_proxy_header_that_never_ends(exchange, postern):
    mx = postern(exchange(), settings={"server": {"proxy_protocol": "127.0.0.9"}})
    client = Client(mx.address, source="127.0.0.9", greet=False)
    client.send(b"PROXY UNKNOWN " + b"x" * 200)
    with pytest.raises((ConnectionError, socket.timeout)):
        client.reply()
