"""Several directories for a domain, user+tag@, and the downstream in place of a directory: against slapd."""

import os
import signal

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers

TAKEN, UNKNOWN, LATER = "250 2.1.5", "550 5.1.1", "451 4.4.3"


@pytest.fixture
def slapd(start_slapd):
    """Call it with names for a slapd that has them at example.test."""
    def start(*names, **attributes):
        return start_slapd("".join(
            servers.recipient_entry(name.replace("+", "-"), [f"{name}@example.test"], **attributes) for name in names))
    return start


def section(server, **changes):
    return {"type": "ldap", "uri": server.uri, "bind": "anonymous", "base": servers.Slapd.BASE, "timeout": "2s",
            "attributes": "proxyAddresses", **changes}


def strangers(**changes):
    """Loopback is nobody's friend, and one unknown recipient makes a harvester: what is counted shows."""
    return {"allow": "", "block_private": "yes", "threshold": 1, "message_threshold": 0, "action": "reject", **changes}


@pytest.fixture
def mx(exchange, postern):
    """Call it with directory sections by name, in the order in which example.test asks them."""
    def start(harvest=None, **sections):
        downstream = exchange()
        one = postern(downstream, settings={
            "harvest": harvest or {}, "directory": None,
            "domain example.test": {"downstream": "exchange", "directory": ", ".join(sections)},
            **{f"directory {name}": keys for name, keys in sections.items()}})
        one.exchange = downstream
        return one
    return start


def rcpt(mx, name, sender="sender@example.org"):
    return mx.rcpt(f"{name}@example.test", sender).status


def listed(directory, *addresses):
    path = os.path.join(directory, "listed")
    with open(path, "w", encoding="utf-8") as out:
        out.write("".join(f"{address}\n" for address in addresses))
    return {"type": "file", "file": path}


# Several

def test_the_first_that_knows_answers(mx, slapd, directory):
    """Two forests and a file."""
    one = mx(north=section(slapd("anna", "both")), south=section(slapd("ben", "both", delivContLength=["1"]), type="ad"),
             list=listed(directory, "list@example.test"))
    for name in ("anna", "ben", "list"):
        assert rcpt(one, name) == TAKEN
    assert rcpt(one, "nobody") == UNKNOWN
    # What the second says of the same address is not asked.
    client = one.client()
    client.ok("MAIL FROM:<sender@example.org> SIZE=5000")
    assert client.command("RCPT TO:<both@example.test>").status == TAKEN
    assert client.command("RCPT TO:<ben@example.test>").status == "552 5.2.3"


@pytest.mark.parametrize("dead", ["north", "south"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_cannot_be_asked_makes_an_unknown_address_451(mx, slapd, dead, how):
    """Those whom the other knows are taken; nobody is a harvester for it."""
    servers_of = {"north": slapd("anna"), "south": slapd("ben")}
    one = mx(harvest=strangers(), **{name: section(server, timeout="500ms") for name, server in servers_of.items()})
    for name, server in servers_of.items():
        one.wait_log("directory", state="up", host=server.uri)
    servers_of[dead].freeze() if how == signal.SIGSTOP else servers_of[dead].stop(how)
    alive = "ben" if dead == "north" else "anna"
    assert rcpt(one, alive) == TAKEN
    assert rcpt(one, "nobody") == LATER
    assert rcpt(one, "anna" if dead == "north" else "ben") == LATER
    assert not one.events("harvest")


def test_on_failure_accept_of_one_is_enough(mx, slapd):
    """What the one cannot say, and the other does not know, is taken if the one says so."""
    north, south = slapd("anna"), slapd("ben")
    one = mx(north=section(north, on_failure="accept"), south=section(south))
    one.wait_log("directory", state="up", host=north.uri)
    north.stop()
    assert rcpt(one, "nobody") == TAKEN
    assert rcpt(one, "ben") == TAKEN


def test_unknown_to_all_is_counted_once(mx, slapd):
    one = mx(harvest=strangers(threshold=2), north=section(slapd("anna")), south=section(slapd("ben")))
    assert rcpt(one, "x1") == UNKNOWN
    assert not one.events("harvest")
    assert rcpt(one, "x2") == UNKNOWN
    assert one.wait_log("harvest")["count"] == "2"


# Tags

TAGS = [("anna", TAKEN), ("anna+tag", TAKEN), ("ANNA+Tag", TAKEN), ("anna+", TAKEN), ("anna+a+b", TAKEN),
        ("ben+tag", TAKEN), ("ben", UNKNOWN), ("ben+other", UNKNOWN), ("+anna", UNKNOWN), ("anna-tag", UNKNOWN),
        ("nobody+tag", UNKNOWN), ("nobody+anna", UNKNOWN), ('"anna+tag"', TAKEN), ('"anna +tag"', UNKNOWN)]


@pytest.mark.parametrize("kind", ["ldap", "ad", "file"])
def test_plus_addressing(mx, slapd, directory, kind):
    """anna@ stands for anna+anything@; an address that is there with its plus is only itself."""
    keys = {"plus_addressing": "yes"}
    if kind == "file":
        one = mx(people={**listed(directory, "anna@example.test", "ben+tag@example.test"), **keys})
    else:
        one = mx(people=section(slapd("anna", "ben+tag"), type=kind, **keys))
    assert {name: rcpt(one, name) for name, _ in TAGS} == dict(TAGS)


def test_plus_addressing_is_off_by_default(mx, slapd):
    one = mx(people=section(slapd("anna", "ben+tag")))
    assert [rcpt(one, name) for name in ("anna+tag", "ben+tag")] == [UNKNOWN, TAKEN]


def test_tags_go_on_to_the_downstream(mx, slapd):
    one = mx(people=section(slapd("anna"), plus_addressing="yes"))
    assert one.client().deliver(CONTENT, "Anna+Tag@example.test").status == "250 2.6.0"
    assert one.exchange.delivered[0].addresses == ["Anna+Tag@example.test"]


def test_tags_of_nobody_are_guesses_like_others(mx, slapd):
    one = mx(harvest=strangers(threshold=2), people=section(slapd("anna"), plus_addressing="yes"))
    for tag in range(5):
        assert rcpt(one, f"anna+{tag}") == TAKEN
    assert rcpt(one, "nobody+1") == UNKNOWN
    assert rcpt(one, "nobody+2") == UNKNOWN
    one.wait_log("harvest", count=2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_tags_with_a_directory_down(mx, slapd, how):
    """What is known of anna@ holds for anna+tag@, though nobody can be asked about that."""
    server = slapd("anna")
    one = mx(people=section(server, plus_addressing="yes"))
    assert rcpt(one, "anna") == TAKEN
    server.stop(how) if how == signal.SIGKILL else server.freeze()
    assert rcpt(one, "anna+tag") == TAKEN
    one.wait_log("rcpt", to="<anna+tag@example.test>", source="cache")
    assert rcpt(one, "nobody+tag") == LATER


def test_tags_with_a_snapshot_that_is_no_longer_fresh(mx, slapd):
    server = slapd("anna")
    one = mx(people=section(server, plus_addressing="yes", mode="snapshot", snapshot_refresh="100ms",
                            snapshot_fresh="1ms"))
    one.wait_log("directory", look="full")
    server.stop(signal.SIGKILL)
    one.wait_log("directory", state="down")
    assert rcpt(one, "anna+tag") == TAKEN
    one.wait_log("rcpt", to="<anna+tag@example.test>", source="snapshot")
    assert rcpt(one, "nobody+tag") == LATER


def test_tags_go_by_each_directory_s_own_rule(mx, slapd):
    one = mx(north=section(slapd("anna")), south=section(slapd("ben"), plus_addressing="yes"))
    assert [rcpt(one, name) for name in ("anna+x", "ben+x")] == [UNKNOWN, TAKEN]


# The downstream

@pytest.fixture
def asking(exchange, postern):
    """A Postern whose recipients the downstream knows: anna@ is one."""
    def start(answer="550 5.1.1 User unknown"):
        downstream = exchange()
        downstream.on("RCPT", lambda step: None if "anna" in step.argument.lower() else answer)
        one = postern(downstream, settings={
            "domain example.test": {"recipients": "downstream"}, "harvest": strangers(threshold=3)})
        one.exchange = downstream
        return one
    return start


def test_questions_are_null_senders_and_leave_nothing(asking):
    one = asking()
    assert rcpt(one, "anna", "writer@example.org") == TAKEN
    asked = [c.line for c in one.exchange.transactions()[0].commands if c.verb in ("MAIL", "RCPT", "RSET")]
    assert asked[:2] == ["MAIL FROM:<>", "RCPT TO:<anna@example.test>"]
    one.exchange.commands.wait(lambda c: c.verb == "RSET", "RSET")
    one.wait_log("rcpt", to="<anna@example.test>", source="downstream", verdict="accept")
    assert not one.exchange.received


@pytest.mark.parametrize("answer", ["550 5.1.1 User unknown", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"])
def test_the_downstream_s_no_is_a_directory_s(asking, answer):
    """Unknown in our own words, remembered, counted."""
    one = asking(answer)
    client = one.client()
    client.ok("MAIL FROM:<a@example.org>")
    for name in ("x1", "x2", "x1", "X1", "x3"):
        assert (str(client.command(f"RCPT TO:<{name}@example.test>"))
                == f"550 5.1.1 <{name}@example.test>: Recipient address rejected: User unknown")
    assert one.exchange.count("RCPT") == 3
    assert one.wait_log("harvest")["count"] == "3"
    assert client.command("RCPT TO:<anna@example.test>").status == "550 5.7.1"
    looked_up = {name: n for name, n in one.metrics().items() if n and name.startswith("postern_directory_lookups")}
    assert looked_up == {'postern_directory_lookups_total{source="downstream",result="absent"}': 3,
                         'postern_directory_lookups_total{source="cache",result="absent"}': 2}


@pytest.mark.parametrize("answer, status", [
    ("450 4.2.1 busy at ex1.corp.example.test", "450 4.2.1"), ("550 5.7.1 no", "550 5.7.1"),
    ("552 5.2.2 full", "552 5.2.2"), ("550 5.4.1 Access denied", "550 5.4.1"), ("452 4.3.1 Insufficient", "452 4.3.1")])
def test_any_other_reply_is_passed_on_and_not_remembered(asking, answer, status):
    one = asking(answer)
    client = one.client()
    client.ok("MAIL FROM:<a@example.org>")
    for _ in range(4):
        reply = client.command("RCPT TO:<x@example.test>")
        assert reply.status == status and "corp" not in str(reply)
    assert one.exchange.count("RCPT") == 4
    assert not one.events("harvest")


def test_the_downstream_is_gone(asking):
    one = asking()
    one.exchange.on("RCPT", faults.drop())
    assert rcpt(one, "ben") in ("451 4.4.3", "451 4.4.1")
    assert not one.events("harvest")
