"""Directory harvesting by many clients, each told by a proxy: who is counted, for how long, and what he gets."""

import time
from datetime import datetime

import pytest

from conftest import CONTENT
from harness.journal import poll

PROXY = "127.0.0.20"
CLOSED = "421 4.7.0"
UNKNOWN = "550 5.1.1"
TAKEN = "250 2.1.5"
LATER = "450 4.7.1"
NAMES = ("anna", "ben", "carl", "dora", "eva", "finn", "gero", "hans", "ida", "jan")
HOST = "198.51.100.7"


@pytest.fixture
def guard(exchange, postern):
    """Call it with changes to [harvest]; what it does not change has its default, but for the tarpit."""
    def start(server=None, workers=1, directory=None, **keys):
        downstream = exchange()
        one = postern(downstream, recipients=[f"{name}@example.test" for name in NAMES], settings={
            "server": {"proxy_protocol": PROXY, "workers": workers, **(server or {})},
            "directory": directory or {}, "harvest": {"tarpit": "0s", **keys}})
        one.exchange = downstream
        return one
    return start


def connect(mx, client=HOST, **how):
    return mx.client(source=PROXY, told=client, **how)


def session(mx, client=HOST, sender="a@example.org"):
    conn = connect(mx, client)
    conn.ok(f"MAIL FROM:<{sender}>")
    return conn


def rcpt(conn, name):
    return conn.command(f"RCPT TO:<{name}@example.test>")


def harvest(conn, count, first=0):
    return [rcpt(conn, f"x{n}").status for n in range(first, first + count)]


def is_blocked(mx, client=HOST):
    conn = connect(mx, client, ehlo=False)
    if conn.greeting.code == 220:
        conn.quit()
        return False
    assert conn.greeting.status == CLOSED
    conn.ended()
    return True


def become_harvester(mx, client=HOST, count=10, sender="a@example.org"):
    """As many unknown recipients, a message and a session each."""
    for n in range(count):
        conn = session(mx, client, sender)
        last = harvest(conn, 1, n)[0]
        conn.close()
    return last


def deliver(mx, client, *names):
    conn = connect(mx, client)
    conn.envelope("a@example.org", *(f"{name}@example.test" for name in names))
    assert conn.data(CONTENT + f"{client} {names}\r\n".encode()).status == "250 2.6.0"
    conn.quit()


# When

def test_nine_are_not_ten(guard):
    mx = guard()
    conn = session(mx)
    assert harvest(conn, 9) == [UNKNOWN] * 9
    assert harvest(conn, 9) == [UNKNOWN] * 9
    assert rcpt(conn, "anna").status == TAKEN
    assert not mx.events("harvest") and not is_blocked(mx)
    assert harvest(conn, 1, 9) == [CLOSED]
    conn.ended()
    event = mx.wait_log("harvest", client=HOST)
    assert (event["count"], event["ratio"], event["action"]) == ("10", "1.00", "block")
    assert is_blocked(mx)
    assert not is_blocked(mx, "198.51.100.8")
    assert mx.metrics()['postern_harvests_total{action="block"}'] == 1
    assert mx.metrics()["postern_blocks"] == 1


def test_other_spellings_are_the_same_address(guard):
    mx = guard(threshold=3, message_threshold=0)
    conn = session(mx)
    for name in ("xaver", "XAVER", '"xaver"', r'"x\aver"'):
        assert rcpt(conn, name).status == UNKNOWN
    assert conn.command("RCPT TO:<@route.example:xaver@EXAMPLE.test>").status == UNKNOWN
    assert rcpt(conn, "yann").status == UNKNOWN
    assert rcpt(conn, "zoe").status == CLOSED


def test_a_message_each_counts_for_the_client(guard):
    mx = guard()
    for n in range(9):
        conn = session(mx)
        assert harvest(conn, 1, n) == [UNKNOWN]
        conn.quit()
    assert harvest(session(mx), 1, 9) == [CLOSED]


def test_window(guard):
    """What is older than the window does not count, as posternctl says it."""
    mx = guard(window="1s", threshold=3)
    harvest(session(mx), 2)
    poll(lambda: not mx.control("top")["clients"], "the window to pass")
    conn = session(mx)
    assert harvest(conn, 2, 2) == [UNKNOWN] * 2
    assert not mx.events("harvest")


@pytest.mark.parametrize("served, unknown_then", [(10, 10), (9, 10), (4, 10)])
def test_ratio(guard, served, unknown_then):
    """Half or more unknown: as many served as unknown are half, and no less."""
    mx = guard(trusted_recipients=0, message_threshold=0)
    for name in NAMES[:served]:
        deliver(mx, HOST, name)
    deliver(mx, HOST, NAMES[0])  # again: is not counted again
    statuses = harvest(session(mx), unknown_then)
    assert statuses == [UNKNOWN] * 9 + [CLOSED]


def test_who_is_served_more_than_unknown_is_none(guard):
    mx = guard(threshold=5, trusted_recipients=0, message_threshold=0)
    deliver(mx, HOST, *NAMES)
    conn = session(mx)
    assert harvest(conn, 9) == [UNKNOWN] * 9
    assert not mx.events("harvest")
    assert harvest(conn, 1, 9) == [CLOSED]  # 10 of 20
    assert mx.wait_log("harvest")["ratio"] == "0.50"


def test_accepted_and_not_delivered_recipients_do_not_count(guard):
    """Naming known people is no merit; only what the downstream took is."""
    mx = guard(threshold=5, message_threshold=0)
    conn = session(mx)
    for name in NAMES:
        assert rcpt(conn, name).status == TAKEN
    assert harvest(conn, 5) == [UNKNOWN] * 4 + [CLOSED]


def test_two_workers_count_together(guard):
    mx = guard(workers=2)
    assert become_harvester(mx) == CLOSED
    assert all(is_blocked(mx) for _ in range(6))


# The wider network

@pytest.mark.parametrize("network, hosts, wide, outside", [
    ("198.51.100.0/24", [f"198.51.100.{n}" for n in range(1, 60)], "198.51.100.250", "198.51.101.1"),
    ("2001:db8:1::/48", [f"2001:db8:1:{n:x}::1" for n in range(1, 60)], "2001:db8:1:ffff::1", "2001:db8:2::1")])
def test_threshold_wide(guard, network, hosts, wide, outside):
    """Fifty hosts of a network with one unknown recipient each."""
    mx = guard()
    for n, host in enumerate(hosts[:49]):
        conn = session(mx, host)
        assert harvest(conn, 1, n) == [UNKNOWN]
        conn.close()
    assert not mx.events("harvest") and not is_blocked(mx, wide)
    assert harvest(session(mx, hosts[49]), 1, 49) == [CLOSED]
    event = mx.wait_log("harvest", client=network)
    assert (event["count"], event["action"]) == ("50", "block")
    mx.wait_log("block", client=network, by="harvest")
    assert is_blocked(mx, wide) and is_blocked(mx, hosts[0])
    assert not is_blocked(mx, outside)


def test_threshold_wide_spares_the_trusted(guard):
    mx = guard(threshold_wide=5)
    deliver(mx, HOST, *NAMES)
    for n in range(12):  # what was served counts for the whole of it, too
        conn = connect(mx, f"198.51.100.{n + 20}", ehlo=False)
        if conn.greeting.code == 220:
            conn.ehlo()
            conn.ok("MAIL FROM:<a@example.org>")
            harvest(conn, 1, n)
        conn.close()
    assert is_blocked(mx, "198.51.100.99")
    deliver(mx, HOST, "anna")


def test_one_host_alone_shuts_out_no_neighbour(guard):
    """However many of its sessions were under way when its block began."""
    mx = guard(threshold=3, threshold_wide=6)
    conns = [session(mx) for _ in range(12)]
    replies = [harvest(conn, 1, n)[0] for n, conn in enumerate(conns)]
    assert replies == [UNKNOWN] * 2 + [CLOSED] * 10
    assert is_blocked(mx) and not is_blocked(mx, "198.51.100.8")
    assert [event["client"] for event in mx.events("block")] == [HOST]


def test_tags_are_no_merit(guard):
    """user+tag@ is user@, where that falls back to it: who knows one address has not served many."""
    mx = guard(directory={"plus_addressing": "yes"})
    deliver(mx, HOST, *(f"anna+{n}" for n in range(30)))
    assert become_harvester(mx) == CLOSED
    assert is_blocked(mx)


def test_threshold_wide_off(guard):
    mx = guard(threshold_wide=0, threshold=5)
    for n in range(60):
        conn = session(mx, f"198.51.100.{n + 1}")
        assert harvest(conn, 1, n) == [UNKNOWN]
        conn.close()
    assert not mx.events("harvest")


def test_prefixes(guard):
    """A client is what prefix4 and prefix6 say."""
    mx = guard(prefix4=28, prefix6=56, threshold=3)
    for n, host in enumerate(["198.51.100.1", "198.51.100.14"]):
        harvest(session(mx, host), 1, n)
    assert harvest(session(mx, "198.51.100.16"), 1, 2) == [UNKNOWN]
    assert harvest(session(mx, "198.51.100.5"), 1, 2) == [CLOSED]
    mx.wait_log("block", client="198.51.100.0/28")
    for n in range(2):
        harvest(session(mx, f"2001:db8:0:1{n}::1"), 1, n)
    assert harvest(session(mx, "2001:db8:0:1f::1"), 1, 2) == [CLOSED]
    mx.wait_log("block", client="2001:db8::/56")


# What he gets

def test_reject_lasts_for_the_session(guard):
    mx = guard(action="reject", threshold=3)
    conn = session(mx)
    assert harvest(conn, 3) == [UNKNOWN] * 3
    for name in ("anna", "x0", "new"):
        assert rcpt(conn, name).status == "550 5.7.1"
    assert conn.command("RCPT TO:<a@elsewhere.example>").status == "550 5.7.1"
    assert conn.command("DATA").status == "554 5.7.1"
    conn.ok("RSET")
    conn.ok("MAIL FROM:<b@example.org>")
    assert rcpt(conn, "anna").status == "550 5.7.1"
    conn.send(b"BDAT 3 LAST\r\nX\r\n")
    assert conn.reply().status == "554 5.7.1"
    deliver(mx, HOST, "anna")


def test_disconnect_lasts_for_the_session(guard):
    mx = guard(action="disconnect", threshold=3)
    assert harvest(session(mx), 3) == [UNKNOWN] * 2 + [CLOSED]
    event = mx.wait_log("rcpt", status="4.7.0")
    assert (event["verdict"], event["reason"]) == ("defer", "harvest")  # it is a 4xx
    deliver(mx, HOST, "anna")
    assert mx.wait_log("harvest")["until"] == "session"
    assert not mx.events("block")


def test_a_guess_a_connection_is_tarpitted_too(guard):
    """Who is only disconnected comes back: each guess costs him the delay of an unknown recipient."""
    mx = guard(action="disconnect", threshold=1, tarpit="300ms")
    for guess in range(3):
        conn = session(mx)
        began = time.monotonic()
        assert rcpt(conn, f"x{guess}").status == CLOSED
        assert time.monotonic() - began >= 0.3
        conn.ended()


def test_block_in_place_of_the_greeting_and_at_the_next_mail(guard):
    mx = guard(threshold=3)
    idle, writing = connect(mx), session(mx)
    assert rcpt(writing, "anna").status == TAKEN
    assert harvest(session(mx), 3)[-1] == CLOSED
    assert is_blocked(mx)
    # What had begun may end; what begins may not.
    assert writing.data(CONTENT).status == "250 2.6.0"
    for conn in (idle, writing):
        assert conn.command("NOOP").status == "250 2.0.0"
        assert conn.command("MAIL FROM:<a@example.org>").status == CLOSED
        conn.ended()
    counts = mx.metrics()
    assert sum(n for name, n in counts.items() if name.startswith("postern_connections_refused_total")) == 1
    # The recipient that brought it about, and MAIL twice.
    assert counts['postern_recipients_total{verdict="defer",reason="harvest"}'] == 3


def seconds_until(event):
    return (datetime.fromisoformat(event["until"].replace("Z", "+00:00")).timestamp())


def test_block_doubles_with_repetition(guard):
    mx = guard(threshold=2, block_time="1s", block_time_max="3s")
    lengths = []
    assert harvest(session(mx), 1) == [UNKNOWN]
    for n in range(4):  # the counts stay: each further one is enough
        since = len(mx.log)
        assert harvest(session(mx), 1, n + 1) == [CLOSED]
        event = mx.wait_log("block", client=HOST, since=since)
        block, = mx.control("blocks")["blocks"]
        lengths.append((block["repeats"], seconds_until(event) - time.time()))
        mx.wait_log("unblock", client=HOST, by="expiry", since=since)
        assert not is_blocked(mx)
    assert [repeats for repeats, _ in lengths] == [0, 1, 2, 3]
    # `until` is a whole second, and so is the clock that blocks end by.
    assert all(wanted - 1.5 < length <= wanted + 1 for (_, length), wanted in zip(lengths, [1, 2, 3, 3])), lengths


def test_blind(guard):
    """Known and unknown look the same, in every session, and until the block ends."""
    mx = guard(action="blind", threshold=3, block_time="2s")
    conn, parallel = session(mx), session(mx)
    assert rcpt(parallel, "ben").status == TAKEN
    assert harvest(conn, 3) == [UNKNOWN] * 3
    assert rcpt(parallel, "anna").status == LATER
    mx.wait_log("rcpt", to="<x2@example.test>")
    since = len(mx.log)
    answers = {str(rcpt(conn, name)).replace(name, "NAME") for name in ("anna", "x0", "new", "postmaster", "ben")}
    answers |= {str(conn.command("RCPT TO:<a@elsewhere.example>")).replace("a@elsewhere.example", "NAME@example.test")}
    assert len(answers) == 1 and answers.pop().startswith(LATER)
    assert conn.command("DATA").code == 554
    assert rcpt(session(mx), "anna").status == LATER
    assert rcpt(session(mx, sender=""), "anna").status == LATER
    assert not is_blocked(mx)
    mx.wait_log("unblock", client=HOST, by="expiry")
    reasons = {e["reason"] for e in list(mx.log)[since:] if e["event"] == "rcpt"}
    assert reasons == {"blind"}
    conn.ok("RSET")
    deliver(mx, HOST, "anna")


def test_blind_delays_all_alike(guard):
    mx = guard(action="blind", threshold=2, tarpit="40ms", message_threshold=0)
    conn = session(mx)
    harvest(conn, 2)
    mx.wait_log("rcpt", to="<x1@example.test>")
    since = len(mx.log)
    for name in ("anna", "x0", "new"):
        rcpt(conn, name)
    mx.wait_log("rcpt", to="<new@example.test>", since=since)
    assert {e["delay"] for e in list(mx.log)[since:] if e["event"] == "rcpt"} == {"0.040"}


@pytest.mark.parametrize("action", ["reject", "disconnect", "block", "blind"])
def test_null_sender_is_counted_apart(guard, action):
    mx = guard(action=action, threshold=3, message_threshold=0)
    conn = session(mx, sender="")
    assert harvest(conn, 3) == [UNKNOWN] * 3
    event = mx.wait_log("harvest", client=HOST)
    assert event["count"] == "3"
    for name in ("anna", "x0", "new"):
        assert rcpt(conn, name).status == LATER
    conn.ok("RSET")
    conn.ok("MAIL FROM:<a@example.org>")
    assert rcpt(conn, "anna").status == TAKEN
    assert harvest(conn, 2, 10) == [UNKNOWN] * 2
    assert rcpt(conn, "anna").status == TAKEN
    assert conn.data(CONTENT).status == "250 2.6.0"
    other = session(mx, sender="")
    # As long as the action would: for the session, or for block_time.
    assert rcpt(other, "anna").status == (LATER if action in ("block", "blind") else TAKEN)
    assert not is_blocked(mx)


def test_both_counts_do_not_add_up(guard):
    mx = guard(threshold=4, message_threshold=0)
    harvest(session(mx, sender=""), 3)
    assert harvest(session(mx), 3, 3) == [UNKNOWN] * 3
    assert not mx.events("harvest")
    assert harvest(session(mx), 1, 6) == [CLOSED]


def test_trap_makes_a_harvester_at_once(guard):
    """Whether the directory has it or not."""
    mx = guard(traps="trap@example.test, ANNA@example.test")
    for host, name in ((HOST, "trap"), ("198.51.100.8", "Anna")):
        conn = session(mx, host)
        assert rcpt(conn, name).status == CLOSED
        conn.ended()
        mx.wait_log("block", client=host, by="trap")
        assert is_blocked(mx, host)
    assert not is_blocked(mx, "198.51.100.9")


# Who is spared

def test_allow(guard):
    mx = guard(allow="198.51.100.0/25, 2001:db8::/32", threshold=2, tarpit="30s", traps="trap@example.test")
    for host in (HOST, "2001:db8:9::1"):
        conn = session(mx, host)
        assert harvest(conn, 20) == [UNKNOWN] * 20
        assert rcpt(conn, "trap").status == UNKNOWN
        assert rcpt(conn, "anna").status == TAKEN
        assert conn.data(CONTENT + host.encode() + b"\r\n").status == "250 2.6.0"
    assert not mx.events("harvest")


def test_allowed_neighbours_do_not_count_for_the_wider_network(guard):
    mx = guard(allow="198.51.100.0/25", threshold_wide=5, threshold=4)
    harvest(session(mx), 20)
    assert harvest(session(mx, "198.51.100.200"), 3, 20) == [UNKNOWN] * 3
    assert not mx.events("harvest")


@pytest.mark.parametrize("action", ["block", "blind"])
def test_trusted_recipients(guard, action):
    """Ten distinct ones make a client trusted: a newsletter is disconnected, and may come again."""
    mx = guard(action=action, ratio="0.1", message_threshold=0)
    for name in NAMES[:9]:
        deliver(mx, HOST, name)
    deliver(mx, "198.51.100.8", *NAMES)
    assert harvest(session(mx, "198.51.100.8"), 10) == [UNKNOWN] * 9 + [CLOSED]
    event = mx.wait_log("harvest", client="198.51.100.8")
    assert (event["action"], event["until"]) == ("disconnect", "session")
    assert rcpt(session(mx, "198.51.100.8"), "anna").status == TAKEN
    # Nine are not ten.
    last = harvest(session(mx), 10)[-1]
    assert last == (CLOSED if action == "block" else UNKNOWN)
    assert mx.wait_log("harvest", client=HOST)["action"] == action


PRIVATE = ["10.1.2.3", "172.16.9.9", "192.168.0.1", "169.254.3.4", "127.0.0.99", "fe80::1", "fd00:1::1", "::1"]


def test_private_addresses_are_at_most_disconnected(guard):
    mx = guard(threshold=2)
    for client in PRIVATE:
        assert harvest(session(mx, client), 2) == [UNKNOWN, CLOSED]
        assert not is_blocked(mx, client)
    mx.wait_log("harvest", client="::/64")
    events = mx.events("harvest")
    assert [e["action"] for e in events] == ["disconnect"] * len(PRIVATE)
    assert all("private" in e.text for e in events)


def test_block_private(guard):
    mx = guard(threshold=2, block_private="yes")
    for client in PRIVATE:
        assert harvest(session(mx, client), 2) == [UNKNOWN, CLOSED]
        assert is_blocked(mx, client)


def test_abuse_and_postmaster_are_never_counted(guard):
    mx = guard(threshold=2, message_threshold=2)
    conn = session(mx)
    for _ in range(5):
        assert rcpt(conn, "postmaster").status == TAKEN
        assert rcpt(conn, "abuse").status == UNKNOWN
        assert rcpt(conn, "ABUSE").status == UNKNOWN
    assert conn.command("RCPT TO:<postmaster>").status == TAKEN
    assert harvest(conn, 1) == [UNKNOWN]
    assert not mx.events("harvest")
    assert conn.data(CONTENT).status == "250 2.6.0"


def test_only_a_no_counts(guard):
    """Refused for another reason is not unknown."""
    mx = guard(threshold=2, message_threshold=2)
    conn = session(mx)
    for n in range(5):
        assert conn.command(f"RCPT TO:<x{n}@elsewhere.example>").status == "550 5.7.1"
        assert conn.command(f"RCPT TO:<x{n}..@example.test").status == "501 5.1.3"
    assert rcpt(conn, "anna").status == TAKEN
    assert conn.data(CONTENT).status == "250 2.6.0"
    assert not mx.events("harvest")


# One message

@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_message_threshold(guard, by):
    mx = guard()
    conn = session(mx)
    assert rcpt(conn, "anna").status == TAKEN
    assert harvest(conn, 2) == [UNKNOWN] * 2
    assert rcpt(conn, "ben").status == TAKEN  # 2 of 4: half
    if by == "DATA":
        reply = conn.command("DATA")
    else:
        conn.send(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        reply = conn.reply()
    assert reply.status == "554 5.7.1"
    assert conn.command("MAIL FROM:<a@example.org>").status == "250 2.1.0"
    mx.wait_log("message", client=HOST, status="5.7.1")
    assert not mx.exchange.transactions() and not mx.events("harvest")


def test_message_threshold_spares_who_writes_to_more_known(guard):
    conn = session(guard())
    harvest(conn, 2)
    for name in NAMES[:3]:
        assert rcpt(conn, name).status == TAKEN  # 2 of 5
    assert conn.data(CONTENT).status == "250 2.6.0"


def test_message_threshold_counts_the_message_only(guard):
    mx = guard()
    for n in range(4):
        conn = session(mx)
        assert harvest(conn, 1, n) == [UNKNOWN]
        assert rcpt(conn, "anna").status == TAKEN
        assert conn.data(CONTENT + b"%d\r\n" % n).status == "250 2.6.0"
        conn.quit()


def test_message_threshold_off(guard):
    conn = session(guard(message_threshold=0))
    harvest(conn, 5)
    assert rcpt(conn, "anna").status == TAKEN
    assert conn.data(CONTENT).status == "250 2.6.0"


# At DATA

def test_stage_data(guard):
    """RCPT tells nothing, DATA nothing of whom: and yet it counts."""
    mx = guard(stage="data", message_threshold=0, threshold=3)
    conn = session(mx)
    for name in ("anna", "x1", "x2"):
        assert rcpt(conn, name).status == TAKEN
    assert conn.command("DATA").status == UNKNOWN
    conn.ok("RSET")
    conn.envelope("a@example.org", "anna@example.test")
    assert conn.data(CONTENT).status == "250 2.6.0"
    conn.ok("MAIL FROM:<a@example.org>")
    assert rcpt(conn, "x3").status == CLOSED
    conn.ended()
    mx.wait_log("harvest", client=HOST, count=3)


def test_stage_data_is_tarpitted_there(guard):
    mx = guard(stage="data", message_threshold=0, threshold=100, tarpit="30s", tarpit_max="30s")
    conn = session(mx)
    assert rcpt(conn, "x1").status == TAKEN
    conn.send("DATA\r\nNOOP\r\n")
    other = session(mx, "198.51.100.8")
    assert rcpt(other, "anna").status == TAKEN
    poll(lambda: mx.metrics()["postern_tarpitted"] == 1, "the tarpit")
    conn.silent()


def test_stage_data_does_not_tell_a_size_either(guard):
    """What a recipient takes is known of recipients only."""
    mx = guard(stage="data", message_threshold=0)
    conn = connect(mx)
    conn.ok("MAIL FROM:<a@example.org> SIZE=1000")
    assert rcpt(conn, "x1").status == TAKEN
    conn.send(b"BDAT 3 LAST\r\nX\r\n")
    assert conn.reply().status == UNKNOWN


# The tarpit

def test_tarpit_keeps_the_order(guard):
    mx = guard(tarpit="20ms", tarpit_max="50ms", threshold=100, message_threshold=0)
    conn = session(mx)
    replies = conn.pipeline(*(f"RCPT TO:<{name}@example.test>" for name in ("x1", "anna", "x2", "x3", "ben", "x4")), "NOOP")
    assert [r.code for r in replies] == [550, 250, 550, 550, 250, 550, 250]
    mx.wait_log("rcpt", to="<x4@example.test>")
    assert [e["delay"] for e in mx.events("rcpt")] == ["0.020", "0.000", "0.040", "0.050", "0.000", "0.050"]


def test_max_tarpitted(guard):
    mx = guard(tarpit="30s", tarpit_max="30s", max_tarpitted=2, threshold=100)
    held = [session(mx, f"198.51.100.{n}") for n in range(2)]
    for conn in held:
        conn.send("RCPT TO:<x@example.test>\r\n")
    poll(lambda: mx.metrics()["postern_tarpitted"] == 2, "two in the tarpit")
    assert harvest(session(mx, "198.51.100.9"), 3) == [UNKNOWN] * 3
    for conn in held:
        conn.silent()
    held[0].reset()
    poll(lambda: mx.metrics()["postern_tarpitted"] == 1, "one in the tarpit")


# Monitor

def test_monitor_gives_nothing(guard):
    mx = guard(server={"monitor": "yes"}, threshold=3, traps="trap@example.test", tarpit="30s", tarpit_max="30s")
    conn = session(mx)
    assert harvest(conn, 6) == [TAKEN] * 6
    assert rcpt(conn, "trap").status == TAKEN
    assert rcpt(conn, "anna").status == TAKEN
    assert conn.data(CONTENT).status == "250 2.6.0"
    assert not is_blocked(mx)
    event = mx.wait_log("rcpt", to="<x0@example.test>")
    assert (event["verdict"], event["status"], event["reason"]) == ("would-reject", "5.1.1", "unknown")
    assert mx.wait_log("rcpt", to="<anna@example.test>")["verdict"] == "would-reject"
    assert mx.wait_log("harvest", client=HOST)["action"] == "block"
    assert mx.metrics()['postern_recipients_total{verdict="would-reject",reason="unknown"}'] >= 3


def test_monitor_tells_of_a_message_that_would_be_refused(guard):
    mx = guard(server={"monitor": "yes"})
    conn = session(mx)
    for _ in range(3):
        assert harvest(conn, 2) == [TAKEN] * 2
    assert rcpt(conn, "anna").status == TAKEN
    assert mx.wait_log("rcpt", to="<anna@example.test>")["verdict"] == "accept"
    assert conn.data(CONTENT).status == "250 2.6.0"
    mx.wait_log("rcpt", to="<anna@example.test>", verdict="would-reject", reason="harvest", status="5.7.1")


def test_monitor_ends(guard):
    """A block that was none does not become one."""
    mx = guard(server={"monitor": "yes"}, threshold=2)
    harvest(session(mx), 3)
    mx.wait_log("harvest", client=HOST)
    mx.write_config({"server": {"monitor": "no"}})
    mx.reload()
    assert not is_blocked(mx)


# A dictionary

def test_pipelined_dictionary_learns_nothing(guard):
    """A thousand guesses in one write, the known ones behind the tenth: none of them is told."""
    mx = guard()
    conn = connect(mx)
    guesses = [f"guess{n}" for n in range(20)] + list(NAMES) + [f"guess{n}" for n in range(20, 1000)]
    conn.send("MAIL FROM:<a@example.org>\r\n" + "".join(f"RCPT TO:<{name}@example.test>\r\n" for name in guesses))
    assert conn.reply().code == 250
    statuses = []
    while not statuses or statuses[-1] == UNKNOWN:
        statuses.append(conn.reply().status)
    assert statuses == [UNKNOWN] * 9 + [CLOSED]
    conn.ended()
    assert is_blocked(mx)


def test_dictionary_over_parallel_sessions(guard):
    """Sessions that are open already do not get a threshold each."""
    mx = guard(workers=2)
    conns = [session(mx) for _ in range(20)]
    statuses = []
    for n, conn in enumerate(conns):
        conn.ok("RSET")
        reply = conn.command("MAIL FROM:<a@example.org>")
        statuses.append(rcpt(conn, f"x{n}").status if reply.code == 250 else reply.status)
    assert statuses == [UNKNOWN] * 9 + [CLOSED] * 11


# Restarts

def test_blocks_outlive_a_crash(guard):
    mx = guard()
    assert become_harvester(mx) == CLOSED
    until = mx.wait_log("block", client=HOST)["until"]
    mx.save()
    mx.crash()
    assert is_blocked(mx)
    block, = [b for b in mx.control("blocks")["blocks"] if b["network"] != mx.SAVED]
    assert (block["network"], block["by"]) == (HOST, "harvest")
    assert abs(block["until"] - seconds_until({"until": until})) <= 1


def test_counts_outlive_a_crash(guard):
    mx = guard()
    conn = session(mx)
    assert harvest(conn, 9) == [UNKNOWN] * 9
    mx.save()
    mx.crash()
    conn = session(mx)
    assert harvest(conn, 9) == [UNKNOWN] * 9  # the same ones
    assert harvest(conn, 1, 9) == [CLOSED]


def test_merits_and_repetitions_outlive_a_crash(guard):
    mx = guard(threshold=2, block_time="1s", ratio="0.1")
    deliver(mx, "198.51.100.8", *NAMES)
    assert harvest(session(mx), 2)[-1] == CLOSED
    mx.wait_log("unblock", client=HOST)
    mx.save()
    mx.crash()
    assert harvest(session(mx), 1, 2) == [CLOSED]
    assert next(b for b in mx.control("blocks")["blocks"] if b["network"] == HOST)["repeats"] == 1
    assert harvest(session(mx, "198.51.100.8"), 2)[-1] == CLOSED
    assert not is_blocked(mx, "198.51.100.8")
