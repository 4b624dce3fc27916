"""With monitor = yes the log says of each recipient what would become of it; what else is refused stays refused."""

import os
import random

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers

PROXY = "127.0.0.20"
HOST = "198.51.100.7"
TAKEN = "250 2.1.5"


@pytest.fixture
def trial(exchange, postern):
    """Call it with changes to the settings.  At the end the metrics must have counted what the log says."""
    started = []

    def start(monitor="yes", **settings):
        downstream = exchange()
        one = postern(downstream, settings={"server": {"monitor": monitor, "proxy_protocol": PROXY}, **settings})
        one.exchange = downstream
        started.append(one)
        return one
    yield start
    for one in started:
        one.assert_counts_are_the_log_s()


def session(mx, mail=""):
    conn = mx.client(source=PROXY, told=HOST)
    conn.ok(f"MAIL FROM:<a@example.org>{mail}")
    return conn


def rcpt(conn, *names):
    return [conn.command(f"RCPT TO:<{name}@example.test>").status for name in names]


def told(mx, name):
    """What the log says of a recipient, in its order."""
    return [(e["verdict"], e["status"], e["reason"], e["source"]) for e in mx.events("rcpt", to=f"<{name}@example.test>")]


@pytest.fixture
def ad(start_slapd, directory):
    """[directory] with a recipient for insiders, and one who takes a kibibyte."""
    slapd = start_slapd("".join([
        servers.recipient_entry("anna", ["anna@example.test"]),
        servers.recipient_entry("staff", ["staff@example.test"], msExchRequireAuthToSendTo=["TRUE"]),
        servers.recipient_entry("small", ["small@example.test"], delivContLength=["1"])]))
    password = servers.write(directory, "password", slapd.PASSWORD + "\n")
    os.chmod(password, 0o600)
    return {"type": "ad", "file": "", "uri": slapd.uri, "base": slapd.BASE, "bind_dn": slapd.ROOT_DN,
            "bind_password_file": password}


def test_who_may_not_write_to_a_recipient_is_told(trial, ad):
    mx = trial(directory=ad)
    assert rcpt(session(mx), "staff") == [TAKEN]
    assert told(mx, "staff") == [("would-reject", "5.7.1", "restricted", "ldap")]


@pytest.mark.parametrize("declared", ["", " SIZE=3000"])
def test_a_message_too_large_for_one_is_told_once(trial, ad, declared):
    """At RCPT if the size is known then, else at the end; of nobody else."""
    mx = trial(directory=ad)
    conn = session(mx, declared)
    assert rcpt(conn, "anna", "small") == [TAKEN] * 2
    assert conn.data(CONTENT + b"x" * 2000 + b"\r\n").status == "250 2.6.0"
    at_rcpt = [] if declared else [("accept", "2.1.5", "ok", "ldap")]
    assert told(mx, "small") == at_rcpt + [("would-reject", "5.2.3", "size", "ldap" if declared else "policy")]
    assert told(mx, "anna") == [("accept", "2.1.5", "ok", "ldap")]


def test_whom_a_reject_at_data_would_take_along_is_told(trial):
    """Accepted before the client was a harvester; later ones are told at RCPT, and only there."""
    mx = trial(harvest={"action": "reject", "threshold": 2, "message_threshold": 0})
    conn = session(mx)
    assert rcpt(conn, "anna", "x1", "x2") == [TAKEN] * 3
    assert conn.data(CONTENT).status == "250 2.6.0"
    would = ("would-reject", "5.7.1", "harvest")
    assert [t[:3] for t in told(mx, "anna")] == [("accept", "2.1.5", "ok"), would]
    conn.ok("MAIL FROM:<a@example.org>")
    assert rcpt(conn, "ben") == [TAKEN]
    assert conn.data(CONTENT).status == "250 2.6.0"
    assert [t[:3] for t in told(mx, "ben")] == [would]


def test_an_unknown_one_is_told_though_the_downstream_was_asked(trial):
    """It is marked; that the downstream takes it by now is not what the directory says."""
    mx = trial()
    mx.exchange.on("RCPT", faults.for_argument("ghost", faults.reply("550 5.1.1 User unknown")))
    conn = mx.client(source=PROXY, told=HOST)
    assert conn.deliver(CONTENT, "anna@example.test", "ghost@example.test").status == "451 4.5.0"
    conn.ok("MAIL FROM:<a@example.org>")
    assert rcpt(conn, "ghost") == ["550 5.1.1"]
    mx.exchange.usual()
    assert rcpt(conn, "ghost") == [TAKEN]
    unknown = ("would-reject", "5.1.1", "unknown", "file")
    assert told(mx, "ghost") == [unknown, ("reject", "5.1.1", "downstream", "downstream"), unknown]


def test_what_is_no_verdict_on_a_recipient_is_given(trial):
    mx = trial(blocked={"senders": "bad@example.org", "recipients": "ben@example.test"})
    conn = mx.client(source=PROXY, told=HOST)
    assert conn.command("MAIL FROM:<bad@example.org>").status == "550 5.7.1"
    conn.ok("MAIL FROM:<a@example.org>")
    assert conn.command("RCPT TO:<a@elsewhere.example>").status == "550 5.7.1"
    assert conn.command("RCPT TO:<a@@example.test>").status == "501 5.1.3"
    assert rcpt(conn, "ben") == [TAKEN]
    assert told(mx, "ben") == [("would-reject", "5.7.1", "blocked", "file")]
    assert mx.control("block", HOST)["ok"]
    assert mx.client(source=PROXY, told=HOST, ehlo=False).greeting.status == "421 4.7.0"


def test_what_would_not_be_taken_is_no_merit(trial):
    """Exchange takes what is for nobody, too: it makes no client honest, nor trusted once the trial is over."""
    mx = trial(harvest={"threshold": 5, "trusted_recipients": 3})
    conn = mx.client(source=PROXY, told=HOST)
    for n in range(5):
        assert conn.deliver(CONTENT, f"x{n}@example.test").status == "250 2.6.0"
    event = mx.wait_log("harvest", client=HOST)
    assert (event["ratio"], event["action"]) == ("1.00", "block")


def test_nor_what_a_message_that_would_be_refused_brings(trial):
    """For a limit, or for those that it names beside: its other recipients would not have had it."""
    mx = trial(harvest={"threshold": 4, "trusted_recipients": 2, "ratio": "0.6"})
    conn = mx.client(source=PROXY, told=HOST)
    assert conn.deliver(CONTENT, "anna@example.test", "x0@example.test", "x1@example.test").status == "250 2.6.0"
    assert conn.deliver(CONTENT, "ben@example.test", "x2@example.test", "x3@example.test").status == "250 2.6.0"
    event = mx.wait_log("harvest", client=HOST)
    assert (event["ratio"], event["action"]) == ("1.00", "block")


@pytest.mark.parametrize("verb", ["RCPT", "EOD"])
def test_whom_the_directory_lacks_is_no_drift(trial, verb):
    mx = trial()
    mx.exchange.on(verb, faults.reply("550 5.1.1 User unknown"))
    conn = mx.client(source=PROXY, told=HOST)
    assert conn.deliver(CONTENT, "ghost@example.test").status == "550 5.1.1"
    assert conn.deliver(CONTENT, "anna@example.test").status == "550 5.1.1"
    conn.quit()
    mx.wait_log("close", client=HOST)
    assert [e["to"] for e in mx.events("drift")] == ["<anna@example.test>"]


def test_nobody_is_a_harvester_for_whom_is_blocked(trial):
    """As without monitor, where no directory is asked about them."""
    mx = trial(blocked={"recipients": "@example.test"}, harvest={"threshold": 2, "message_threshold": 0})
    assert rcpt(session(mx), "x1", "x2", "x3") == [TAKEN] * 3
    assert [t[0::2] for t in told(mx, "x3")] == [("would-reject", "blocked")]
    assert not mx.events("harvest")


def test_an_unknown_one_does_not_keep_the_others_mail(trial):
    """Exchange refuses the message after the data, for his sake; he is not refused at the retry, so it is divided."""
    mx = trial()
    mx.exchange.on("EOD", lambda step: "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"
                   if any("ghost" in line for line in step.connection.recipients) else None)
    pending, answers = ["anna", "ghost", "ben"], {}
    for _ in range(8):
        conn = session(mx)
        taken = [name for name, status in zip(pending, rcpt(conn, *pending)) if status == TAKEN]
        reply = conn.data(CONTENT)
        if reply.code != 451:
            answers |= {name: reply.status for name in taken}
            pending = [name for name in pending if name not in taken]
        conn.close()
        if not pending:
            break
    assert answers == {"anna": "250 2.6.0", "ben": "250 2.6.0", "ghost": "550 5.1.10"}


# The same traffic, refused and told

def visits(count):
    """A client, a sender, and the recipients of a message."""
    chance = random.Random(7)
    hosts = [f"198.51.100.{n}" for n in range(1, 5)] + ["10.0.0.9"]
    known = ["anna", "ben", "carl", "postmaster", "abuse", "blocked", "trap"]
    for _ in range(count):
        names = chance.choices(known + [f"x{n}" for n in range(30)], [12, 12, 12, 2, 2, 4, 0.5] + [1] * 30,
                               k=chance.randrange(1, 6))
        yield chance.choice(hosts), chance.choice(["a@example.org", "a@example.org", ""]), names


def connect(mx, host, sender):
    """None: it is turned away."""
    conn = mx.client(source=PROXY, told=host, ehlo=False)
    if conn.greeting.code != 220:
        return None
    conn.ehlo()
    conn.ok(f"MAIL FROM:<{sender}>")
    return conn


def finish(conn, content):
    if conn.command("DATA").code == 354:
        conn.send(content + b".\r\n")
        conn.reply()


def leave(mx, conn):
    since = len(mx.log)
    conn.close()
    mx.wait_log("close", since=since)


def harvests(mx):
    return [[e.get(key) for key in ("client", "action", "count", "ratio", "limited", "from")]
            for e in mx.events("harvest")]


@pytest.mark.parametrize("action", ["reject", "disconnect", "block", "blind"])
def test_a_trial_tells_what_would_be(trial, action):
    """Verdict by verdict, as long as the one that refuses does not close."""
    settings = {"blocked": {"recipients": "blocked@example.test"}, "harvest": {
        "action": action, "threshold": 4, "threshold_wide": 8, "ratio": "0.4", "message_threshold": 3,
        "trusted_recipients": 3, "traps": "trap@example.test", "tarpit": "0s"}}
    live, tried = trial("no", **settings), trial(**settings)
    for number, (host, sender, names) in enumerate(visits(50)):
        here, there = connect(live, host, sender), connect(tried, host, sender)
        for name in names:
            reply = here.command(f"RCPT TO:<{name}@example.test>") if here else None
            since = len(tried.log)
            assert rcpt(there, name) == [TAKEN]
            event = tried.wait_log("rcpt", since=since)
            is_taken = reply is not None and reply.code == 250
            assert event["verdict"] == ("accept" if is_taken else "would-reject"), (number, reply, event.text)
            if reply is None or reply.code == 421:
                break
            assert event["status"] == reply.enhanced
        else:
            finish(here, CONTENT + b"%d\r\n" % number)
            finish(there, CONTENT + b"%d\r\n" % number)
            leave(live, here)
        leave(tried, there)
    assert harvests(tried) == harvests(live) != []
