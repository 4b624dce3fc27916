"""Faults of the network itself, between namespaces: packets lost, a narrow wire, a long one, one that is cut.  What was
acknowledged is delivered, once; where the downstream's answer was lost, at least once."""

import os
import threading

import pytest

from conftest import CONTENT, RECIPIENTS
from harness import FakeExchange, Postern
from harness import exchange as faults
from harness import postern as built
from harness.journal import poll
from harness.network import Delay, Network, Unavailable

LARGE = CONTENT + (b"x" * 78 + b"\r\n") * 8000


@pytest.fixture
def network():
    try:
        one = Network()
        one.lose("client", 1)
        one.heal("client")
    except Unavailable as reason:
        if os.geteuid() == 0 and "not permitted" not in str(reason).lower():
            raise
        pytest.skip(str(reason))
    yield one
    one.remove()


@pytest.fixture
def wired(network, directory, monkeypatch):
    """Call it for a Postern in the middle of the network, its Exchange at the end."""
    started = []
    binary = os.path.join(directory, "there")
    with open(binary, "w", encoding="ascii") as script:
        script.write('#!/bin/sh\nexec %s "$@"\n' % " ".join([*network.argv("postern"), built.BINARY]))
    os.chmod(binary, 0o700)
    monkeypatch.setattr(built, "BINARY", binary)
    with network.within("exchange"):
        exchange = FakeExchange(network.EXCHANGE)

    def start(host=None, command_timeout="1m", **downstream):
        one = Postern(directory, [host or exchange], RECIPIENTS, {
            "server": {"listen": f"{network.OUTSIDE}:2525", "command_timeout": command_timeout},
            "http": {"listen": ""},
            "downstream exchange": {"health_interval": "500ms", "connect_timeout": "5s", **downstream}})
        one.address, one.network, one.exchange = (network.OUTSIDE, 2525), network, exchange
        started.append(one)
        return one.start()
    yield start
    for one in started:
        one.stop()
    exchange.stop()


def client_of(mx):
    with mx.network.within("client"):
        return mx.client()


def retry(mx, content):
    """The first reply that is not 451."""
    def attempt():
        client = client_of(mx)
        reply = client.attempt(content, "anna@example.test", sender="a@example.org")
        client.close()
        mx.clients.remove(client)
        return reply if reply.code != 451 else None
    return poll(attempt, "a reply that is no 451")


def bodies(mx):
    return [message.without_trace() for message in mx.exchange.delivered]


def test_packets_lost_on_both_legs(wired):
    """Thirty messages of three sizes from ten at once; each tries until it has its 250."""
    mx = wired()
    mx.network.lose("client", 4)
    mx.network.lose("exchange", 4)
    sent, attempts, wrong = [], [], []

    def send(number):
        try:
            for size in (0, 5000, 60000):
                content = CONTENT + b"%d %d\r\n" % (number, size) + b"y" * size + b"\r\n"
                sent.append(content)
                attempts.append(retry(mx, content))
        except Exception as error:  # pylint: disable=broad-except
            wrong.append(error)
    threads = [threading.Thread(target=send, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert {reply.status for reply in attempts} == {"250 2.6.0"}
    assert sorted(bodies(mx)) == sorted(sent)
    assert not mx.exchange.junk


def test_narrow_wire_behind_holds_up_nobody_in_front(wired):
    """It takes seconds to hand the large message on; others hear about recipients meanwhile."""
    mx = wired()
    mx.network.limit("exchange", "1mbit")
    first, second = client_of(mx), client_of(mx)
    first.send_message(LARGE, "anna@example.test", sender="a@example.org")
    mx.exchange.commands.wait(lambda command: command.verb in ("BDAT", "DATA"), "the content under way")
    second.ok("MAIL FROM:<b@example.org>")
    for _ in range(100):
        assert second.command("RCPT TO:<nobody@example.test>").status == "550 5.1.1"
    assert not mx.exchange.received
    second.ok("RCPT TO:<ben@example.test>")
    assert second.data(CONTENT).status == "250 2.6.0"
    assert first.reply().status == "250 2.6.0"
    assert sorted(bodies(mx)) == sorted([LARGE, CONTENT])


def test_long_wire_behind(wired, network):
    """A seventh of a second each way, and content that comes in pieces."""
    with network.within("exchange"):
        exchange = FakeExchange(network.EXCHANGE)
    delay = Delay(network, "exchange", network.EXCHANGE, exchange.address, 0.15)
    mx = wired("%s:%d" % delay.address)
    client = client_of(mx)
    for number in range(3):
        assert client.deliver(CONTENT + b"%d\r\n" % number, "anna@example.test", "ben@example.test").code == 250
    assert client_of(mx).deliver(LARGE, "anna@example.test").code == 250
    assert len(exchange.delivered) == 4 and exchange.delivered[3].without_trace() == LARGE
    assert not exchange.junk
    mx.stop()
    delay.stop()
    exchange.stop()


def test_cut_before_the_answer_to_the_content(wired):
    """Its fate is not known: the client is to try again, and once the wire is whole it can."""
    mx = wired(data_timeout="1s")
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = client_of(mx)
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.network.lose("exchange", 100)
    gate.open()
    assert client.reply().status == "451 4.4.2"
    mx.exchange.usual()
    mx.network.heal("exchange")
    mx.wait_log("downstream", state="up")
    assert retry(mx, CONTENT).status == "250 2.6.0"
    assert bodies(mx) == [CONTENT, CONTENT]


def test_cut_within_the_content(wired):
    mx = wired(data_timeout="1s", reply_timeout="1s", connect_timeout="1s")
    gate = faults.Gate()
    mx.exchange.on("CONTENT", gate)
    client = client_of(mx)
    client.send_message(LARGE, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.network.lose("exchange", 100)
    gate.open()
    assert client.reply().code == 451
    mx.exchange.usual()
    mx.network.heal("exchange")
    assert retry(mx, LARGE).status == "250 2.6.0"
    assert LARGE in bodies(mx)


def test_client_is_cut_off_within_its_message(wired):
    mx = wired(command_timeout="2s")
    client = client_of(mx)
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    mx.network.lose("client", 100)
    client.send(CONTENT)
    assert mx.wait_log("close")["reason"] == "timeout"
    mx.network.heal("client")
    assert not mx.exchange.transactions()
    assert client_of(mx).deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_client_is_cut_off_from_its_answer(wired):
    """Its retry, over a wire that is whole again, is answered and not delivered twice."""
    mx = wired()
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = client_of(mx)
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.network.lose("client", 100)
    gate.open()
    mx.exchange.delivered.wait()
    client.close()
    mx.clients.remove(client)
    mx.network.heal("client")
    assert retry(mx, CONTENT).status == "250 2.6.0"
    assert bodies(mx) == [CONTENT]


def test_command_that_crossed_our_250_is_no_sign_that_it_was_heard(wired):
    """Only what was sent by somebody who had it acknowledges it."""
    mx = wired()
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = client_of(mx)
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.network.lose("client", 100, ["input"])
    gate.open()
    mx.wait_log("message", status="2.6.0")
    client.send("NOOP\r\n")
    client.close()
    mx.clients.remove(client)
    assert mx.wait_log("close")["commands"] == "5"
    mx.network.heal("client")
    assert retry(mx, CONTENT).status == "250 2.6.0"
    assert len(mx.exchange.received) == 1
