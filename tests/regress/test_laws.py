"""The five laws.  Whatever else may be wrong, these hold; much more about each stands in the other files."""

import itertools
import os
import signal
import subprocess

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers
from harness.journal import poll
from harness.postern import BINARY, free_port

FAULTS = [faults.drop(), faults.drop(reset=True), faults.hang, faults.stop_reading,
          faults.reply_and_drop("421 4.3.2 Service not active"), faults.reply_and_drop(b"garbage\r\n")]
VERBS = ["CONNECT", "EHLO", "MAIL", "RCPT", "CONTENT", "EOD"]
LDAP = {"type": "ldap", "file": None, "bind": "anonymous", "base": "dc=example,dc=test",
        "filter": "(proxyAddresses=smtp:%u)", "attributes": "proxyAddresses", "timeout": "500ms"}
STRANGERS = {"allow": "", "block_private": "yes", "message_threshold": 0}  # loopback is nobody's friend


# 1. Own no mail

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
    """A crash loses nothing that was accepted, since what was not delivered was not accepted."""
    gate = faults.Gate()
    mx.exchange.on("MAIL", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    mx.kill()
    with pytest.raises(OSError):
        client.reply()
    gate.open()
    mx.exchange.usual()
    mx.start()
    assert mx.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [["ben@example.test"]]


# 2. Block nothing

def assert_others_are_served(mx):
    for n in range(3):
        assert mx.client(source="127.0.0.99").deliver(
            CONTENT + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"


def test_law_2_block_nothing_for_slow_clients(exchange, postern):
    downstream = exchange()
    mx = postern(downstream, settings={"harvest": {**STRANGERS, "tarpit": "30s", "tarpit_max": "30s", "threshold": 1000}})
    waiting = [mx.client(source="127.0.0.10") for _ in range(20)]
    for n in range(20):
        client = mx.client(source="127.0.0.11")
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT)  # and never an end
        tarpitted = mx.client(source="127.0.0.12")
        tarpitted.ok("MAIL FROM:<a@example.org>")
        tarpitted.send(f"RCPT TO:<x{n}@example.test>\r\n")
        waiting += [client, tarpitted]
    connections = len(downstream.connections)
    assert_others_are_served(mx)
    assert len(downstream.connections) <= connections + 1
    for client in waiting:
        client.silent()


def test_law_2_block_nothing_for_a_slow_directory(exchange, postern):
    silent = exchange()
    silent.on("CONNECT", faults.stop_reading)
    mx = postern(exchange(), settings={
        "directory slow": {**LDAP, "uri": f"ldap://{silent.host}", "timeout": "5s"},
        "domain example.org": {"downstream": "exchange", "directory": "slow"}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.net>")
    client.send("RCPT TO:<anna@example.org>\r\n")
    silent.connections.wait()
    assert_others_are_served(mx)
    client.silent()


def test_law_2_block_nothing_for_a_slow_downstream(exchange, postern):
    stuck = exchange()
    mx = postern(exchange(), settings={
        "downstream second": {"hosts": stuck.host, "tls": "off", "health_interval": "1h"},
        "domain example.org": {"downstream": "second", "recipients": "any"}})
    mx.wait_log("downstream", state="up", host=stuck.host)
    gate = faults.Gate()
    stuck.on("EOD", gate)
    client = mx.client()
    client.send_message(CONTENT, "anna@example.org", sender="a@example.org")
    gate.reached.wait()
    assert_others_are_served(mx)
    client.silent()
    gate.open()
    assert client.reply().status == "250 2.6.0"


def test_law_2_block_nothing_for_a_log_that_nobody_reads(exchange, postern):
    mx = postern(downstream := exchange(), settings={"log": {"level": "debug"}}, run=False)
    mx.process = subprocess.Popen([BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    downstream.connections.wait()
    client = poll(mx.try_client, "a greeting")
    client.ok("MAIL FROM:<a@example.org>")
    for n in range(3000):
        assert client.command(f"RCPT TO:<x{n}@example.test>").code == 550
    assert_others_are_served(mx)
    for client in mx.clients:
        client.close()
    mx.process.terminate()
    mx.process.stderr.read()
    assert mx.process.wait(30) == 0


# 3. Disclose and admit nothing

def test_law_3_admit_no_smuggled_message(mx):
    """Whatever stands where an end of data might be seen by somebody else, one message stays one."""
    smuggled = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\nX: y\r\n"
    for n, end in enumerate((b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\x00.\r\n", b"\r.\r\n")):
        client = mx.client()
        client.envelope(f"a{n}@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT[:-2] + end + smuggled + b".\r\n")
        assert client.reply().status == "250 2.6.0"
        assert client.command("NOOP").status == "250 2.0.0"
    assert mx.exchange.count("MAIL") == len(mx.exchange.delivered) == 7
    assert not mx.exchange.junk
    for message in mx.exchange.delivered:
        assert b"\n" not in message.content.replace(b"\r\n", b"")


@pytest.mark.parametrize("octets", [b"NOOP\nNOOP\r\n", b"NOOP\rNOOP\r\n", b"NO\x00OP\r\n",
                                    b"MAIL FROM:<a@b>\nRCPT TO:<anna@example.test>\r\n"])
def test_law_3_admit_no_bare_line_end_in_a_command(mx, octets):
    client = mx.client()
    client.send(octets)
    assert client.reply().status == "550 5.5.2"
    client.ended()


def test_law_3_admit_nothing_across_starttls(exchange, postern, certificates):
    mx = postern(exchange(), settings={"tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    client = mx.client()
    client.send("STARTTLS\r\nMAIL FROM:<a@example.org>\r\n")
    assert client.reply().status == "554 5.5.0"
    client.ended()


def test_law_3_admit_nothing_across_the_downstream_s_starttls(exchange, postern, certificates):
    downstream = exchange(tls=certificates.server_context())
    downstream.on("STARTTLS", faults.reply("220 2.0.0 ready\r\n250-evil\r\n250 SIZE 1"))
    mx = postern(downstream, settings={"downstream exchange": {"tls": "required"}}, wait_downstream=False)
    assert mx.client().attempt(CONTENT, "anna@example.test").code == 451
    assert not downstream.transactions()


def test_law_3_admit_no_relaying(mx):
    client = mx.client()
    client.ok("MAIL FROM:<anna@example.test>")
    for address in ("a@example.org", "anna%example.org@example.net", '"a@example.org"@example.net', "a@[127.0.0.1]",
                    "a@example.test.example.org", "a@xexample.test"):
        assert str(client.command(f"RCPT TO:<{address}>")) == f"550 5.7.1 <{address}>: Relay access denied"
    assert client.command("RCPT TO:<@example.test:a@example.org>").status == "550 5.7.1"
    # What looks like a route in the local part is a name like any other, and nobody's.
    for local in ("a%example.org", "example.org!a", '"a@example.org"'):
        assert client.command(f"RCPT TO:<{local}@example.test>").status == "550 5.1.1"
    assert not mx.exchange.transactions()


def test_law_3_disclose_nothing_of_the_inside(exchange, postern):
    downstream = exchange(name="ex1.corp.example.test")
    mx = postern(downstream)
    client = mx.client()
    said = [str(client.greeting), *client.offered]
    for verb, given in [("RCPT", "550 5.7.1 no [name=ex1.corp.example.test] at ex1.corp.example.test (10.1.2.3)"),
                        ("EOD", "451 4.7.0 PRX2 [Hostname=ex1.corp.example.test] 10.1.2.3"),
                        ("MAIL", "550 5.7.60 Client was not authenticated at ex1.corp.example.test")]:
        downstream.on(verb, faults.reply(given))
        said.append(str(client.attempt(CONTENT, "anna@example.test")))
        client.ok("RSET")
        downstream.usual()
    said.append(str(client.deliver(CONTENT, "anna@example.test")))
    said += [str(client.command(command)) for command in ("VRFY anna", "EXPN staff", "HELP", "AUTH LOGIN")]
    for text in said:
        for inside in ("ex1", "corp", "10.1.2.3", "name=", "AUTH", "X-EXPS", downstream.host):
            assert inside not in text, text


def test_law_3_admit_no_forged_log_line_or_header(mx):
    client = mx.client(ehlo=False)
    for helo in ("x event=start", 'x"y', "x\ty", "x\\x22", "x;y", "(x"):
        client.command(f"EHLO {helo}")
        client.ok("RSET")
    client.ehlo("x=y;z(")
    client.ok('MAIL FROM:<"a> verdict=accept <b"@example.org>')
    client.ok("RCPT TO:<anna@example.test>")
    assert client.command('RCPT TO:<"x\\" to=<y"@example.test>').status == "550 5.1.1"
    assert client.data(CONTENT).code == 250
    assert mx.wait_log("rcpt", verdict="reject")["to"] == '<"x\\" to=<y"@example.test>'
    assert len(mx.events("start")) == 1 and not list(mx.stray)
    message = mx.exchange.delivered[0]
    assert message.without_trace() == CONTENT
    assert message.content[:-len(CONTENT)].count(b";") == 1


# 4. Fail soft and say so

@pytest.mark.parametrize("trouble", ["nothing listens", "no such base", "silent", "stopped"])
def test_law_4_fail_soft(exchange, postern, directory, certificates, trouble):
    """A directory that cannot answer makes nobody unknown, and nobody a harvester."""
    os.mkdir(place := directory + "/slapd")
    slapd = servers.Slapd(place, certificates, {"anna": ["anna@example.test"]})
    keys = {**LDAP, "uri": slapd.uri}
    try:
        if trouble == "nothing listens":
            keys["uri"] = f"ldap://127.0.0.1:{free_port()}"
        elif trouble == "no such base":
            keys["base"] = "dc=nowhere,dc=test"
        elif trouble == "silent":
            silent = exchange()
            silent.on("CONNECT", faults.stop_reading)
            keys["uri"] = f"ldap://{silent.host}"
        mx = postern(exchange(), settings={"directory": keys, "harvest": {**STRANGERS, "threshold": 2}})
        if trouble == "stopped":
            slapd.process.send_signal(signal.SIGSTOP)
        client = mx.client()
        client.ok("MAIL FROM:<sender@example.org>")
        replies = client.pipeline(*(f"RCPT TO:<{name}@example.test>" for name in ("anna", "x1", "x2", "x3")))
        assert [reply.status for reply in replies] == ["451 4.4.3"] * 4
        assert not mx.events("harvest")
        if trouble != "no such base":
            mx.wait_log("directory", state="down")
        assert mx.client().greeting.code == 220
    finally:
        slapd.process.send_signal(signal.SIGCONT)
        slapd.stop()


def test_law_4_fail_soft_with_what_is_known(exchange, postern, directory, certificates):
    os.mkdir(place := directory + "/slapd")
    slapd = servers.Slapd(place, certificates, {"anna": ["anna@example.test"]})
    mx = postern(exchange(), settings={"directory": {**LDAP, "uri": slapd.uri}})
    client = mx.client()
    try:
        client.ok("MAIL FROM:<sender@example.org>")
        client.ok("RCPT TO:<anna@example.test>")
    finally:
        slapd.stop()
    client.ok("RCPT TO:<anna@example.test>")
    assert client.command("RCPT TO:<ben@example.test>").status == "451 4.4.3"
    mx.wait_log("directory", state="down")


def test_law_4_fail_soft_when_the_downstream_is_gone(mx):
    mx.exchange.stop_listening()
    mx.exchange.drop_all()
    reply = mx.client().attempt(CONTENT, "anna@example.test")
    assert reply.status == "451 4.4.1"
    mx.wait_log("downstream", state="down", host=mx.exchange.host)
    # From now on it is said at MAIL, and the log has a line for it.
    assert mx.client().attempt(CONTENT, "anna@example.test").status == "451 4.4.1"
    event = mx.wait_log("rcpt", verdict="defer")
    assert (event["status"], event["reason"], event["from"]) == ("4.4.1", "route", "<sender@example.org>")
    assert mx.metrics()['postern_recipients_total{verdict="defer",reason="route"}'] == 1


# 5. Be small

def test_law_5_a_harvester_costs_next_to_nothing(mx):
    """No connection to the downstream, and no memory that outlives its command."""
    connections = len(mx.exchange.connections)
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")

    def harvest(first):
        lines = [f"RCPT TO:<guess{n}@example.test>" for n in range(first, first + 1000)]
        assert all(reply.status == "550 5.1.1" for reply in client.pipeline(*lines))
    harvest(0)
    before = mx.memory_kib()
    for first in range(1000, 20000, 1000):
        harvest(first)
    assert mx.is_sanitized() or mx.memory_kib() - before < 512
    assert client.command("DATA").status == "554 5.5.1"
    client.quit()
    mx.wait_log("close")
    assert len(mx.exchange.connections) == connections
    assert mx.exchange.count("MAIL") == 0


def test_law_5_an_idle_session_is_small(exchange, postern):
    mx = postern(exchange(), settings={"server": {"max_connections_per_client": 3000}})
    mx.client().quit()
    first = [mx.client() for _ in range(100)]
    before = mx.memory_kib()
    rest = [mx.client() for _ in range(900)]
    each = (mx.memory_kib() - before) / len(rest)
    assert mx.is_sanitized() or each < 4, f"{each} KiB a session"
    assert all(client.command("NOOP").code == 250 for client in first + rest)
