"""Connections to the downstream: kept, shared, replaced."""

import os
import select
import time

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.journal import Journal, poll
from harness.postern import free_port


def deliver(mx, n=0):
    return mx.client().deliver(CONTENT + b"%d\r\n" % n, "anna@example.test")


def test_connection_is_kept(mx):
    for n in range(5):
        assert deliver(mx, n).status == "250 2.6.0"
    assert len({m.connection.number for m in mx.exchange.delivered}) == 1
    assert len(mx.exchange.connections) <= 2  # the other was the health check's


def test_connection_messages(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"connection_messages": 2}})
    for n in range(5):
        assert deliver(mx, n).status == "250 2.6.0"
    numbers = [m.connection.number for m in downstream.delivered]
    assert len(numbers) == 5 and all(numbers.count(n) <= 2 for n in numbers)


def test_connection_lifetime(exchange, postern):
    """An old connection is ended politely; what goes over it is not cut."""
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"connection_lifetime": "1ms"}})
    for n in range(2):
        assert deliver(mx, n).status == "250 2.6.0"
        used = downstream.delivered[n].connection
        downstream.connections.wait(lambda c, one=used: c is one and c.ended, "the end of the connection")
        assert used.ended == "quit"


def test_idle_connections_zero(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"idle_connections": 0}})
    for n in range(3):
        assert deliver(mx, n).status == "250 2.6.0"
    assert len({m.connection.number for m in downstream.delivered}) == 3


def test_idle_connection_ends_with_quit(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"idle_timeout": "200ms"}})
    assert deliver(mx).status == "250 2.6.0"
    connection = downstream.delivered[0].connection
    downstream.connections.wait(lambda c: c is connection and c.ended, "the end of the idle connection")
    assert connection.ended == "quit"


def test_kept_connection_that_died_is_replaced_silently(mx):
    assert deliver(mx, 1).status == "250 2.6.0"
    mx.exchange.drop_all()
    assert deliver(mx, 2).status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
def test_kept_connection_that_dies_in_the_envelope_is_replaced(mx, verb):
    assert deliver(mx, 1).status == "250 2.6.0"
    mx.exchange.on(verb, faults.first(1, faults.drop()))
    assert deliver(mx, 2).status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


def test_kept_connection_that_says_421_is_replaced(mx):
    assert deliver(mx, 1).status == "250 2.6.0"
    mx.exchange.on("MAIL", faults.first(1, faults.reply_and_drop("421 4.4.1 Connection timed out")))
    assert deliver(mx, 2).status == "250 2.6.0"


def test_burst_is_two_round_trips(mx):
    """MAIL and every RCPT come in one write: none waits for the reply to the one before."""
    gate = faults.Gate()
    mx.exchange.on("MAIL", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", "ben@example.test", "carl@example.test", sender="a@example.org")
    connection = gate.reached.wait().connection
    while connection.buffer.count(b"RCPT TO") < 3:
        connection.buffer += connection.receive()
    assert b"BDAT" not in connection.buffer  # no content before every recipient is accepted
    gate.open()
    assert client.reply().status == "250 2.6.0"


def test_two_connections_at_once(mx):
    gate = faults.Gate()
    mx.exchange.on("EOD", faults.first(1, gate))
    slow = mx.client()
    slow.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    assert deliver(mx, 2).status == "250 2.6.0"
    gate.open()
    assert slow.reply().status == "250 2.6.0"
    assert len({m.connection.number for m in mx.exchange.delivered}) == 2


def start_burst(mx, source=None, n=0):
    client = mx.client(source=source)
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(CONTENT + b"%d\r\n.\r\n" % n)
    return client


def test_no_more_idle_connections_are_kept(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"idle_connections": 2}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    clients = [start_burst(mx, n=n) for n in range(4)]
    gate.reached.wait_count(4)
    gate.open()
    assert [client.reply().status for client in clients] == ["250 2.6.0"] * 4
    key = f'postern_downstream_connections{{downstream="exchange",host="{downstream.host}",state="%s"}}'
    poll(lambda: mx.metrics()[key % "idle"] == 2, "two that are kept")
    assert mx.metrics()[key % "active"] == 0
    assert all(c.ended in (None, "quit") for c in downstream.connections)


def test_over_the_limit_they_wait_their_turn(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"max_connections": 1}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    clients = [start_burst(mx, f"127.0.0.{n + 10}", n) for n in range(4)]
    gate.reached.wait()
    gate.open()
    assert [c.reply().status for c in clients] == ["250 2.6.0"] * 4
    assert len(downstream.delivered) == 4
    assert len({m.connection.number for m in downstream.delivered}) == 1


def test_queue_timeout(exchange, postern):
    mx = postern(downstream := exchange(), settings={
        "downstream exchange": {"max_connections": 1, "queue_timeout": "100ms"}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    first = start_burst(mx, "127.0.0.10", 1)
    gate.reached.wait()
    second = start_burst(mx, "127.0.0.11", 2)
    assert second.reply().status == "451 4.3.2"
    gate.open()
    assert first.reply().status == "250 2.6.0"
    assert len(downstream.received) == 1


def test_one_client_gets_a_quarter_of_the_connections(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"max_connections": 4}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    hog = [start_burst(mx, "127.0.0.10", n) for n in range(3)]
    gate.reached.wait()
    other = start_burst(mx, "127.0.0.11", 9)
    gate.reached.wait_count(2)
    assert len(gate.reached) == 2
    gate.open()
    assert [c.reply().status for c in hog + [other]] == ["250 2.6.0"] * 4


@pytest.mark.parametrize("limit, source, others", [
    (1, "127.0.0.11", ["127.0.0.11", "127.0.0.12"]), (4, "127.0.0.10", ["127.0.0.10"])], ids=["full", "share"])
def test_who_waits_for_one_host_keeps_nobody_from_another(exchange, postern, limit, source, others):
    """One host is full, or the client has its share of it; the other refused one connection, whose message now
    waits for the first."""
    full, other = exchange(), exchange()
    mx = postern(full, other, wait_downstream=False, settings={
        "server": {"workers": 1},
        "downstream exchange": {"max_connections": limit, "health_interval": "1h", "queue_timeout": "5m"}})
    mx.wait_log("downstream", state="up", host=full.host)
    mx.wait_log("downstream", state="up", host=other.host)
    gate = faults.Gate()
    full.on("EOD", gate)
    first = start_burst(mx, "127.0.0.10", 1)
    gate.reached.wait()
    other.on("CONNECT", faults.first(1, faults.reply_and_drop("421 4.3.2 The maximum number of connections")))
    waiting = start_burst(mx, source, 2)
    other.connections.wait(lambda c: c.ended == "closed by us", "the refused connection")
    for n, another in enumerate(others):
        assert start_burst(mx, another, n + 3).reply().status == "250 2.6.0"
    gate.open()
    assert [c.reply().status for c in (first, waiting)] == ["250 2.6.0"] * 2


def test_a_client_at_its_share_keeps_nobody_from_a_free_host(exchange, postern):
    """One host is full.  Of the other the first who waits has its share; who comes behind has nothing yet."""
    full, other = exchange(), exchange()
    mx = postern(full, other, wait_downstream=False, settings={
        "server": {"workers": 1},
        "downstream exchange": {"max_connections": 4, "health_interval": "1h", "queue_timeout": "5m"}})
    mx.wait_log("downstream", state="up", host=full.host)
    mx.wait_log("downstream", state="up", host=other.host)
    gate, share = faults.Gate(), faults.Gate()
    full.on("EOD", gate)
    clients = []
    while len(gate.reached) < 4:
        clients.append(start_burst(mx, f"127.0.1.{len(clients) + 1}", len(clients)))
        poll(lambda: len(gate.reached) + len(other.delivered) == len(clients), "the message at one of the hosts")
    other.on("EOD", faults.first(1, share))
    clients.append(start_burst(mx, "127.0.2.1", 100))
    share.reached.wait()
    clients.append(start_burst(mx, "127.0.2.1", 101))
    assert start_burst(mx, "127.0.3.1", 102).reply().status == "250 2.6.0"
    gate.open()
    share.open()
    assert {c.reply().status for c in clients} == {"250 2.6.0"}


def test_failover_to_a_second_host(exchange, postern):
    first, second = exchange(), exchange()
    mx = postern(first, second, wait_downstream=False)
    mx.wait_log("downstream", state="up", host=first.host)
    mx.wait_log("downstream", state="up", host=second.host)
    first.stop_listening()
    first.drop_all()
    for n in range(4):
        assert deliver(mx, n).status == "250 2.6.0"
    assert len(second.delivered) == 4
    mx.wait_log("downstream", state="down", host=first.host)


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "CONTENT"])
def test_lost_before_the_end_of_data_another_host_gets_it(exchange, postern, verb):
    bad, good = exchange(), exchange()
    mx = postern(bad, good, wait_downstream=False)
    mx.wait_log("downstream", state="up", host=bad.host)
    mx.wait_log("downstream", state="up", host=good.host)
    bad.drop_all()
    # CONTENT: less is read than the sockets hold, so the end of data is not written yet.
    bad.on(verb, faults.drop_in_content(1000, reset=True) if verb == "CONTENT" else faults.drop())
    content = CONTENT + (b"x" * 78 + b"\r\n") * 200000
    for n in range(2):
        reply = mx.client().deliver(content + b"%d\r\n" % n, "anna@example.test")
        assert reply.status == "250 2.6.0"
    assert len(good.delivered) == 2 and not bad.received


def test_spare_is_used_only_in_need(exchange, postern):
    main, spare = exchange(), exchange()
    mx = postern(main.host, spare.host + " weight=0", wait_downstream=False)
    mx.wait_log("downstream", state="up", host=main.host)
    mx.wait_log("downstream", state="up", host=spare.host)
    for n in range(3):
        assert deliver(mx, n).status == "250 2.6.0"
    assert not spare.delivered and len(main.delivered) == 3
    main.stop_listening()
    main.drop_all()
    assert deliver(mx, 9).status == "250 2.6.0"
    assert len(spare.delivered) == 1


def worker_of(mx, client):
    """The event loop that has the client's connection."""
    ends = [f":{end[1]:04X}" for end in (client.socket.getpeername(), client.socket.getsockname())]
    fds = f"/proc/{mx.process.pid}/fd"
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table]
    [inode] = [row[9] for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1])]
    targets = {fd: os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds) if os.path.islink(f"{fds}/{fd}")}
    [served] = [fd for fd, target in targets.items() if target == f"socket:[{inode}]"]
    for fd, target in targets.items():
        if "eventpoll" in target:
            with open(f"/proc/{mx.process.pid}/fdinfo/{fd}", encoding="ascii") as watched:
                if any(line.split()[:2] == ["tfd:", served] for line in watched):
                    return fd
    raise AssertionError("no loop has it")


def test_a_spare_is_for_who_needs_it_though_others_wait_longer(exchange, postern):
    """Those of another worker wait for the main host, which has refused this one."""
    main, spare = exchange(), exchange()
    mx = postern(main.host, spare.host + " weight=0", wait_downstream=False, settings={
        "server": {"workers": 2},
        "downstream exchange": {"max_connections": 1, "queue_timeout": "5m", "health_interval": "1h"}})
    for host in (main, spare):
        mx.wait_log("downstream", state="up", host=host.host)
    refusal, held = faults.Gate(faults.reply_and_drop("421 4.3.2 Too many")), faults.Gate()
    main.on("CONNECT", faults.first(1, refusal))
    main.on("EOD", held)
    one = mx.client(source="127.0.0.10")
    others = [mx.client(source=f"127.0.0.{n}") for n in range(20, 60)]
    others = [client for client in others if worker_of(mx, client) != worker_of(mx, one)][:2]
    one.send_message(CONTENT, "anna@example.test")
    refusal.reached.wait()
    for n, client in enumerate(others):
        client.send_message(CONTENT + b"%d\r\n" % n, "anna@example.test")
    poll(lambda: len(mx.events("rcpt")) == 3, "all have sent")
    time.sleep(0.5)  # so much longer they wait than this one, once it asks again
    refusal.open()
    assert one.reply().status == "250 2.6.0"
    assert len(spare.delivered) == 1
    held.open()


def test_weights(exchange, postern):
    light, heavy = exchange(), exchange()
    mx = postern(light.host, heavy.host + " weight=3", wait_downstream=False,
                 settings={"downstream exchange": {"idle_connections": 0}})
    mx.wait_log("downstream", state="up", host=light.host)
    mx.wait_log("downstream", state="up", host=heavy.host)
    for n in range(40):
        assert deliver(mx, n).status == "250 2.6.0"
    assert 1 <= len(light.delivered) < len(heavy.delivered)


def test_no_host_is_up(exchange, postern):
    downstream = exchange()
    downstream.stop_listening()
    mx = postern(downstream, wait_downstream=False)
    mx.wait_log("downstream", state="down")
    client = mx.client()
    assert client.command("MAIL FROM:<a@example.org>").status == "451 4.4.1"
    assert client.command("NOOP").code == 250


def test_one_route_is_down(exchange, postern):
    up = exchange()
    mx = postern(up, recipients=["anna@example.test", "zoe@example.org"], settings={
        "domain example.org": {"downstream": "second"},
        "downstream second": {"hosts": f"127.0.0.1:{free_port()}", "tls": "off"}})
    mx.wait_log("downstream", state="down")
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<zoe@example.org>").status == "451 4.4.1"
    assert client.command("RCPT TO:<anna@example.test>").status == "250 2.1.5"
    assert client.data(CONTENT).status == "250 2.6.0"


def test_host_comes_back(exchange, postern):
    downstream = exchange()
    downstream.stop_listening()
    mx = postern(downstream, wait_downstream=False,
                 settings={"downstream exchange": {"health_interval": "100ms"}})
    mx.wait_log("downstream", state="down")
    downstream.listen_again()
    mx.wait_log("downstream", state="up")
    assert deliver(mx).status == "250 2.6.0"


def test_silent_host_is_left_for_another(exchange, postern):
    """It accepts, and says nothing."""
    silent, good = exchange(), exchange()
    mx = postern(silent, good, wait_downstream=False,
                 settings={"downstream exchange": {"reply_timeout": "300ms", "connect_timeout": "300ms"}})
    mx.wait_log("downstream", state="up", host=silent.host)
    mx.wait_log("downstream", state="up", host=good.host)
    silent.drop_all()
    silent.on("CONNECT", faults.hang)
    silent.on("MAIL", faults.hang)
    for n in range(3):
        assert deliver(mx, n).status == "250 2.6.0"
    assert len(good.delivered) == 3


def test_silent_kept_connection_is_not_stale(exchange, postern):
    """One waits for it, and not once more for every other that is kept."""
    silent, spare = exchange(), exchange()
    mx = postern(silent.host, spare.host + " weight=0", wait_downstream=False,
                 settings={"downstream exchange": {"reply_timeout": "1s", "health_interval": "1h"}})
    mx.wait_log("downstream", state="up", host=silent.host)
    mx.wait_log("downstream", state="up", host=spare.host)
    gate = faults.Gate()
    silent.on("EOD", gate)
    clients = [start_burst(mx, n=n) for n in range(3)]
    gate.reached.wait_count(3)
    gate.open()
    assert [client.reply().status for client in clients] == ["250 2.6.0"] * 3
    asked = Journal("asked in vain")
    silent.on("MAIL", lambda step: (asked.add(step), faults.hang(step)))
    assert deliver(mx, 3).status == "250 2.6.0"
    assert len(asked) == 1 and len(spare.delivered) == 1


@pytest.mark.parametrize("verb, fault", [
    ("CONNECT", faults.reply_and_drop("421 4.3.2 Service not active")), ("CONNECT", faults.reply("220 a\r\n220 b")),
    ("MAIL", faults.reply_and_drop("421 4.3.2 Service not active")), ("MAIL", faults.reply("one garbled reply")),
    ("RCPT", faults.drop()), ("CONTENT", faults.drop(reset=True))])
def test_what_befalls_one_connection_does_not_take_its_host_down(exchange, postern, verb, fault):
    """No probe comes here that would bring it back."""
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"health_interval": "1h"}})
    downstream.on(verb, faults.first(1, fault))
    assert deliver(mx, 0).code == 451
    assert deliver(mx, 1).status == "250 2.6.0"
    assert not mx.events("downstream", state="down")


def test_probe_that_is_refused_while_other_connections_stand(exchange, postern):
    """Exchange at its limit: what is open goes on serving.  Without any it is as good as down."""
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"health_interval": "50ms"}})
    assert deliver(mx, 0).status == "250 2.6.0"
    refused = Journal("refused")
    downstream.on("CONNECT", lambda step: (refused.add(step), faults.reply_and_drop("421 4.3.2 Too many")(step)))
    refused.wait_count(3)
    assert deliver(mx, 1).status == "250 2.6.0"
    assert not mx.events("downstream", state="down")
    downstream.drop_all(connections=downstream.transactions())
    assert "Too many" in mx.wait_log("downstream", state="down")["error"]


def test_reply_timeout(exchange, postern):
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"reply_timeout": "200ms"}})
    downstream.on("MAIL", faults.hang)
    assert deliver(mx).status == "451 4.4.1"
    assert not downstream.received


def test_reply_deadline(exchange, postern):
    mx = postern(downstream := exchange(), settings={"server": {"reply_deadline": "300ms"}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    assert deliver(mx).status == "451 4.4.2"
    gate.open()


def test_reply_deadline_before_the_end_of_data(exchange, postern):
    """What is read to its end has its line and is counted, though it got nowhere."""
    mx = postern(downstream := exchange(), settings={"server": {"reply_deadline": "300ms"}})
    downstream.on("MAIL", faults.hang)
    client = mx.client()
    assert client.deliver(CONTENT, "anna@example.test", "ben@example.test").status == "451 4.4.2"
    line = mx.wait_log("message")
    assert (line["from"], line["rcpts"], line["status"]) == ("<sender@example.org>", "2", "4.4.2")
    assert "did not answer in time" in line["reply"]
    assert mx.metrics()['postern_messages_total{status="deferred"}'] == 1
    assert client.command("NOOP").code == 250


def test_reply_deadline_before_there_is_a_connection(exchange, postern):
    """One is being opened, and one waits for its turn.  What is given up leaves no trace: who comes later is served."""
    mx = postern(downstream := exchange(), settings={"server": {"reply_deadline": "300ms"},
                                                     "downstream exchange": {"max_connections": 1}})
    downstream.on("CONNECT", gate := faults.Gate())
    clients = [start_burst(mx, f"127.0.0.{n + 10}", n) for n in range(2)]
    gate.reached.wait()
    assert [client.reply().status for client in clients] == ["451 4.4.2"] * 2
    gate.open()
    assert deliver(mx, 3).status == "250 2.6.0"
    assert [m.body for m in downstream.delivered] == [b"Hello.\r\n3\r\n"]


def test_new_connection_lacks_what_the_message_needs(exchange, postern):
    """It was offered when the client was asked, and is no more: nothing is sent that the host cannot read."""
    mx = postern(downstream := exchange(), settings={"downstream exchange": {"idle_connections": 0}})
    client = mx.client()
    client.ok("MAIL FROM:<j\u00fcrgen@example.org> SMTPUTF8".encode())
    client.ok("RCPT TO:<anna@example.test>")
    downstream.capabilities.remove("SMTPUTF8")
    client.ok("DATA")
    client.send(CONTENT + b".\r\n")
    assert client.reply().status == "451 4.4.1"
    assert not downstream.transactions()
    assert deliver(mx).status == "250 2.6.0"


def test_idle_connections_go_to_all_who_wait_at_another_worker(exchange, postern):
    """Which client falls to which worker is chance.  With as many connections as clients all are served at once,
    whoever keeps those of the round before."""
    mx = postern(downstream := exchange(), settings={
        "server": {"workers": 2},
        "downstream exchange": {"max_connections": 6, "idle_connections": 6, "queue_timeout": "5m"}})
    for number in range(12):
        downstream.on("EOD", gate := faults.Gate())
        clients = [mx.client(source=f"127.0.0.{n + 10}") for n in range(6)]
        for client in clients:
            client.envelope("a@example.org", "anna@example.test")
            client.ok("DATA")
        for n, client in enumerate(clients):
            client.send(CONTENT + b"%d %d\r\n.\r\n" % (number, n))
        gate.reached.wait_count(6)
        gate.open()
        assert [client.reply().status for client in clients] == ["250 2.6.0"] * 6


def test_two_workers_share_the_limit(exchange, postern):
    mx = postern(downstream := exchange(), settings={
        "server": {"workers": 2}, "downstream exchange": {"max_connections": 2}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    clients = [start_burst(mx, f"127.0.0.{n + 10}", n) for n in range(12)]
    gate.reached.wait_count(2)
    gate.open()
    assert [c.reply().status for c in clients] == ["250 2.6.0"] * 12
    assert len(downstream.delivered) == 12


def test_nobody_waits_longer_for_his_worker(exchange, postern):
    """One connection for all, and those of either worker have always another message for it."""
    downstream = exchange()
    downstream.on("EOD", lambda step: time.sleep(0.01))
    mx = postern(downstream, settings={"server": {"workers": 2},
                                       "downstream exchange": {"max_connections": 1, "queue_timeout": "1m"}})
    n = 24  # of which hardly all come to one worker
    clients = [mx.client(source=f"127.0.0.{source}") for source in range(2, 2 + n)]
    served = [0] * n

    def send(i):
        clients[i].send_message(CONTENT + b"%d %d\r\n" % (i, served[i]), "anna@example.test")
    for i in range(n):
        send(i)
    while min(served) < 3:
        ready, _, _ = select.select([client.socket for client in clients], [], [])
        for i, client in enumerate(clients):
            if client.socket in ready:
                assert client.reply().status == "250 2.6.0"
                served[i] += 1
                send(i)
        assert max(served) < 60, served


@pytest.mark.parametrize("verb", ["EOD", "RSET"])
def test_a_reply_in_two_pieces_ends_as_one_in_one(exchange, postern, verb):
    """The connection is kept, and its slot is free."""
    def in_two(step):
        if verb == "EOD":
            step.connection.commit("250 2.0.0 Fine")
        step.connection.send(b"250 2.0.0 ")
        time.sleep(0.1)  # whoever reads until then has but a part
        step.connection.send(b"Fine\r\n")
        return ""
    mx = postern(downstream := exchange(), settings={
        "downstream exchange": {"max_connections": 4, "queue_timeout": "2s"}})
    downstream.on(verb, in_two)
    downstream.on("RCPT", faults.for_argument("ben", faults.reply("550 5.7.1 Not you")))
    for n in range(5):
        client = mx.client()
        if verb == "RSET":
            assert client.deliver(CONTENT, "ben@example.test").status == "550 5.7.1"
        assert client.deliver(CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert len({m.connection.number for m in downstream.delivered}) == 1
