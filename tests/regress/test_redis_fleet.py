"""Two Posterns that share their ledger through a real Redis, which comes and goes."""

import os
import signal
import socket
import tempfile
import threading

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.journal import poll
from harness.postern import free_port
from harness.servers import Redis, write

PEER = "127.0.0.10"
CLOSED = "421 4.7.0"
UNKNOWN = "550 5.1.1"
NAMES = ("anna", "ben", "carl", "dora")


@pytest.fixture
def redis(directory):
    """Call it for a running Redis; PORT: that of one before."""
    started = []

    def start(password="", port=None):
        started.append(Redis(tempfile.mkdtemp(dir=directory), password, port))
        return started[-1]
    yield start
    for one in started:
        one.process.send_signal(signal.SIGCONT)
        one.stop(signal.SIGKILL)


@pytest.fixture
def member(exchange, postern):
    """A Postern of the fleet; all of them have one Exchange."""
    downstream = exchange()

    def start(where, wait="up", state_dir=None, **keys):
        settings = {"harvest": {
            "allow": "", "block_private": "yes", "tarpit": "0s", "message_threshold": 0, "threshold_wide": 0,
            "ledger": "redis", "redis": where if isinstance(where, str) else f"127.0.0.1:{where.port}", **keys}}
        if state_dir is not None:
            settings["server"] = {"state_dir": state_dir}
        one = postern(downstream, recipients=[f"{name}@example.test" for name in NAMES], settings=settings)
        one.exchange = downstream
        if wait:
            one.wait_log("ledger", state=wait)
        return one
    return start


def session(mx, sender="a@example.org", source=PEER):
    client = mx.client(source=source)
    client.ok(f"MAIL FROM:<{sender}>")
    return client


def rcpt(client, name):
    return client.command(f"RCPT TO:<{name}@example.test>").status


def harvest(mx, *numbers, source=PEER, sender="a@example.org"):
    client = session(mx, sender, source)
    assert [rcpt(client, f"x{n}") for n in numbers] == [UNKNOWN] * len(numbers)
    client.quit()


def counted(redis, count, peer=PEER, kind="u"):
    poll(lambda: redis.ask("ZCARD", f"postern:{kind}:{peer}") == str(count), f"{count} in Redis")


def greeting(mx, source=PEER):
    return mx.client(source=source, ehlo=False).greeting.status


def blocks(mx):
    return [block["network"] for block in mx.control("blocks")["blocks"]]


# Counts

def test_counts_of_both_add_up_to_a_block(redis, member):
    server = redis()
    one, other = member(server, threshold=6), member(server, threshold=6)
    harvest(one, 1, 2, 3)
    counted(server, 3)
    harvest(other, 3, 4, 5)  # one of them again
    counted(server, 5)
    assert not one.events("block") and not other.events("block")
    harvest(other, 6)
    for mx in (one, other):
        mx.wait_log("block", client=PEER, by="harvest")
        assert greeting(mx) == CLOSED
        assert greeting(mx, "127.0.0.11") == "220"
        assert mx.metrics()['postern_harvests_total{action="block"}'] == len(mx.events("harvest"))
    assert one.events("harvest") or other.events("harvest")
    assert server.ask("ZCARD", "postern:u:" + PEER) == "6"


def test_the_null_senders_counts_add_up_apart(redis, member):
    server = redis()
    one, other = member(server, threshold=4), member(server, threshold=4)
    harvest(one, 1, 2, sender="")
    counted(server, 2, kind="z")
    harvest(other, 3, 4, sender="")
    one.wait_log("block", client=PEER)
    client = session(one, "")
    assert rcpt(client, "anna") == "450 4.7.1"
    client.ok("RSET")
    client.ok("MAIL FROM:<a@example.org>")
    assert rcpt(client, "anna") == "250 2.1.5"


def test_what_one_served_speaks_for_the_client_at_the_other(redis, member):
    server = redis()
    one = member(server, threshold=4, ratio="0.6", trusted_recipients=0)
    other = member(server, threshold=4, ratio="0.6", trusted_recipients=0)
    client = one.client(source=PEER)
    assert client.deliver(CONTENT, *(f"{name}@example.test" for name in NAMES)).code == 250
    counted(server, 4, kind="s")
    harvest(other, 1, 2, 3)
    counted(server, 3)
    harvest(other, 4, 5)  # 5 of 9
    counted(server, 5)
    assert not other.events("harvest")
    assert rcpt(session(other), "x6") in (UNKNOWN, CLOSED)  # 6 of 10
    other.wait_log("block", client=PEER)


def test_a_client_trusted_at_one_is_not_blocked_at_the_other(redis, member):
    server = redis()
    keys = {"threshold": 3, "ratio": "0.1", "trusted_recipients": 2}
    one, other = member(server, **keys), member(server, **keys)
    assert one.client(source=PEER).deliver(CONTENT, "anna@example.test", "ben@example.test").code == 250
    counted(server, 2, kind="s")
    harvest(other, 1)
    counted(server, 1)
    client = session(other)
    statuses = [rcpt(client, "x2"), rcpt(client, "x3")]
    if statuses[-1] == UNKNOWN:
        statuses.append(rcpt(client, "anna"))
    assert statuses[-1] == CLOSED
    assert other.wait_log("harvest", client=PEER)["action"] == "disconnect"
    assert greeting(other) == "220" and not other.events("block")


# Blocks

def test_a_block_holds_at_both_and_so_does_its_end(redis, member):
    server = redis()
    one, other = member(server), member(server)
    assert one.control("block", PEER)["ok"]
    other.wait_log("block", client=PEER, by="control")
    assert greeting(other) == CLOSED and blocks(other) == blocks(one)
    assert other.control("unblock", PEER)["ok"]
    one.wait_log("unblock", client=PEER)
    assert greeting(one) == "220" and greeting(other) == "220"
    assert blocks(one) == [] and blocks(other) == []
    # And again, though it was ended: what comes later counts.
    assert other.control("block", PEER)["ok"]
    poll(lambda: len(one.events("block", client=PEER)) == 2, "the second block")


def test_unblocking_a_network_forgets_counts_inside_it_at_both(redis, member):
    server = redis()
    one, other = member(server, threshold=4), member(server, threshold=4)
    harvest(other, 1, 2, 3)
    counted(server, 3)
    assert one.control("block", "127.0.0.0/24")["ok"]
    other.wait_log("block", client="127.0.0.0/24")
    assert one.control("unblock", "127.0.0.0/24")["ok"]
    other.wait_log("unblock", client="127.0.0.0/24")
    counted(server, 0)
    harvest(other, 4, 5, 6)
    counted(server, 3)
    assert greeting(other) == "220" and not other.events("harvest")


def test_a_newcomer_learns_the_blocks(redis, member):
    server = redis()
    one = member(server)
    assert one.control("block", "192.0.2.0/24")["ok"]
    poll(lambda: "h192.0.2.0/24" in server.ask("ZRANGE", "postern:log", "0", "-1"), "the block in Redis")
    other = member(server)
    assert blocks(other) == ["192.0.2.0/24"]


def test_a_block_that_ended_while_one_was_down_is_not_brought_back(redis, member, directory):
    server = redis()
    one, other = member(server), member(server, state_dir=os.path.join(directory, "kept"))
    assert one.control("block", PEER)["ok"]
    other.wait_log("block", client=PEER)
    other.stop()
    assert one.control("unblock", PEER)["ok"]
    poll(lambda: server.ask("HGET", "postern:fact", "h" + PEER).split()[1] == "0", "its end in Redis")
    other.start()
    other.wait_log("unblock", client=PEER)
    assert greeting(other) == "220" and greeting(one) == "220"


def test_an_unblock_is_not_undone_by_what_was_asked_before_it(redis, member):
    """The block is heard from Redis at any moment about the unblock, also in the middle of it."""
    server = redis()
    one = member(server)
    for round_ in range(1, 13):
        assert one.control("block", PEER)["ok"]
        poll(lambda: (server.ask("HGET", "postern:fact", "h" + PEER) or "0 0").split()[1] != "0", "the block in Redis")
        assert one.control("unblock", PEER)["ok"]
        poll(lambda: server.ask("HGET", "postern:fact", "h" + PEER).split()[1] == "0", "its end in Redis")
        assert len(one.events("block", client=PEER)) == round_
    assert greeting(one) == "220"


# Redis comes and goes

@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_without_redis_each_goes_on_alone_and_later_it_is_merged(redis, member, how):
    server = redis()
    one, other = member(server, threshold=6), member(server, threshold=6)
    assert one.metrics()["postern_ledger_up"] == 1
    server.process.send_signal(how)
    # At once, while nobody has noticed, and as well when all have.
    harvest(one, 1, 2)
    harvest(other, 3, 4)
    for mx in (one, other):
        mx.wait_log("ledger", state="down")
        assert mx.metrics()["postern_ledger_up"] == 0
    harvest(one, 5)
    harvest(other, 6)
    assert one.client(source="127.0.0.11").deliver(CONTENT, "anna@example.test").code == 250
    assert one.control("block", "192.0.2.1")["ok"]
    assert not one.events("harvest") and not other.events("harvest")
    if how == signal.SIGKILL:
        server.process.wait()
        redis(port=server.port)
    else:
        server.process.send_signal(signal.SIGCONT)
    for mx in (one, other):
        poll(lambda mx=mx: len(mx.events("ledger", state="up")) == 2, "Redis is back")
        mx.wait_log("block", client=PEER, by="harvest")
        assert greeting(mx) == CLOSED
    other.wait_log("block", client="192.0.2.1")
    assert one.metrics()["postern_ledger_up"] == 1


def test_alone_a_harvester_is_still_caught(redis, member):
    server = redis()
    one = member(server, threshold=3)
    server.stop(signal.SIGKILL)
    one.wait_log("ledger", state="down")
    client = session(one)
    statuses = [rcpt(client, f"x{n}") for n in range(3)]
    if statuses[-1] == UNKNOWN:
        statuses.append(rcpt(client, "anna"))
    assert statuses[-1] == CLOSED and greeting(one) == CLOSED


def test_started_without_redis(member, redis):
    port = free_port()
    one = member(f"127.0.0.1:{port}", wait="down", threshold=3)
    harvest(one, 1, 2)
    server = redis(port=port)
    one.wait_log("ledger", state="up")
    counted(server, 2)


def test_lost_data_are_put_back(redis, member):
    server = redis()
    one, other = member(server, threshold=4), member(server, threshold=4)
    assert one.control("block", "192.0.2.1")["ok"]
    other.wait_log("block", client="192.0.2.1")
    harvest(other, 1, 2)
    counted(server, 2)
    key = server.ask("HGET", "postern:fleet", "key")
    server.ask("FLUSHALL")
    counted(server, 2)
    poll(lambda: "h192.0.2.1" in server.ask("ZRANGE", "postern:log", "0", "-1"), "the block in Redis again")
    assert server.ask("HGET", "postern:fleet", "key") == key
    newcomer = member(server, threshold=4)
    assert blocks(newcomer) == ["192.0.2.1"]
    harvest(newcomer, 2, 3, 4)
    newcomer.wait_log("block", client=PEER)


def test_the_fleets_key_is_kept(redis, member, directory):
    """A Postern that counted by itself before takes the key of the fleet, and has it after a restart."""
    server = redis()
    one = member(server, threshold=4)
    other = member("127.0.0.1:%d" % free_port(), wait="down", threshold=4, state_dir=os.path.join(directory, "kept"))
    harvest(other, 1, 2, 3)
    other.write_config({"harvest": {"redis": f"127.0.0.1:{server.port}"}})
    other.reload()
    other.wait_log("ledger", state="up")
    # What it counted by another key is no double of what it counts now.
    harvest(other, 1, 2, 3)
    counted(server, 3)
    other.stop()
    other.start()
    poll(lambda: len(other.events("ledger", state="up")) == 2, "the fleet again")
    harvest(other, 1, 2, 3)
    counted(server, 3)
    harvest(one, 4)
    other.wait_log("block", client=PEER)


def test_every_key_has_the_prefix_and_runs_out(redis, member):
    server = redis()
    one = member(server, redis_prefix="mx:a:", threshold=2)
    one.client(source="127.0.0.11").deliver(CONTENT, "anna@example.test")
    one.exchange.on("RCPT", faults.for_argument("ben", faults.reply("550 5.1.1 User unknown")))
    one.client(source="127.0.0.11").deliver(CONTENT, "anna@example.test", "ben@example.test")
    client = session(one)
    rcpt(client, "x1")
    rcpt(client, "x2")
    one.control("unblock", "192.0.2.1")
    poll(lambda: "h" + PEER in server.ask("ZRANGE", "mx:a:log", "0", "-1"), "all of it")
    poll(lambda: server.ask("EXISTS", "mx:a:u:" + PEER) == "1", "the counts")
    keys = server.ask("KEYS", "*").split()
    assert len(keys) >= 7
    for key in keys:
        assert key.startswith("mx:a:")
        assert int(server.ask("TTL", key)) > 0, key
    assert "example" not in "".join(server.ask("ZRANGE", key, "0", "-1") for key in keys
                                    if server.ask("TYPE", key) == "zset")


# Reaching it

@pytest.mark.parametrize("over", ["unix", "tcp", "name"])
def test_password(redis, member, directory, over):
    server = redis(password="open-sesame")
    path = write(directory, "password", "open-sesame\n")
    os.chmod(path, 0o600)
    where = {"unix": f"unix:{server.socket_path}", "tcp": f"127.0.0.1:{server.port}",
             "name": f"localhost:{server.port}"}[over]
    one = member(where, redis_password_file=path)
    assert one.control("block", PEER)["ok"]
    poll(lambda: server.ask("EXISTS", "postern:log") == "1", "the block in Redis")


@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_password(redis, member, directory, password):
    server = redis(password="open-sesame")
    keys = {}
    if password:
        keys["redis_password_file"] = write(directory, "password", password + "\n")
        os.chmod(keys["redis_password_file"], 0o600)
    one = member(server, wait="down", **keys)
    error = one.wait_log("ledger", state="down")["error"]
    assert error.startswith("WRONGPASS" if password else "NOAUTH")
    assert [p["error"] for p in one.control("status")["problems"] if p["part"] == "ledger"] == [error]
    harvest(one, 1, 2)


def test_a_name_that_nobody_knows(member):
    """It is looked up while it is wanted, and that is given up with it."""
    one = member("redis.invalid:6379", wait="down", threshold=3)
    harvest(one, 1, 2)
    for ledger in ("memory", "redis"):
        one.write_config({"harvest": {"ledger": ledger}})
        one.reload()
    harvest(one, 2)
    assert one.metrics()["postern_ledger_up"] == 0


def test_reload_takes_and_leaves_the_fleet(redis, member):
    server = redis()
    one = member(server, wait=None, ledger="memory")
    assert one.metrics()["postern_ledger_up"] == 1
    one.write_config({"harvest": {"ledger": "redis"}})
    one.reload()
    one.wait_log("ledger", state="up")
    one.write_config({"harvest": {"ledger": "memory"}})
    one.reload()
    harvest(one, 1, 2)
    assert one.control("block", PEER)["ok"]
    assert one.metrics()["postern_ledger_up"] == 1
    assert server.ask("EXISTS", "postern:log", "postern:net") == "0"


# What is no Redis

ANSWERS = {
    "nothing": b"",
    "text": b"220 mail.example ESMTP\r\n",
    "unasked": b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n$-1\r\n*0\r\n" * 20,
    "no sha": b"$3\r\nabc\r\n",
    "huge array": b"*2147483647\r\n",
    "huge string": b"$500000000\r\n" + b"x" * 3000000,
    "deep": b"*1\r\n" * 20,
    "negative": b"$-7\r\n",
    "joined garbled": b"$40\r\n" + b"a" * 40 + b"\r\n*2\r\n$2\r\nab\r\n$2\r\ncd\r\n",
    "joined numbers": b"$40\r\n" + b"a" * 40 + b"\r\n*2\r\n:1\r\n:2\r\n",
    "joined nil": b"$40\r\n" + b"a" * 40 + b"\r\n$-1\r\n",
    "error with a line": b"-ERR no\nevent=block client=192.0.2.1\r\n",
}
JOINED = b"$40\r\n" + b"a" * 40 + b"\r\n" + b"*2\r\n" + (b"$32\r\n" + b"0" * 32 + b"\r\n") * 2
for name, rows in {
        "row": b"*3\r\n:1\r\n:2\r\n:3\r\n", "kind": b"*6\r\n$32\r\n" + b"0" * 32 + b"\r\n:1\r\n:1\r\n$1\r\nx\r\n:1\r\n$5\r\n1 2 3\r\n",
        "network": b"*6\r\n$32\r\n" + b"0" * 32 + b"\r\n:1\r\n:1\r\n$9\r\nh1.2.3.4\n\r\n:1\r\n$5\r\n3 0 0\r\n",
        "action": b"*6\r\n$32\r\n" + b"0" * 32 + b"\r\n:1\r\n:1\r\n$8\r\nh1.2.3.4\r\n:1\r\n$5\r\n9 9 9\r\n",
        "short": b"*4\r\n$32\r\n" + b"0" * 32 + b"\r\n:1\r\n:1\r\n$8\r\nh1.2.3.4\r\n"}.items():
    ANSWERS["polled " + name] = JOINED + rows


@pytest.mark.parametrize("octets", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_answers_is_no_redis(member, octets):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        stopping = threading.Event()

        def serve():
            while not stopping.is_set():
                try:
                    conn, _ = listener.accept()
                except TimeoutError:
                    continue
                with conn:
                    conn.settimeout(5)
                    try:
                        conn.recv(65536)
                        conn.sendall(octets)
                        while conn.recv(65536):
                            pass
                    except OSError:
                        pass
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            one = member(f"127.0.0.1:{listener.getsockname()[1]}", wait="down", threshold=3)
            harvest(one, 1, 2)
            assert not one.events("ledger", state="up") and not one.events("block")
            assert blocks(one) == []
        finally:
            stopping.set()
            thread.join()


# Marks, and messages delivered

def test_a_mark_is_shared_and_so_is_its_end(redis, member):
    server = redis()
    one, other = member(server), member(server)
    one.exchange.on("RCPT", faults.for_argument("ben", faults.reply("550 5.1.1 User unknown")))
    assert one.client().deliver(CONTENT, "anna@example.test", "ben@example.test").status == "451 4.5.0"
    poll(lambda: other.control("lookup", "ben@example.test")["marked"], "the mark at the other")
    assert rcpt(session(other), "ben") == UNKNOWN
    one.exchange.usual()
    assert rcpt(session(other), "ben") == "250 2.1.5"
    poll(lambda: not one.control("lookup", "ben@example.test")["marked"], "its end at the first")


def deliveries(server):
    """What Redis has of messages, by their names: until, what became of it, whether that was heard, whose it is."""
    facts = server.ask("HGETALL", "postern:fact").split("\n")
    return {name: value.split() for name, value in zip(facts[::2], facts[1::2]) if name.startswith("d")}


def burst(one, *action):
    """A client whose message is past its end of data, and the gate that holds its answer."""
    gate = faults.Gate(*action)
    one.exchange.on("EOD", faults.first(1, gate))
    client = one.client()
    client.send_message(CONTENT, "anna@example.test")
    gate.reached.wait()
    return client, gate


def test_a_message_whose_answer_was_lost_is_not_delivered_again_by_the_other(redis, member):
    server = redis()
    one, other = member(server), member(server)
    client, gate = burst(one)
    poll(lambda: server.ask("ZCARD", "postern:log") == "1", "the burst in Redis")
    assert one.control("block", "192.0.2.1")["ok"]
    other.wait_log("block", client="192.0.2.1")  # which comes after it
    client.reset()
    one.clients.remove(client)
    # The retry comes to the other while the burst is under way: it waits for it.
    retry = other.client()
    retry.send_message(CONTENT, "anna@example.test")
    gate.open()
    assert retry.reply().status == "250 2.6.0"
    assert len(one.exchange.delivered) == 1
    # One that is heard of is not remembered: the same again is another message.
    retry.ok("NOOP")
    assert retry.deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert len(one.exchange.delivered) == 2


def test_a_burst_under_way_is_not_told_as_delivered_by_the_other(redis, member):
    """Each tells a Redis that lost its data what it knows; of a burst under way, only who delivers."""
    server = redis()
    one, other = member(server), member(server)
    client, gate = burst(one, lambda step: "451 4.3.0 Not now")
    poll(lambda: server.ask("ZCARD", "postern:log") == "1", "the burst in Redis")
    assert one.control("block", "192.0.2.1")["ok"]
    other.wait_log("block", client="192.0.2.1")  # which comes after it
    client.reset()
    one.clients.remove(client)
    server.ask("FLUSHALL")
    for mx in (one, other):
        poll(lambda mx=mx: len(mx.events("ledger", state="up")) == 2, "Redis is back")
    for network in ("192.0.2.2", "192.0.2.3"):  # one after the other, so that all before the second was told
        assert other.control("block", network)["ok"]
        one.wait_log("block", client=network)
    poll(lambda: [fact[1] for fact in deliveries(server).values()] == ["2"], "the burst in Redis again")
    retry = other.client()
    retry.send_message(CONTENT, "anna@example.test")
    gate.open()
    assert retry.reply().status == "250 2.6.0"
    assert len(one.exchange.delivered) == 1


def test_who_waits_is_answered_however_quick_the_first_client_goes_on(redis, member):
    server = redis()
    one, other = member(server), member(server)
    first, gate = burst(one)
    poll(lambda: server.ask("ZCARD", "postern:log") == "1", "the burst in Redis")
    assert one.control("block", "192.0.2.1")["ok"]
    other.wait_log("block", client="192.0.2.1")  # which comes after it
    server.ask("CONFIG", "SET", "slowlog-log-slower-than", "0")
    second = other.client()
    second.send_message(CONTENT, "anna@example.test")
    poll(lambda: "begin" in server.ask("SLOWLOG", "GET", "-1").split(), "the other's question")
    assert other.control("block", "192.0.2.2")["ok"]
    one.wait_log("block", client="192.0.2.2")  # it has its answer long since
    gate.open()
    assert first.reply().status == "250 2.6.0"
    first.ok("NOOP")
    assert second.reply().status == "250 2.6.0"
    assert len(one.exchange.delivered) == 1
    # Nobody waits any more: the same again is another message, of which the fleet hears, however long it has the first.
    second.ok("NOOP")
    poll(lambda: [fact[1:3] for fact in deliveries(server).values()] == [["1", "1"]], "the first in Redis")
    for name, fact in deliveries(server).items():
        server.ask("HSET", "postern:fact", name, f"{int(fact[0]) + 3600} 1 1 0")
    gate = faults.Gate()
    one.exchange.on("EOD", faults.first(1, gate))
    second.send_message(CONTENT, "anna@example.test")
    gate.reached.wait()
    poll(lambda: [fact[1] for fact in deliveries(server).values()] == ["2"], "the burst in Redis")
    gate.open()
    assert second.reply().status == "250 2.6.0"
    assert len(one.exchange.delivered) == 2


def test_a_message_delivered_by_one_is_answered_by_the_other(redis, member):
    server = redis()
    one, other = member(server), member(server)
    client, gate = burst(one)
    client.reset()
    one.clients.remove(client)
    gate.open()
    one.wait_log("message", status="2.6.0")
    poll(lambda: "1 0 0" in server.ask("HVALS", "postern:fact"), "the delivery in Redis")
    assert one.control("block", "192.0.2.1")["ok"]
    other.wait_log("block", client="192.0.2.1")  # which comes after it
    assert other.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(one.exchange.delivered) == 1


def test_a_retry_at_once_is_not_delivered_again_by_the_other(redis, member):
    """Before either of the two has heard what the other does."""
    server = redis()
    one, other = member(server), member(server)
    for round_ in range(3):
        content = CONTENT + b"round %d\r\n" % round_
        gate = faults.Gate()
        one.exchange.on("EOD", faults.first(1, gate))
        clients = one.client(), other.client()
        for client in clients:
            client.envelope("sender@example.org", "anna@example.test", "ben@example.test")
            client.ok("DATA")
        for client in clients:
            client.send(content + b".\r\n")
        gate.reached.wait()
        gate.open()
        for client in clients:
            assert client.reply().status == "250 2.6.0"
        assert len(one.exchange.delivered) == round_ + 1
        for client in clients:
            client.ok("NOOP")


def test_the_same_to_others_is_another_message(redis, member):
    server = redis()
    one, other = member(server), member(server)
    assert one.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert other.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert len(one.exchange.delivered) == 2


def test_a_stopped_redis_keeps_no_message_waiting(redis, member):
    server = redis()
    one = member(server)
    server.process.send_signal(signal.SIGSTOP)
    assert one.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    one.wait_log("ledger", state="down")
    assert one.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert len(one.exchange.delivered) == 2


def test_a_postern_that_died_in_a_burst_keeps_no_retry_waiting(redis, member):
    server = redis()
    one, other = member(server), member(server)
    _, gate = burst(one)
    poll(lambda: server.ask("ZCARD", "postern:log") == "1", "the burst in Redis")
    one.kill()
    gate.open()
    # Its lease would be over in half a minute; the test does not wait so long.
    server.ask("HSET", "postern:fact", server.ask("ZRANGE", "postern:log", "0", "0"), "1 0 0 0")
    server.ask("ZADD", "postern:log", "99", server.ask("ZRANGE", "postern:log", "0", "0"))
    server.ask("HSET", "postern:fleet", "version", "99")
    reply = other.client().deliver(CONTENT, "anna@example.test")
    assert reply.status == "250 2.6.0"
