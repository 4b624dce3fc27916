"""SIGTERM: no new sessions, the old ones are told, and no message is cut off."""

import signal
import socket

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.journal import poll

SHUTDOWN = "421 4.3.2"


@pytest.fixture
def start(exchange, postern):
    def begin(drain_timeout="500ms", **server):
        downstream = exchange()
        one = postern(downstream, settings={"server": {"drain_timeout": drain_timeout, **server}})
        one.exchange = downstream
        return one
    return begin


def is_refused(mx):
    try:
        with socket.create_connection(mx.address, 5) as conn:
            return conn.recv(3) in (b"", b"421")
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exit(start, number):
    mx = start()
    mx.send_signal(number)
    assert mx.wait_exit() == 0
    assert mx.events("stop")
    assert not list(mx.stray)


def test_idle_session(start):
    mx = start()
    client = mx.client()
    mx.send_signal(signal.SIGTERM)
    assert client.reply().status == SHUTDOWN
    client.ended()
    client.close()
    assert mx.wait_exit() == 0


def test_no_new_sessions(start):
    mx = start(drain_timeout="30s")
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.send_signal(signal.SIGTERM)
    poll(lambda: is_refused(mx), "new connections refused")
    gate.open()
    assert client.reply().status == "250 2.6.0"
    assert mx.wait_exit() == 0
    assert len(mx.exchange.delivered) == 1


def test_message_under_way_is_finished(start):
    """A transaction that has begun may end, within drain_timeout."""
    mx = start(drain_timeout="20s")
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(CONTENT)
    mx.send_signal(signal.SIGTERM)
    poll(lambda: is_refused(mx), "new connections refused")
    client.send(b".\r\n")
    assert client.reply().status == "250 2.6.0"
    assert client.reply().status == SHUTDOWN
    client.ended()
    client.close()
    assert mx.wait_exit() == 0


@pytest.mark.parametrize("command, status", [("RSET", "250 2.0.0"), ("EHLO x", "250"), ("BDAT 0 LAST", "554 5.5.1")])
def test_transaction_under_way_is_given_up(start, command, status):
    """Its session is not waited for any longer."""
    mx = start(drain_timeout="10m")
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<nobody@example.test>").status == "550 5.1.1"
    mx.send_signal(signal.SIGTERM)
    poll(lambda: is_refused(mx), "new connections refused")
    assert client.command(command).status == status
    assert client.reply().status == SHUTDOWN
    client.ended()
    client.close()
    assert mx.wait_exit() == 0


def test_burst_past_its_end_is_waited_for(start):
    """Longer than drain_timeout if need be."""
    mx = start(drain_timeout="100ms")
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    idle = mx.client()
    mx.send_signal(signal.SIGTERM)
    assert idle.reply().status == SHUTDOWN
    assert mx.is_running()
    gate.open()
    assert client.reply().status == "250 2.6.0"
    assert mx.wait_exit() == 0
    assert len(mx.exchange.delivered) == 1


def send_and_go(mx, gate):
    """A message whose client is gone by the time its end has reached the downstream."""
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    client.reset()
    mx.clients.remove(client)
    mx.wait_log("close", reason="client-reset")


def test_burst_whose_client_is_gone_is_waited_for(start):
    mx = start(drain_timeout="100ms")
    send_and_go(mx, gate := faults.Gate())
    idle = mx.client()
    mx.send_signal(signal.SIGTERM)
    assert idle.reply().status == SHUTDOWN
    idle.ended()
    assert mx.is_running()
    gate.open()
    assert mx.wait_exit() == 0
    assert mx.wait_log("message")["status"] == "2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_burst_is_waited_for_no_longer_than_reply_deadline(start):
    mx = start(reply_deadline="500ms")
    send_and_go(mx, faults.Gate())
    mx.send_signal(signal.SIGTERM)
    assert mx.wait_exit() == 0
    assert mx.wait_log("message")["status"] == "4.4.2"


def test_slow_session_is_ended(start):
    """A client that never comes to its end does not keep the process."""
    mx = start(drain_timeout="200ms")
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(CONTENT)
    mx.send_signal(signal.SIGTERM)
    assert client.reply().status == SHUTDOWN
    client.ended()
    client.close()
    assert mx.wait_exit() == 0
    assert not mx.exchange.transactions()


def test_clients_that_stay_keep_nothing(start):
    """Who has its 421 and closes not, or had it before, holds the process for a second, not for the five of else."""
    mx = start()
    stays, said_quit = mx.client(), mx.client()
    said_quit.ok("QUIT")
    mx.send_signal(signal.SIGTERM)
    assert stays.reply().status == SHUTDOWN
    stays.ended()
    assert mx.wait_exit(seconds=4) == 0


def test_kept_connections_are_ended_politely(start):
    mx = start()
    client = mx.client()
    assert client.deliver(CONTENT, "anna@example.test").code == 250
    client.quit()
    mx.send_signal(signal.SIGTERM)
    assert mx.wait_exit() == 0
    connection = mx.exchange.delivered[0].connection
    mx.exchange.connections.wait(lambda c: c is connection and c.ended, "its end")
    assert connection.ended == "quit"


def test_sigterm_twice(start):
    mx = start(drain_timeout="500ms")
    mx.client()
    mx.send_signal(signal.SIGTERM)
    mx.send_signal(signal.SIGTERM)
    assert mx.wait_exit() == 0


def test_sigterm_twice_with_a_burst_whose_client_is_gone(start):
    mx = start()
    send_and_go(mx, faults.Gate())
    idle = mx.client()
    mx.send_signal(signal.SIGTERM)
    assert idle.reply().status == SHUTDOWN
    mx.send_signal(signal.SIGTERM)
    assert mx.wait_exit() == 0
    assert mx.wait_log("message")["status"] == "4.4.2"
