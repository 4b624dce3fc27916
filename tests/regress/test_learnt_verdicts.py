"""What the downstream's refusals teach: drift, marks, fewer recipients at once; and messages it had before."""

import tempfile

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers
from harness.journal import poll

NAMES = ("anna", "ben", "carl", "dora", "eva", "finn", "gero", "hans")
NOBODY = "550 5.1.1 User unknown"
LATE = "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required"


def address(name):
    return f"{name}@example.test"


@pytest.fixture
def pair(exchange, postern):
    """Call it with changes to the settings for a Postern that knows NAMES."""
    def start(settings=None, **keys):
        downstream = exchange(**keys)
        one = postern(downstream, recipients=map(address, NAMES), settings=settings)
        one.exchange = downstream
        return one
    return start


@pytest.fixture
def mx(pair):
    return pair()


def deliver(mx, *names, content=CONTENT, sender="sender@example.org"):
    client = mx.client()
    reply = client.attempt(content, *map(address, names), sender=sender)
    client.close()
    return reply.status


def refuse(mx, *names, answer=NOBODY, verb="RCPT"):
    mx.exchange.on(verb, faults.for_argument("|".join(names), faults.reply(answer)))


def rcpt(mx, name, sender="sender@example.org"):
    return mx.rcpt(address(name), sender).status


def is_marked(mx, name):
    return mx.control("lookup", address(name))["marked"]


# Drift

@pytest.mark.parametrize("verb", ["RCPT", "EOD"])
@pytest.mark.parametrize("answer, drifts", [
    (NOBODY, True), ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found", True), ("550 5.1.3 bad address", True),
    ("550 5.7.1 no", False), ("552 5.2.2 mailbox full", False), ("450 4.1.1 unknown just now", False),
    ("550 5.1.7 bad sender", False), ("550 5.1.8 bad sender", False), ("550 no", False)])
def test_drift(mx, verb, answer, drifts):
    mx.exchange.on(verb, faults.reply(answer))
    assert deliver(mx, "anna").startswith(answer[:3])
    mx.wait_log("close")
    events = mx.events("drift")
    assert [(e["to"], e["downstream"], e["status"]) for e in events] == (
        [("<anna@example.test>", "exchange", answer.split()[1])] if drifts else [])
    if drifts:  # and what that mostly means, as the last pair
        assert list(events[0].items())[-1] == ("cause", mx.control("explain", answer)["cause"])
    assert mx.metrics()["postern_drift_total"] == drifts


def test_drift_of_each_recipient(mx):
    refuse(mx, "anna", "carl")
    assert deliver(mx, "anna", "ben", "carl") == "451 4.5.0"
    mx.wait_log("close")
    assert [e["to"] for e in mx.events("drift")] == ["<anna@example.test>", "<carl@example.test>"]
    assert mx.metrics()["postern_drift_total"] == 2


@pytest.mark.parametrize("who", ["any", "downstream"])
def test_no_drift_of_whom_the_directory_never_knew(pair, who):
    """Nor is it one that the downstream knew a moment ago, and is remembered for it."""
    mx = pair({"domain example.test": {"recipients": who}})
    assert mx.rcpt("zoe@example.test").status == "250 2.1.5"
    refuse(mx, "zoe")
    assert deliver(mx, "zoe") == "550 5.1.1"
    assert not mx.events("drift") and mx.metrics()["postern_drift_total"] == 0


# Marks

def test_who_is_refused_of_several_is_marked(mx):
    refuse(mx, "ben", "carl", answer="450 4.2.1 busy")
    assert deliver(mx, "anna", "ben", "carl") == "451 4.5.0"
    assert [is_marked(mx, name) for name in ("anna", "ben", "carl")] == [False, True, True]


def test_all_refused_are_all_marked(mx):
    mx.exchange.on("RCPT", faults.reply(NOBODY))
    assert deliver(mx, "anna", "ben") == "550 5.1.1"
    assert is_marked(mx, "anna") and is_marked(mx, "ben")


def test_the_only_recipient_is_not_marked(mx):
    refuse(mx, "anna")
    assert deliver(mx, "anna") == "550 5.1.1"
    assert not is_marked(mx, "anna")


@pytest.mark.parametrize("answer", ["450 4.2.1 busy", "550 5.7.1 not you", "552 5.2.2 full"])
def test_a_marked_recipient_s_answer_is_the_downstream_s(mx, answer):
    """Whatever it is now, for this sender; and no longer than it says so."""
    refuse(mx, "ben")
    deliver(mx, "anna", "ben")
    refuse(mx, "ben", answer=answer)
    assert rcpt(mx, "ben") == " ".join(answer.split()[:2])
    mx.wait_log("rcpt", to="<ben@example.test>", source="downstream")
    assert is_marked(mx, "ben")
    mx.exchange.usual()
    assert rcpt(mx, "ben") == "250 2.1.5"
    assert not is_marked(mx, "ben")


def test_a_sender_beyond_ascii_asks_with_smtputf8(mx):
    refuse(mx, "ben")
    deliver(mx, "anna", "ben")
    mx.exchange.usual()
    mx.exchange.on("MAIL", lambda step: None if step.argument.isascii() or "SMTPUTF8" in step.argument else "553 5.6.7 no")
    client = mx.client()
    client.ok("MAIL FROM:<sénder@example.org> SMTPUTF8")
    assert client.command("RCPT TO:<ben@example.test>").status == "250 2.1.5"


def test_a_mark_shuts_nobody_out(mx):
    """A stranger's refused message is of no consequence to another's."""
    mx.exchange.on("RCPT", lambda step: NOBODY if "bad@" in step.connection.mail and "ben" in step.argument else None)
    assert deliver(mx, "anna", "ben", sender="bad@example.org") == "451 4.5.0"
    assert is_marked(mx, "ben")
    assert deliver(mx, "ben", sender="good@example.org") == "250 2.6.0"
    assert not is_marked(mx, "ben")


def test_forget_takes_the_mark_off(mx):
    refuse(mx, "ben")
    deliver(mx, "anna", "ben")
    assert mx.control("forget", "ben@example.test")["was_marked"] is True
    questions = mx.exchange.count("RCPT")
    assert rcpt(mx, "ben") == "250 2.1.5"
    assert mx.exchange.count("RCPT") == questions


def test_refusal_memory(pair):
    mx = pair({"downstream exchange": {"refusal_memory": "1s"}})
    refuse(mx, "ben")
    deliver(mx, "anna", "ben")
    poll(lambda: not is_marked(mx, "ben"), "the mark to fade")
    questions = mx.exchange.count("RCPT")
    assert rcpt(mx, "ben") == "250 2.1.5"
    assert mx.exchange.count("RCPT") == questions


def test_marks_outlive_a_crash(mx):
    refuse(mx, "ben")
    deliver(mx, "anna", "ben")
    mx.save()
    mx.crash()
    assert is_marked(mx, "ben")
    assert rcpt(mx, "ben") == "550 5.1.1"


# Fewer at once

def taken(mx, names, sender="sender@example.org"):
    """Whom of NAMES a transaction takes, in their order; the others must hear 452 4.5.3."""
    client = mx.client()
    client.ok(f"MAIL FROM:<{sender}>")
    replies = client.pipeline(*(f"RCPT TO:<{address(name)}>" for name in names))
    assert {reply.status for reply in replies} <= {"250 2.1.5", "452 4.5.3"}
    client.close()
    return [name for name, reply in zip(names, replies) if reply.code == 250]


def test_halved_again_at_each_refusal(mx):
    mx.exchange.on("EOD", faults.reply(LATE))
    assert deliver(mx, *NAMES) == "451 4.5.0"
    assert taken(mx, NAMES) == list(NAMES[:4])
    assert deliver(mx, *NAMES[:4]) == "451 4.5.0"
    assert taken(mx, NAMES) == list(NAMES[:2])  # and those of another half do not add to it
    assert taken(mx, NAMES[4:]) == list(NAMES[4:])
    assert deliver(mx, *NAMES[:2]) == "451 4.5.0"
    assert taken(mx, NAMES) == [NAMES[0]]
    assert deliver(mx, NAMES[0]) == "550 5.7.1"
    # None of this is anybody else's.
    assert taken(mx, NAMES, "other@example.org") == list(NAMES)


def test_halving_leaves_other_recipients_alone(mx):
    mx.exchange.on("EOD", faults.reply(LATE))
    assert deliver(mx, *NAMES[:2]) == "451 4.5.0"
    assert taken(mx, NAMES) == [NAMES[0], *NAMES[2:]]


def test_halving_outlives_a_crash(mx):
    mx.exchange.on("EOD", faults.reply(LATE))
    assert deliver(mx, *NAMES[:4]) == "451 4.5.0"
    mx.save()
    mx.crash()
    assert taken(mx, NAMES[:4]) == list(NAMES[:2])


def test_the_same_recipient_twice_is_none_too_many(mx):
    """It would be sent to once more, and delivered to."""
    mx.exchange.on("EOD", faults.reply(LATE))
    assert deliver(mx, "anna", "ben") == "451 4.5.0"
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    assert [client.command(f"RCPT TO:<{name}@example.test>").status for name in ("anna", "Anna", "ben")] == [
        "250 2.1.5", "250 2.1.5", "452 4.5.3"]


def test_a_message_s_own_fault_halves_nobody(mx):
    mx.exchange.on("EOD", faults.reply("554 5.6.0 Corrupt message content"))
    assert deliver(mx, *NAMES[:4]) == "554 5.6.0"
    assert taken(mx, NAMES[:4]) == list(NAMES[:4])


def test_the_absent_one_is_found_past_the_cache(exchange, postern, directory, certificates):
    """He was in the directory an hour ago, which is as long as the cache believes it."""
    slapd = servers.Slapd(tempfile.mkdtemp(dir=directory), certificates, {name: [address(name)] for name in NAMES})
    try:
        mx = postern(downstream := exchange(), settings={"directory": {
            "type": "ldap", "file": None, "uri": slapd.uri, "bind": "anonymous", "base": slapd.BASE}})
        mx.exchange = downstream
        assert taken(mx, NAMES) == list(NAMES)
        slapd.delete("ben")
        assert rcpt(mx, "ben") == "250 2.1.5"
        downstream.on("EOD", faults.reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"))
        assert deliver(mx, "anna", "ben", "carl") == "451 4.5.0"
        poll(lambda: rcpt(mx, "ben") == "550 5.1.1", "the answer of the directory")
        assert taken(mx, ["anna", "carl", "dora"]) == ["anna", "carl", "dora"]  # the culprit is known
    finally:
        slapd.stop()


def test_the_absent_one_is_divided_from_the_others_while_the_snapshot_has_him(exchange, postern, start_slapd):
    """No look is taken, and what was answered live is not remembered until the retry."""
    slapd = start_slapd({name: [address(name)] for name in NAMES})
    mx = postern(downstream := exchange(), settings={"directory": {
        "type": "ldap", "file": None, "uri": slapd.uri, "bind": "anonymous", "base": slapd.BASE,
        "attributes": "proxyAddresses", "mode": "snapshot", "snapshot_refresh": "1h"}})
    mx.exchange = downstream
    mx.wait_log("directory", look="full")
    slapd.delete("ben")
    nobody = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"
    downstream.on("EOD", lambda step: nobody if "ben" in str(step.connection.recipients) else None)
    assert deliver(mx, "anna", "ben", "carl") == "451 4.5.0"
    poll(lambda: taken(mx, ["anna", "carl"]) == ["anna"], "fewer at once")
    assert rcpt(mx, "ben") == "550 5.1.1"
    mx.control("forget", address("ben"))
    assert taken(mx, ["ben", "anna", "carl"]) == ["ben"]  # the snapshot is believed
    assert comes_to(mx, "anna", "ben", "carl") == {"anna": "250 2.6.0", "ben": "550 5.1.10", "carl": "250 2.6.0"}


# Exactly once

def hand_over_and_go(mx, *names, content=CONTENT, answer=None):
    """The message reaches the downstream whole, and the client is gone before its verdict."""
    gate = faults.Gate(faults.reply(answer) if answer else lambda step: None)
    mx.exchange.on("EOD", gate)
    since = len(mx.log)
    client = mx.client()
    client.envelope("sender@example.org", *map(address, names))
    client.ok("DATA")
    client.send(content + b".\r\n")
    gate.reached.wait()
    client.reset()
    mx.wait_log("close", since=since)
    gate.open()
    mx.exchange.usual()
    mx.wait_log("message", since=since)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_retry_is_answered_and_not_delivered(pair, crash, workers):
    mx = pair({"server": {"workers": workers}})
    hand_over_and_go(mx, "anna")
    if crash:
        mx.save()
        mx.crash()
    assert deliver(mx, "anna") == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1
    mx.wait_log("message", rcpts="1", downstream="", status="2.6.0")


def test_only_those_not_yet_served_are_delivered_to(mx):
    hand_over_and_go(mx, "anna", "ben")
    assert deliver(mx, "ben", "carl", "anna", "dora") == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [
        ["anna@example.test", "ben@example.test"], ["carl@example.test", "dora@example.test"]]


def comes_to(mx, *names):
    """What each of NAMES hears in the end of a sender that tries again and again, and never says that it has heard."""
    came = {}
    for _ in range(8):
        client = mx.client()
        client.ok("MAIL FROM:<sender@example.org>")
        replies = {name: client.command(f"RCPT TO:<{address(name)}>") for name in names if name not in came}
        came |= {name: reply.status for name, reply in replies.items() if reply.code == 550}
        taken = [name for name, reply in replies.items() if reply.code == 250]
        reply = client.data(CONTENT) if taken else None
        client.close()
        if reply and reply.code != 451:
            came |= {name: reply.status for name in taken}
        if len(came) == len(names):
            break
    return came


@pytest.mark.parametrize("verb, answer, marks", [
    ("RCPT", NOBODY, True), ("RCPT", "450 4.2.1 busy", True), ("EOD", LATE, False),
    ("EOD", "554 5.6.0 Corrupt message content", False), ("MAIL", "550 5.7.60 not as this sender", False)])
def test_who_has_it_is_not_bounced_with_who_is_refused(mx, verb, answer, marks):
    """Anna's 250 was lost, and the retry goes to ben too, whom the downstream refuses."""
    assert deliver(mx, "anna") == "250 2.6.0"
    mx.exchange.on(verb, faults.reply(answer))
    assert deliver(mx, "anna", "ben") == "451 4.5.0"
    assert mx.wait_log("message", status="4.5.0")["rcpts"] == "2"
    assert [is_marked(mx, name) for name in ("anna", "ben")] == [False, marks]
    if answer.startswith("450"):
        mx.exchange.usual()
        answer = "250 2.6.0"
    assert comes_to(mx, "anna", "ben") == {"anna": "250 2.6.0", "ben": " ".join(answer.split()[:2])}
    assert sum("anna@example.test" in m.addresses for m in mx.exchange.delivered) == 1


def test_who_has_it_is_divided_from_the_others(mx):
    hand_over_and_go(mx, "ben", "dora")
    mx.exchange.on("EOD", lambda step: LATE if "carl" in str(step.connection.recipients) else None)
    others = [name for name in NAMES if name != "carl"]
    assert comes_to(mx, "carl", *others) == {"carl": "550 5.7.1", **dict.fromkeys(others, "250 2.6.0")}
    assert sorted(a for m in mx.exchange.delivered for a in m.addresses) == list(map(address, others))


@pytest.mark.parametrize("sender, content", [("other@example.org", CONTENT), ("sender@example.org", CONTENT + b"x\r\n")])
def test_another_message_is_delivered(mx, sender, content):
    hand_over_and_go(mx, "anna")
    assert deliver(mx, "anna", sender=sender, content=content) == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


def test_the_same_content_by_bdat_is_the_same_message(mx):
    hand_over_and_go(mx, "anna")
    client = mx.client()
    client.envelope("sender@EXAMPLE.org", "ANNA@example.test")
    assert client.bdat(CONTENT)[0].status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_what_was_refused_is_tried_again(mx):
    hand_over_and_go(mx, "anna", answer="451 4.7.0 try again later")
    assert not mx.exchange.delivered
    assert deliver(mx, "anna") == "250 2.6.0"
    assert len(mx.exchange.delivered) == 1


def test_an_unknown_fate_is_tried_again(mx):
    """The downstream's answer was lost: it may have it twice then, but not never."""
    mx.exchange.on("EOD", faults.deliver_and_drop())
    assert deliver(mx, "anna") == "451 4.4.2"
    mx.exchange.usual()
    assert deliver(mx, "anna") == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


def test_duplicate_window_off(pair):
    mx = pair({"server": {"duplicate_window": "0s"}})
    hand_over_and_go(mx, "anna")
    assert deliver(mx, "anna") == "250 2.6.0"
    assert len(mx.exchange.delivered) == 2


def test_retries_on_all_workers_wait_for_the_burst(pair):
    """The first is still under way: four more of the same, on two workers, make one delivery."""
    mx = pair({"server": {"workers": 2}})
    gate = faults.Gate()
    mx.exchange.on("EOD", gate)
    clients = []
    for n in range(5):
        client = mx.client()
        client.send_message(CONTENT, "anna@example.test")
        clients.append(client)
        if n == 0:
            gate.reached.wait()
    others = mx.client()
    assert others.command("NOOP").code == 250
    for client in clients:
        client.silent()
    gate.open()
    assert [client.reply().status for client in clients] == ["250 2.6.0"] * 5
    assert len(mx.exchange.delivered) == 1
