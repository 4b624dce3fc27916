"""What an operator does and asks by posternctl, and what it does to those outside."""

import json
import os
import subprocess

import pytest

from conftest import CONTENT
from harness.journal import DEADLINE_S
from harness.postern import BINARY

POSTERNCTL = os.environ.get("POSTERNCTL", os.path.join(os.path.dirname(BINARY), "posternctl"))
PROXY = "127.0.0.20"
HOST = "198.51.100.7"
CLOSED = "421 4.7.0"


@pytest.fixture
def pair(exchange, postern):
    def start(harvest=None, **sections):
        downstream = exchange()
        one = postern(downstream, settings={
            "server": {"proxy_protocol": PROXY}, "harvest": {"tarpit": "0s", "threshold": 3, **(harvest or {})}, **sections})
        one.exchange = downstream
        return one
    return start


def ctl(mx, *words):
    """The human answer; the command must succeed."""
    done = subprocess.run([POSTERNCTL, "-s", mx.socket_path, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=DEADLINE_S, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def ctl_json(mx, *words):
    """The same for scripts, wherever --json stands."""
    before, behind = json.loads(ctl(mx, "--json", *words)), words[0] not in ("block", "unblock")
    if behind:
        assert json.loads(ctl(mx, *words, "--json")).keys() == before.keys()
    assert before.pop("ok") is True
    return before


def connect(mx, client=HOST):
    return mx.client(source=PROXY, told=client, ehlo=False)


def is_blocked(mx, client=HOST):
    conn = connect(mx, client)
    if conn.greeting.code == 220:
        conn.quit()
        return False
    assert conn.greeting.status == CLOSED
    conn.ended()
    return True


def harvest(mx, count, first=0, client=HOST):
    conn = connect(mx, client)
    conn.ehlo()
    conn.ok("MAIL FROM:<a@example.org>")
    statuses = [conn.command(f"RCPT TO:<x{n}@example.test>").status for n in range(first, first + count)]
    conn.close()
    return statuses


# Blocks

@pytest.mark.parametrize("network, inside, outside", [
    (HOST, [HOST], ["198.51.100.8"]), ("198.51.100.0/29", ["198.51.100.0", HOST], ["198.51.100.8"]),
    ("198.0.0.0/7", [HOST, "199.255.255.255"], ["200.0.0.0"]), ("2001:db8::/33", ["2001:db8:7fff::1"], ["2001:db8:8000::1"]),
    ("2001:db8::1", ["2001:db8::1"], ["2001:db8::2"])])
def test_block_and_unblock(pair, network, inside, outside):
    mx = pair()
    assert not is_blocked(mx, inside[0])
    assert network in ctl(mx, "block", network, "10m")
    mx.wait_log("block", client=network, by="control")
    assert all(is_blocked(mx, client) for client in inside)
    assert not any(is_blocked(mx, client) for client in outside)
    block, = ctl_json(mx, "blocks")["blocks"]
    assert (block["network"], block["by"], block["action"]) == (network, "control", "block")
    assert 590 <= block["remaining_s"] <= 601
    ctl(mx, "unblock", network)
    mx.wait_log("unblock", client=network, by="control")
    assert not is_blocked(mx, inside[0])
    assert ctl_json(mx, "blocks")["blocks"] == []


def test_unblock_names_the_wider_block_that_still_holds(pair):
    mx = pair()
    for network in (HOST, "198.51.100.0/24", "198.51.0.0/16", "203.0.113.0/24", "2001:db8::/32"):
        ctl(mx, "block", network)
    told = ctl_json(mx, "unblock", HOST)
    assert told["ended"] == 1 and sorted(told["still_blocked_by"]) == ["198.51.0.0/16", "198.51.100.0/24"]
    assert is_blocked(mx)
    assert ctl_json(mx, "unblock", "198.51.0.0/16") == {"network": "198.51.0.0/16", "ended": 2, "still_blocked_by": []}
    assert not is_blocked(mx)


def test_block_reaches_sessions_at_their_next_mail(pair):
    mx = pair()
    conn = connect(mx)
    conn.ehlo()
    conn.envelope("a@example.org", "anna@example.test")
    ctl(mx, "block", HOST)
    assert conn.data(CONTENT).status == "250 2.6.0"
    assert conn.command("MAIL FROM:<a@example.org>").status == CLOSED
    conn.ended()
    assert len(mx.events("rcpt", verdict="defer", status="4.7.0", reason="harvest")) == 1
    mx.assert_counts_are_the_log_s()


def test_block_by_hand_stands_over_allow_private_and_trust(pair):
    """Whom the operator names is meant."""
    mx = pair({"allow": "198.51.100.0/24", "block_private": "no"})
    for client in (HOST, "10.1.2.3"):
        ctl(mx, "block", client)
        assert is_blocked(mx, client)


def test_block_again_replaces(pair):
    mx = pair()
    ctl(mx, "block", HOST, "2h")
    ctl(mx, "block", HOST, "1s")
    assert len(ctl_json(mx, "blocks")["blocks"]) == 1
    mx.wait_log("unblock", client=HOST, by="expiry")
    assert not is_blocked(mx)


@pytest.mark.parametrize("duration", ["1h", "10000d"])
def test_block_outlives_a_restart(pair, duration):
    mx = pair()
    ctl(mx, "block", "198.51.100.0/24", duration)
    mx.stop()
    mx.start()
    assert is_blocked(mx)


def test_a_harvester_s_block_is_shown_and_lifted(pair):
    """And his counts are forgotten, or the next typing error would bring it back."""
    mx = pair()
    assert harvest(mx, 3)[-1] == CLOSED
    block, = ctl_json(mx, "blocks", "list")["blocks"]
    assert (block["network"], block["by"], block["repeats"]) == (HOST, "harvest", 0)
    assert HOST in ctl(mx, "blocks") and "harvest" in ctl(mx, "blocks")
    top = ctl_json(mx, "top")["clients"]
    assert {"network": HOST, "unknown": 3, "action": "block"}.items() <= next(c for c in top if c["network"] == HOST).items()
    assert ctl_json(mx, "unblock", "198.51.100.0/24")["ended"] == 1
    assert not is_blocked(mx)
    assert harvest(mx, 2, 10) == ["550 5.1.1"] * 2
    assert harvest(mx, 1, 12) == [CLOSED]


# Remote domains

def test_remote_domains_are_what_is_in_force(pair):
    mx = pair(**{"remote_domain default": {"ndr": "no"}, "remote_domain *.example.net": {"auto_replies": "no"},
                 "remote_domain example.net": {"delivery_reports": "no", "read_receipts": "no"}})
    rules = {rule.pop("domain"): rule for rule in ctl_json(mx, "remote-domains")["remote_domains"]}
    usual = {"ndr": "yes", "delivery_reports": "yes", "read_receipts": "yes", "auto_replies": "yes"}
    assert rules == {"default": {**usual, "ndr": "no"}, "*.example.net": {**usual, "auto_replies": "no"},
                     "example.net": {**usual, "delivery_reports": "no", "read_receipts": "no"}}
    shown = ctl(mx, "remote-domains").splitlines()
    assert shown[0].split() == ["DOMAIN", "NDR", "DELIVERY-REPORTS", "READ-RECEIPTS", "AUTO-REPLIES"]
    assert ["example.net", "yes", "no", "no", "yes"] in [line.split() for line in shown]


def test_remote_domains_follow_a_reload(pair):
    mx = pair()
    mx.write_config({"remote_domain example.org": {"ndr": "no"}})
    since = len(mx.log)
    ctl(mx, "reload")
    mx.wait_log("config", state="loaded", since=since)
    rules = {rule["domain"]: rule["ndr"] for rule in ctl_json(mx, "remote-domains")["remote_domains"]}
    assert rules == {"default": "yes", "example.org": "no"}
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert "NOTIFY=NEVER" in mx.exchange.delivered[0].recipients[0]


# Codes

NAMED = """4.3.1 4.3.2 4.4.1 4.4.2 4.4.6 4.4.7 5.0.0 5.1.0 5.1.1 5.1.3 5.1.4 5.2.1 5.2.3 5.3.3 5.3.5 5.4.0 5.4.4 5.4.6 5.4.8
5.5.0 5.5.2 5.5.3 5.7.1 5.1.10 5.2.2 5.7.133 5.7.57 4.7.0""".split()
OURS = "4.2.1 4.4.3 4.5.0 4.5.3 4.7.1 4.7.5 5.1.7 5.3.4 5.5.1 5.5.4 5.6.7 5.7.0".split()


def explain(*words):
    done = subprocess.run([POSTERNCTL, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S,
                          text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("code", NAMED + OURS)
def test_explain_knows(code):
    """Its own entry, with its class, its likely cause and what to do; no daemon runs."""
    status, text, _ = explain("explain", code)
    assert status == 0
    status, answer, _ = explain("--json", "explain", code)
    entry = json.loads(answer)
    assert (status, entry["ok"], entry["code"]) == (0, True, code)
    assert entry["class"].startswith({"4": "temporary", "5": "permanent"}[code[0]])
    for key in ("title", "cause", "remedy"):
        assert entry[key].split()[0] in text
    assert explain("explain", code, "--json")[1] == answer


@pytest.mark.parametrize("text, code, marker", [
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "5.1.10", None),
    ("451 4.7.0 Temporary server error. Please try again later. PRX5", "4.7.0", "PRX"),
    ("550-5.7.1 first line", "5.7.1", None), ("#5.1.1", "5.1.1", None), ("#550 5.7.57 SMTP; Client was not authenticated ##", "5.7.57", None), ("smtp;550 5.4.6 hop count", "5.4.6", None)])
def test_explain_reads_a_whole_reply(text, code, marker):
    status, answer, _ = explain("--json", "explain", text)
    entry = json.loads(answer)
    assert (status, entry["code"]) == (0, code)
    assert marker is None or entry["marker"] == marker


@pytest.mark.parametrize("text", ["", "nothing", "9.9.9", "5", "5.1", "2.0.x"])
def test_explain_says_so_if_it_does_not_know(text):
    status, out, error = explain("explain", text)
    assert status == 1 and out == "" and error
    status, answer, _ = explain("--json", "explain", text)
    assert status == 1 and json.loads(answer)["ok"] is False
