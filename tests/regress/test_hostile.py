"""Clients and downstreams that mean harm, or break at the worst moment: nothing is lost, taken twice,
kept for ever or said to be what it is not."""

import glob
import select
import signal
import socket
import threading

import pytest

from conftest import CONTENT
from harness import exchange as does
from harness.journal import poll

MIB = 1 << 20


# What a client can make us hold

def test_replies_that_nobody_reads_stop_the_reading(mx):
    """A client that pipelines and never reads costs the kernel's buffers, not our memory."""
    client = mx.client()
    client.socket.settimeout(1)
    block, sent = b"NOOP\r\n" * 10000, 0
    try:
        while sent < 128 * MIB:
            sent += client.socket.send(block[sent % 6:])
    except TimeoutError:
        pass
    assert sent < 128 * MIB, "it reads on and on"
    assert mx.is_sanitized() or mx.memory_kib() < 32 << 10
    # And when it reads after all, every reply is there.
    client.socket.settimeout(30)
    for _ in range(sent // 6):
        assert client.receive_line().startswith(b"250 ")
    client.send(b"NOOP\r\n"[sent % 6:])
    assert client.reply().code == 250
    client.quit()


# What others have to wait for

def stopped(process):
    """Every thread of it stands still."""
    def states():
        for path in glob.glob(f"/proc/{process.pid}/task/*/stat"):
            with open(path, encoding="ascii") as stat:
                yield stat.read().rpartition(") ")[2][0]
    process.send_signal(signal.SIGSTOP)
    poll(lambda: set(states()) == {"T"}, "all of it stopped")


def test_many_commands_at_once_let_others_in_between(exchange, postern):
    mx = postern(exchange(), settings={"server": {"workers": 1}})
    greedy, modest = [mx.client() for _ in range(3)], mx.client()
    for client in (*greedy, modest):
        client.ok("MAIL FROM:<a@example.org>")
    stopped(mx.process)
    for client in greedy:
        client.send(b"RCPT TO:<x@elsewhere.example>\r\n" * 1000)
    modest.send(b"RCPT TO:<y@elsewhere.example>\r\n")
    mx.process.send_signal(signal.SIGCONT)
    for client, count in [(modest, 1), *((client, 1000) for client in greedy)]:
        assert all(client.reply().status == "550 5.7.1" for _ in range(count))
    mx.wait_log("rcpt", to="<y@elsewhere.example>")
    poll(lambda: len(mx.events("rcpt")) == 3001, "all are judged")
    assert [event["to"] for event in mx.events("rcpt")].index("<y@elsewhere.example>") < 1000


def test_a_flood_of_commands_keeps_nobody_out(exchange, postern):
    """Who always has more to say does not keep the loop from looking whether anybody else does."""
    mx = postern(exchange(), settings={"server": {"workers": 1}})
    sockets = {client.socket.fileno(): client.socket for client in [mx.client() for _ in range(20)]}
    stopping = threading.Event()
    block = b"NOOP\r\n" * 100000

    def flood():
        poller = select.poll()
        sent = dict.fromkeys(sockets, 0)
        for number, sock in sockets.items():
            sock.setblocking(False)
            poller.register(number)
        while not stopping.is_set():
            for number, ready in poller.poll(1000):
                if ready & select.POLLIN:
                    sockets[number].recv(MIB)
                if ready & select.POLLOUT:
                    sent[number] += sockets[number].send(block[sent[number] % 6:])
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for n in range(20):
            assert mx.client().deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    finally:
        stopping.set()
        thread.join()


# Reloads at the worst moment

@pytest.mark.parametrize("step, end, status", [
    ("MAIL", does.drop(), "451 4.4.1"), ("MAIL", does.drop(reset=True), "451 4.4.1"),
    ("MAIL", does.reply("421 4.3.2 going"), "451 4.3.2"), ("EOD", does.drop(), "451 4.4.2"),
    ("EOD", does.drop(reset=True), "451 4.4.2"), ("EOD", does.reply("421 4.3.2 going"), "451 4.3.2")])
def test_downstream_dies_behind_a_reload(mx, step, end, status):
    gate = does.Gate(end)
    mx.exchange.on(step, does.first(1, gate))
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.command("DATA")
    client.send(CONTENT + b".\r\n")
    gate.reached.wait(lambda step: True, "the step")
    mx.reload()
    mx.reload()
    gate.open()
    assert client.reply().status == status
    assert client.command("NOOP").code == 250


def test_handshake_over_a_reload(exchange, postern, certificates):
    mx = postern(exchange(), settings={"tls": {
        "certificate": f"{certificates.mx.certificate}, {certificates.other.certificate}",
        "key": f"{certificates.mx.key}, {certificates.other.key}"}})
    client = mx.client()
    assert client.command("STARTTLS").code == 220
    mx.reload()
    mx.reload()
    client.socket = certificates.client_context().wrap_socket(client.socket, server_hostname="mx.example.org")
    client.ehlo()
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_message_that_waits_for_its_twin_over_a_reload(mx):
    gate = does.Gate(does.reply("451 4.3.0 not now"))
    mx.exchange.on("EOD", does.first(1, gate))
    first, second = mx.client(), mx.client()
    for client in (first, second):
        client.envelope("a@example.org", "anna@example.test")
        client.command("DATA")
    first.send(CONTENT + b".\r\n")
    gate.reached.wait(lambda step: True, "the first")
    second.send(CONTENT + b".\r\n")
    second.silent()
    mx.reload()
    mx.reload()
    gate.open()
    assert first.reply().status == "451 4.3.0"
    assert second.reply().status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


# Replies that nobody asked for

@pytest.mark.parametrize("extra", range(1, 5))
def test_replies_behind_the_last_one_answer_nothing(exchange, postern, extra):
    """The next message goes over the connection at once; what stands behind the reply to the first
    must not be taken for the answers to the second, which is refused."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {"max_connections": 1}})
    refuse = does.Gate(does.reply("250 2.6.0 Queued" + "\r\n250 2.0.0 and" * extra))
    seen = []

    def end(step):
        seen.append(step)
        return refuse(step) if len(seen) == 1 else "550 5.7.1 no"
    downstream.on("EOD", end)
    first, second = mx.client(source="127.0.0.1"), mx.client(source="127.0.0.2")
    for client, subject in ((first, b"1"), (second, b"2")):
        client.envelope("a@example.org", "anna@example.test")
        client.command("DATA")
        client.send(b"Subject: " + subject + b"\r\n\r\n.\r\n")
        if client is first:
            refuse.reached.wait(lambda step: True, "the first message")
    second.silent()
    refuse.open()
    assert first.reply().status == "250 2.6.0"
    assert second.reply().status == "550 5.7.1"


# What a client has said before it could hear our 250 does not say that it has heard it

def deliver_ahead(mx, behind, half_close=False):
    """A message with BEHIND pipelined behind it, which the downstream takes only then."""
    gate = does.Gate()
    mx.exchange.on("EOD", gate)
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.command("DATA")
    client.send(CONTENT + b".\r\n" + behind)
    if half_close:
        client.socket.shutdown(socket.SHUT_WR)
    gate.reached.wait(lambda step: True, "the end of data")
    gate.open()
    mx.exchange.delivered.wait(lambda message: True, "the message")
    mx.exchange.usual()
    return client


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"MAIL FROM:<b@example.org>\r\n", b"QUIT\r\n"])
def test_commands_ahead_are_no_sign_that_the_client_heard(mx, behind):
    client = deliver_ahead(mx, behind)
    mx.wait_log("message", status="2.6.0")
    client.reset()
    mx.wait_log("close")
    assert mx.client().deliver(CONTENT, "anna@example.test", sender="a@example.org").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_half_closed_client_may_not_have_heard(mx):
    client = deliver_ahead(mx, b"QUIT\r\n", half_close=True)
    mx.wait_log("close")
    client.close()
    assert mx.client().deliver(CONTENT, "anna@example.test", sender="a@example.org").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


@pytest.mark.parametrize("behind, replies", [(b"", ["250 2.6.0"]), (b"QUIT\r\n", ["250 2.6.0", "221 2.0.0"])])
def test_half_closed_client_is_answered(mx, behind, replies):
    client = deliver_ahead(mx, behind, half_close=True)
    assert [client.reply().status for _ in replies] == replies
    client.ended()
    mx.wait_log("close", reason="quit" if behind else "client-closed")


@pytest.mark.parametrize("verb", ["MAIL", "EOD"])
def test_half_closed_client_is_not_gone(mx, verb):
    """Nor is it when its message has not been handed over yet."""
    gate = does.Gate()
    mx.exchange.on(verb, gate)
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.command("DATA")
    client.send(CONTENT + b".\r\n")
    gate.reached.wait()
    client.socket.shutdown(socket.SHUT_WR)
    # What was sent later was read: so was the end.
    other = mx.client()
    other.quit()
    gate.open()
    assert client.reply().status == "250 2.6.0"
    client.ended()
    assert len(mx.exchange.delivered) == 1


def test_half_closed_client_hears_of_a_deadline(exchange, postern):
    mx = postern(downstream := exchange(), settings={"server": {"reply_deadline": "300ms"}})
    downstream.on("MAIL", does.hang)
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.command("DATA")
    client.send(CONTENT + b".\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.reply().status == "451 4.4.2"
    client.ended()


def test_client_that_read_to_the_end_has_heard(mx):
    client = deliver_ahead(mx, b"QUIT\r\n")
    assert client.reply().status == "250 2.6.0"
    assert client.reply().status == "221 2.0.0"
    client.ended()
    client.close()
    again = mx.client()
    poll(lambda: mx.get("/metrics")[0] == 200 and "postern_connections 1\n" in mx.get("/metrics")[1],
         "the end of the first session")
    assert again.deliver(CONTENT, "anna@example.test", sender="a@example.org").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


@pytest.mark.parametrize("step", ["RCPT", "DATA"])
@pytest.mark.parametrize("capabilities", [["PIPELINING", "CHUNKING"], ["PIPELINING"], []], ids=["bdat", "data", "slow"])
def test_stray_reply_in_a_burst_is_no_verdict(exchange, postern, step, capabilities):
    """Two replies for one command: the second must not be taken for the verdict, which is a refusal."""
    downstream = exchange(capabilities=capabilities)
    mx = postern(downstream)
    downstream.on(step, does.first(1, lambda step: step.usual + "\r\n250 2.6.0 stray"))
    downstream.on("EOD", does.reply("554 5.7.1 no"))
    reply = mx.client().deliver(CONTENT, "anna@example.test")
    assert reply.code in (451, 554)


def test_client_behind_a_greedy_one_is_served_once(exchange, postern):
    """One network has its share of the connections and waits for more; the next to ask is served over an
    idle one, by one burst."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {"max_connections": 4},
                                       "harvest": {"allow": "127.0.0.1"}})
    gate = does.Gate()
    downstream.on("EOD", does.first(1, gate))
    greedy = [mx.client(source="127.0.0.2") for _ in range(2)]
    other = mx.client(source="127.0.0.3")

    def start(client, subject):
        client.envelope("a@example.org", "anna@example.test")
        client.command("DATA")
        client.send(b"Subject: %d\r\n\r\n.\r\n" % subject)
    start(greedy[0], 1)
    gate.reached.wait(lambda step: True, "the first message")
    start(other, 2)
    assert other.reply().status == "250 2.6.0"
    start(greedy[1], 3)
    assert mx.client(source="127.0.0.4").deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    for subject in range(4, 8):
        start(other, subject)
        assert other.reply().status == "250 2.6.0"
    gate.open()
    assert [client.reply().status for client in greedy] == ["250 2.6.0"] * 2
    assert len(downstream.delivered) == downstream.count("MAIL") == 8
