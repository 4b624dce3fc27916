"""The five laws.  Whatever else may be wrong, these hold; much more about each stands in the other files."""

import itertools
import os
import threading

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers
from harness.postern import free_port

FAULTS = [faults.drop(), faults.drop(reset=True), faults.hang, faults.stop_reading,
          faults.reply_and_drop("421 4.3.2 Service not active"), faults.reply_and_drop(b"garbage\r\n")]
VERBS = ["CONNECT", "EHLO", "MAIL", "RCPT", "CONTENT", "EOD"]


def test_law_1_own_no_mail(exchange, postern):
    """A 250 to a message is the downstream's own: at whatever instant that fails, what was acknowledged
    was delivered, and nothing is kept back to be sent later."""
    downstream = exchange()
    mx = postern(downstream, settings={"downstream exchange": {
        "reply_timeout": "200ms", "data_timeout": "200ms", "connect_timeout": "200ms", "health_interval": "100ms"}})
    acknowledged = 0
    for number, (verb, fault) in enumerate(itertools.product(VERBS, FAULTS)):
        downstream.drop_all()
        downstream.on(verb, fault)
        before = len(downstream.delivered)
        client = mx.client()
        reply = client.attempt(CONTENT, "anna@example.test", sender=f"sender{number}@example.org")
        assert reply.code in (250, 451)
        assert (reply.code == 250) == (len(downstream.delivered) > before), f"{verb} {number}: {reply}"
        acknowledged += reply.code == 250
        downstream.usual()
        client.quit()
    delivered = len(downstream.delivered)
    assert acknowledged == delivered
    # Nothing comes by itself afterwards: whatever the process holds dies with it.
    mx.stop()
    assert len(downstream.delivered) == delivered
    assert not downstream.junk


def test_law_1_own_no_mail_when_killed(mx):
    gate = faults.Gate()
    mx.exchange.on("MAIL", gate)
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(CONTENT + b".\r\n")
    gate.reached.wait()
    mx.kill()
    gate.open()
    mx.exchange.usual()
    mx.start()
    assert mx.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [["ben@example.test"]]


def test_law_2_an_unknown_recipient_is_refused_at_rcpt(mx):
    """550 5.1.1 where the sender's own server can tell its user, and the downstream never hears of it."""
    connections = len(mx.exchange.connections)
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    replies = client.pipeline(*(f"RCPT TO:<guess{n}@example.test>" for n in range(50)))
    assert [str(reply) for reply in replies] == [
        f"550 5.1.1 <guess{n}@example.test>: Recipient address rejected: User unknown" for n in range(50)]
    assert client.command("DATA").status == "554 5.5.1"
    client.quit()
    mx.wait_log("close")
    assert len(mx.exchange.connections) == connections
    assert mx.exchange.count("MAIL") == 0


def test_law_2_a_known_recipient_beside_unknown_ones_gets_the_message(mx):
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    codes = [client.command(f"RCPT TO:<{name}@example.test>").code for name in ("x", "anna", "y", "ben")]
    assert codes == [550, 250, 550, 250]
    assert client.data(CONTENT).status == "250 2.6.0"
    assert mx.exchange.delivered[0].addresses == ["anna@example.test", "ben@example.test"]
    assert not any("x@" in c.line or "y@" in c.line for c in mx.exchange.commands)


LDAP = {"type": "ldap", "file": None, "bind": "anonymous", "base": "dc=example,dc=test",
        "filter": "(proxyAddresses=smtp:%u)", "attributes": "proxyAddresses", "timeout": "500ms"}
STRICT = {"allow": "", "block_private": "yes", "threshold": 2, "tarpit": "0s"}


@pytest.mark.parametrize("trouble", ["nothing listens", "no such base", "silent", "stopped"])
def test_law_3_uncertain_is_never_no(exchange, postern, directory, certificates, trouble):
    """A directory that cannot answer makes nobody unknown, and nobody a harvester."""
    os.mkdir(place := directory + "/slapd")
    slapd = servers.Slapd(place, certificates, {"anna": ["anna@example.test"]})
    keys = {**LDAP, "uri": slapd.uri}
    silent = None
    try:
        if trouble == "nothing listens":
            keys["uri"] = f"ldap://127.0.0.1:{free_port()}"
        elif trouble == "no such base":
            keys["base"] = "dc=nowhere,dc=test"
        elif trouble == "silent":
            silent = exchange()
            silent.on("CONNECT", faults.stop_reading)
            keys["uri"] = f"ldap://{silent.host}"
        mx = postern(exchange(), settings={"directory": keys, "harvest": STRICT})
        if trouble == "stopped":
            slapd.process.send_signal(19)
        client = mx.client()
        client.ok("MAIL FROM:<sender@example.org>")
        replies = client.pipeline(*(f"RCPT TO:<{name}@example.test>" for name in ("anna", "x1", "x2", "x3")))
        assert [reply.status for reply in replies] == ["451 4.4.3"] * 4
        assert not mx.events("harvest")
        assert mx.client().greeting.code == 220
    finally:
        slapd.process.send_signal(18)
        slapd.stop()


def test_law_3_uncertain_is_never_no_unless_so_configured(exchange, postern):
    mx = postern(exchange(), settings={"directory": {**LDAP, "uri": f"ldap://127.0.0.1:{free_port()}",
                                                     "on_failure": "accept"}})
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    assert client.command("RCPT TO:<anyone@example.test>").status == "250 2.1.5"


def test_law_4_no_backscatter(exchange, postern):
    """Postern speaks when it is spoken to: whatever is refused, by it or by the downstream, is refused to the
    client in its own session, and no mail, report or probe of an address goes out."""
    downstream = exchange()
    mx = postern(downstream, settings={"harvest": {"message_threshold": 2}})
    client = mx.client()
    for sender in ("victim@example.net", ""):
        client.ok(f"MAIL FROM:<{sender}>")
        assert client.command("RCPT TO:<x@example.test>").code == 550
        client.ok("RCPT TO:<anna@example.test>")
        downstream.on("EOD", faults.reply("550 5.7.1 Message rejected as spam"))
        assert client.data(CONTENT + sender.encode()).status == "550 5.7.1"
        downstream.on("EOD", faults.drop())
        assert client.deliver(CONTENT + sender.encode(), "ben@example.test", sender=sender).code == 451
        downstream.usual()
    client.quit()
    mx.stop()
    # All that ever went out were the two messages of each sender, from them and to whom they wrote.
    told = [(c.verb, c.line.partition(":")[2].split()[0]) for c in downstream.commands if c.verb in ("MAIL", "RCPT")]
    assert set(told) == {("MAIL", "<victim@example.net>"), ("MAIL", "<>"), ("RCPT", "<anna@example.test>"),
                         ("RCPT", "<ben@example.test>")}
    assert not downstream.delivered


def test_law_5_nobody_holds_up_another(exchange, postern):
    """Slow, silent and hostile clients cost a session each: no connection to the downstream, and no time of
    anybody else."""
    downstream = exchange()
    mx = postern(downstream, settings={"harvest": {
        "allow": "", "tarpit": "30s", "tarpit_max": "30s", "threshold": 1000, "message_threshold": 0}})
    idle = [mx.client(source="127.0.0.10") for _ in range(20)]
    slow = []
    for _ in range(20):
        client = mx.client(source="127.0.0.11")
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT)  # and never an end
        slow.append(client)
    tarpitted = []
    for n in range(20):
        client = mx.client(source="127.0.0.12")
        client.ok("MAIL FROM:<a@example.org>")
        client.send(f"RCPT TO:<x{n}@example.test>\r\n")
        tarpitted.append(client)
    connections = len(downstream.connections)
    for n in range(5):
        assert mx.client(source="127.0.0.13").deliver(
            CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.connections) <= connections + 1
    for client in idle + slow + tarpitted:
        client.silent()


def test_law_5_nobody_holds_up_another_by_the_directory(exchange, postern):
    """A directory server that does not answer keeps its own askers waiting, and nobody else."""
    silent, downstream = exchange(), exchange()
    silent.on("CONNECT", faults.stop_reading)
    mx = postern(downstream, settings={
        "directory slow": {**LDAP, "uri": f"ldap://{silent.host}", "timeout": "30s"},
        "domain example.org": {"downstream": "exchange", "directory": "slow"}})
    waiting = mx.client()
    waiting.ok("MAIL FROM:<a@example.net>")
    waiting.send("RCPT TO:<anna@example.org>\r\n")
    silent.connections.wait()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    waiting.silent()


def test_law_5_nobody_holds_up_another_by_the_downstream(exchange, postern):
    stuck, downstream = exchange(), exchange()
    mx = postern(downstream, settings={
        "downstream second": {"hosts": stuck.host, "tls": "off", "health_interval": "1h"},
        "domain example.org": {"downstream": "second", "recipients": "any"}})
    mx.wait_log("downstream", state="up", host=stuck.host)
    gate = faults.Gate()
    stuck.on("EOD", gate)
    waiting = mx.client()
    waiting.envelope("a@example.net", "anna@example.org")
    waiting.ok("DATA")
    waiting.send(CONTENT + b".\r\n")
    gate.reached.wait()
    answers = []

    def deliver():
        answers.append(mx.client().deliver(CONTENT, "anna@example.test").status)
    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join(20)
    assert answers == ["250 2.6.0"]
    waiting.silent()
    gate.open()
    assert waiting.reply().status == "250 2.6.0"
