"""Directory harvesting: counting, and what is done about it."""

import pytest

from conftest import CONTENT

PEER = "127.0.0.10"
CLOSED = "421 4.7.0"
UNKNOWN = "550 5.1.1"


@pytest.fixture
def guard(exchange, postern):
    """A Postern whose clients on loopback are strangers like any other."""
    def start(recipients=("anna@example.test", "ben@example.test", "carl@example.test", "dora@example.test"), **keys):
        downstream = exchange()
        one = postern(downstream, recipients=recipients, settings={"harvest": {
            "allow": "", "block_private": "yes", "tarpit": "0s", "message_threshold": 0, **keys}})
        one.exchange = downstream
        return one
    return start


def session(mx, sender="a@example.org", source=PEER):
    client = mx.client(source=source)
    client.ok(f"MAIL FROM:<{sender}>")
    return client


def rcpt(client, name):
    return client.command(f"RCPT TO:<{name}@example.test>")


def harvest(client, count, first=0):
    return [rcpt(client, f"x{n}").status for n in range(first, first + count)]


# One message

def test_message_threshold(guard):
    client = session(mx := guard(message_threshold=2, threshold=100))
    assert harvest(client, 2) == [UNKNOWN] * 2
    assert rcpt(client, "anna").status == "250 2.1.5"
    assert client.command("DATA").status == "554 5.7.1"
    client.ok("RSET")
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_message_threshold_by_bdat(guard):
    client = session(guard(message_threshold=2, threshold=100))
    harvest(client, 2)
    rcpt(client, "anna")
    client.send(b"BDAT 6 LAST\r\nNOOP\r\n")
    assert client.reply().status == "554 5.7.1"
    assert client.command("NOOP").code == 250


def test_message_threshold_needs_the_ratio_too(guard):
    client = session(guard(message_threshold=2, threshold=100))
    harvest(client, 2)
    for name in ("anna", "ben", "carl"):
        assert rcpt(client, name).code == 250
    assert client.data(CONTENT).status == "250 2.6.0"


def test_message_threshold_counts_distinct_recipients(guard):
    client = session(guard(message_threshold=2, threshold=100))
    for name in ("x", "X", "x"):
        assert rcpt(client, name).status == UNKNOWN
    rcpt(client, "anna")
    assert client.data(CONTENT).status == "250 2.6.0"


# A client

def test_below_the_threshold(guard):
    mx = guard(threshold=5)
    client = session(mx)
    assert harvest(client, 4) == [UNKNOWN] * 4
    for _ in range(5):
        assert rcpt(client, "x1").status == UNKNOWN  # the same again does not count again
    assert rcpt(client, "anna").code == 250
    assert not mx.events("harvest")


def test_reject(guard):
    mx = guard(threshold=5, action="reject")
    client = session(mx)
    assert harvest(client, 5) == [UNKNOWN] * 5
    mx.wait_log("harvest", client=PEER, action="reject", count=5)
    for name in ("anna", "x9", "x1"):
        assert rcpt(client, name).status == "550 5.7.1"
    assert client.command("DATA").status == "554 5.7.1"
    client.ok("RSET")
    client.ok("MAIL FROM:<b@example.org>")
    assert rcpt(client, "anna").status == "550 5.7.1"
    assert not mx.exchange.transactions()


def test_reject_refuses_data_of_recipients_accepted_before(guard):
    client = session(mx := guard(threshold=3, action="reject"))
    assert rcpt(client, "anna").code == 250
    harvest(client, 3)
    assert client.command("DATA").status == "554 5.7.1"
    assert not mx.exchange.transactions()


def closing(client, count):
    """The client is told so at its last unknown recipient, or at whatever comes next."""
    statuses = harvest(client, count)
    if statuses[-1] == UNKNOWN:
        statuses.append(rcpt(client, "anna").status)
    assert statuses == [UNKNOWN] * (len(statuses) - 1) + [CLOSED]
    client.ended()


def test_disconnect(guard):
    mx = guard(threshold=5, action="disconnect")
    closing(session(mx), 5)
    mx.wait_log("harvest", client=PEER, action="disconnect")
    assert mx.client(source=PEER).command("NOOP").code == 250


def test_block(guard):
    mx = guard(threshold=5, action="block")
    other = session(mx)
    idle = mx.client(source=PEER)
    closing(session(mx), 5)
    mx.wait_log("harvest", client=PEER, action="block")
    mx.wait_log("block", client=PEER, by="harvest")
    refused = mx.client(source=PEER, ehlo=False)
    assert refused.greeting.status == CLOSED
    refused.ended()
    # Its other sessions hear of it at their next MAIL.
    assert other.command("RSET").code == 250
    for client in (other, idle):
        assert client.command("MAIL FROM:<a@example.org>").status == CLOSED
        client.ended()
    assert mx.client(source="127.0.0.11").greeting.code == 220


def test_block_ends(guard):
    mx = guard(threshold=2, action="block", block_time="300ms")
    closing(session(mx), 2)
    mx.wait_log("unblock", client=PEER, by="expiry")
    assert mx.client(source=PEER).greeting.code == 220


def test_block_outlives_a_restart(guard):
    mx = guard(threshold=2, action="block")
    closing(session(mx), 2)
    mx.wait_log("block", client=PEER)
    mx.stop()
    mx.start()
    assert mx.client(source=PEER, ehlo=False).greeting.status == CLOSED


def test_counts_across_sessions(guard):
    mx = guard(threshold=6, action="disconnect")
    for first in (0, 2):
        client = session(mx)
        assert harvest(client, 2, first) == [UNKNOWN] * 2
        client.quit()
    client = session(mx)
    statuses = harvest(client, 2, 4)
    if statuses[-1] == UNKNOWN:
        statuses.append(rcpt(client, "anna").status)
    assert statuses[-1] == CLOSED


def test_counts_pipelined_recipients(guard):
    """A hundred in one write do not slip under the limit."""
    mx = guard(threshold=5, action="disconnect")
    client = session(mx)
    client.send("".join(f"RCPT TO:<x{n}@example.test>\r\n" for n in range(100)))
    statuses = []
    while not statuses or statuses[-1] == UNKNOWN:
        statuses.append(client.reply().status)
    assert statuses[-1] == CLOSED and len(statuses) in (5, 6)
    client.ended()


def test_counts_over_two_workers(exchange, postern):
    mx = postern(exchange(), settings={"server": {"workers": 2}, "harvest": {
        "allow": "", "block_private": "yes", "tarpit": "0s", "threshold": 8, "action": "block", "message_threshold": 0}})
    statuses = []
    for n in range(10):
        client = mx.client(source=PEER, ehlo=False)
        if client.greeting.code == 220:
            client.ehlo()
            reply = client.command("MAIL FROM:<a@example.org>")
            if reply.code == 250:
                reply = rcpt(client, f"x{n}")
            statuses.append(reply.status)
    assert statuses.count(UNKNOWN) in (7, 8)


def test_ratio_spares_who_delivers(guard):
    """As many delivered as unknown is a mailing list with old addresses, not a harvester."""
    mx = guard(threshold=3, ratio="0.6", action="disconnect", trusted_recipients=0)
    client = session(mx)
    client.ok("RSET")
    names = [f"{name}@example.test" for name in ("anna", "ben", "carl", "dora")]
    assert client.deliver(CONTENT, *names).code == 250
    client.ok("MAIL FROM:<a@example.org>")
    assert harvest(client, 5) == [UNKNOWN] * 5  # 5 of 9: below 0.6
    assert not mx.events("harvest")
    statuses = harvest(client, 1, 5)  # 6 of 10
    if statuses[-1] == UNKNOWN:
        statuses.append(rcpt(client, "anna").status)
    assert statuses[-1] == CLOSED


def test_trusted_recipients(guard):
    mx = guard(threshold=3, ratio="0.1", action="block", trusted_recipients=2)
    client = session(mx)
    client.ok("RSET")
    assert client.deliver(CONTENT, "anna@example.test", "ben@example.test").code == 250
    client.ok("MAIL FROM:<a@example.org>")
    closing(client, 3)
    assert mx.client(source=PEER).greeting.code == 220
    assert not mx.events("block")


def test_private_addresses_are_only_disconnected(guard):
    mx = guard(threshold=3, action="block", block_private="no")
    closing(session(mx), 3)
    event = mx.wait_log("harvest", client=PEER)
    assert event["action"] == "disconnect"
    assert mx.client(source=PEER).greeting.code == 220


def test_allowed_clients_are_not_counted(guard):
    mx = guard(threshold=2, message_threshold=2, action="block", allow="127.0.0.0/28")
    client = session(mx)
    assert harvest(client, 20) == [UNKNOWN] * 20
    assert rcpt(client, "anna").code == 250
    assert client.data(CONTENT).code == 250
    closing(session(mx, source="127.0.0.16"), 2)


def test_disabled(guard):
    client = session(mx := guard(threshold=2, message_threshold=2, enabled="no"))
    assert harvest(client, 20) == [UNKNOWN] * 20
    assert rcpt(client, "anna").code == 250
    assert client.data(CONTENT).code == 250
    assert not mx.events("harvest")


def test_what_does_not_count(guard):
    """Syntax, relaying, postmaster and abuse are no guesses at who is here."""
    mx = guard(threshold=2, action="disconnect")
    client = session(mx)
    for _ in range(3):
        for path, code in [("<>", 501), ("<a@example.org>", 550), ("<b@example.org>", 550), ("<c@example.org>", 550),
                           ("<postmaster@example.test>", 250), ("<abuse@example.test>", 550)]:
            assert client.command(f"RCPT TO:{path}").code == code
    assert harvest(client, 1) == [UNKNOWN]
    assert not mx.events("harvest")


def test_null_sender_is_counted_apart(guard):
    """Bounces of forged mail come from innocent hosts: only their own kind is put off."""
    mx = guard(threshold=3, action="block")
    client = session(mx, sender="")
    assert harvest(client, 3) == [UNKNOWN] * 3
    assert rcpt(client, "anna").status == "450 4.7.1"
    client.ok("RSET")
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert mx.client(source=PEER).greeting.code == 220


def test_trap(guard):
    mx = guard(threshold=100, action="block", traps="trap@example.test")
    client = session(mx)
    statuses = [rcpt(client, "trap").status]
    if statuses[-1] != CLOSED:
        statuses.append(rcpt(client, "anna").status)
    assert statuses[-1] == CLOSED
    mx.wait_log("block", client=PEER, by="trap")


def test_blind(guard):
    mx = guard(threshold=3, action="blind")
    client = session(mx)
    assert harvest(client, 3) == [UNKNOWN] * 3
    known, unknown = rcpt(client, "anna"), rcpt(client, "x9")
    assert known == unknown
    assert known.status == "450 4.7.1"
    assert rcpt(session(mx), "anna").status == "450 4.7.1"


# Delays

def test_tarpit_keeps_the_order_and_stalls_nobody_else(guard):
    mx = guard(tarpit="30s", tarpit_max="30s", threshold=100)
    slow = session(mx)
    slow.send("RCPT TO:<x@example.test>\r\nNOOP\r\n")
    other = mx.client(source="127.0.0.11")
    assert other.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert other.command("NOOP").code == 250
    slow.silent()


def test_tarpit_delays_only_the_unknown(guard):
    mx = guard(tarpit="50ms", threshold=100)
    client = session(mx)
    replies = client.pipeline("RCPT TO:<anna@example.test>", "RCPT TO:<x1@example.test>", "NOOP",
                              "RCPT TO:<x2@example.test>", "RCPT TO:<ben@example.test>", "RSET")
    assert [r.code for r in replies] == [250, 550, 250, 550, 250, 250]
    mx.wait_log("rcpt", to="<ben@example.test>")
    delays = [event["delay"] for event in mx.events("rcpt")]
    assert [float(d.rstrip("ms")) > 0 for d in delays] == [False, True, True, False]


def test_max_tarpitted(guard):
    mx = guard(tarpit="30s", tarpit_max="30s", max_tarpitted=1, threshold=100)
    slow = session(mx)
    slow.send("RCPT TO:<x@example.test>\r\n")
    mx.wait_log("connect")
    # Once the first is held, the second is answered at once.
    client = session(mx, source="127.0.0.11")
    assert rcpt(client, "y").status == UNKNOWN
    slow.silent()


def test_client_gone_from_the_tarpit(guard):
    mx = guard(tarpit="300ms", threshold=100)
    client = session(mx)
    client.send("RCPT TO:<x@example.test>\r\n")
    mx.client(source="127.0.0.11").quit()
    client.reset()
    mx.clients.remove(client)
    mx.wait_log("close", client=PEER)


# Stage

def test_stage_data(guard):
    mx = guard(stage="data", threshold=100, message_threshold=0)
    client = session(mx)
    assert rcpt(client, "x").status == "250 2.1.5"
    assert rcpt(client, "anna").status == "250 2.1.5"
    reply = client.command("DATA")
    assert reply.status == UNKNOWN
    client.ok("RSET")
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_the_delay_of_a_refused_chunk_is_not_the_next_one_s(exchange, postern):
    """What follows is refused at once; held back it would be lost, as max_errors ends the session meanwhile."""
    mx = postern(exchange(), settings={"server": {"max_errors": 1}, "harvest": {
        "stage": "data", "allow": "", "block_private": "yes", "message_threshold": 0, "tarpit": "100ms"}})
    client = session(mx)
    rcpt(client, "x")
    client.send(b"BDAT 4\r\nabcdBDAT 4\r\nabcd")
    assert [client.reply().status for _ in range(3)] == [UNKNOWN, "503 5.5.1", "421 4.7.0"]


def test_stage_data_by_bdat(guard):
    client = session(guard(stage="data", threshold=100))
    rcpt(client, "x")
    client.send(b"BDAT 6 LAST\r\nNOOP\r\n")
    assert client.reply().status == UNKNOWN
    assert client.command("NOOP").code == 250
