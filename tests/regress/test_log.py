"""One line an event; nothing that a stranger says can make it two, or add a pair."""

import fcntl
import re
import subprocess

import pytest

from conftest import CONTENT
from harness import servers
from harness.journal import poll
from harness.postern import BINARY

HELOS = ["a event=rcpt verdict=accept", 'x" verdict="accept', "x\\", "x\\x22", "x=y", "x\tevent=stop", "\x1b[31m",
         "a\x7fb", "ünicode"]


@pytest.mark.parametrize("name", HELOS)
def test_helo_forges_nothing(mx, name):
    client = mx.client(ehlo=False)
    accepted = client.command(f"EHLO {name}").code == 250
    if not accepted:
        client.ehlo()
    client.ok("MAIL FROM:<a@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    event = mx.wait_log("rcpt")
    if accepted:
        assert event["helo"] == name
    assert event["verdict"] == "accept" and event["to"] == "<anna@example.test>"
    assert not list(mx.stray)


@pytest.mark.parametrize("local", ['"x to=y"', r'"a\"b"', r'"a\\b"', '"a=b"', "a=b", "a'b", '"a> verdict=accept <b"'])
def test_address_forges_nothing(mx, local):
    client = mx.client()
    client.ok(f"MAIL FROM:<{local}@example.org>")
    assert client.command(f"RCPT TO:<{local}@example.test>").status == "550 5.1.1"
    event = mx.wait_log("rcpt")
    assert event["from"] == f"<{local}@example.org>"
    assert event["to"] == f"<{local}@example.test>"
    assert event["verdict"] == "reject"
    assert not list(mx.stray)


def test_downstream_s_text_forges_nothing(mx):
    mx.exchange.on("EOD", lambda step: '550 5.7.1 no" status="2.6.0 \x1b event=stop\ta=b\\')
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "550 5.7.1"
    event = mx.wait_log("message")
    assert event["status"] == "5.7.1" and 'no" status="2.6.0' in event["reply"]
    assert not list(mx.stray)


def test_events_of_a_session(mx):
    client = mx.client()
    client.ok("MAIL FROM:<>")
    client.ok("RCPT TO:<anna@example.test>")
    assert client.command("RCPT TO:<x@example.test>").code == 550
    assert client.data(CONTENT).code == 250
    client.quit()
    closed = mx.wait_log("close")
    session = closed["session"]
    events = [e for e in mx.log if e.get("session") == session]
    assert [e["event"] for e in events] == ["connect", "rcpt", "rcpt", "message", "close"]
    connect, known, unknown, message, _ = events
    assert connect["client"] == "127.0.0.1" and connect["port"].isdigit()
    assert connect["listener"] == "%s:%d" % mx.address
    for event in (known, unknown):
        assert set(event) == {"event", "session", "client", "helo", "from", "to", "verdict", "status", "reason",
                              "source", "delay"}
        assert event["from"] == "<>"
    assert (known["verdict"], unknown["verdict"]) == ("accept", "reject")
    assert set(message) == {"event", "session", "client", "from", "rcpts", "size", "downstream", "status", "reply",
                            "delay"}
    assert int(message["size"]) >= len(CONTENT)
    assert set(closed) == {"event", "session", "client", "duration", "commands", "rcpt_ok", "rcpt_bad", "messages",
                           "reason"}
    assert (closed["rcpt_ok"], closed["rcpt_bad"], closed["messages"]) == ("1", "1", "1")
    assert closed["commands"] == "6"


@pytest.mark.parametrize("argument, shown", [
    ("TO:<anna@>", "<anna@>"), ("to: < anna@> NOTIFY=NEVER", "< anna@>"), ("TO:anna@", "<anna@>"), ("TO:", "<>"),
    ("nonsense", "<nonsense>"), ("TO:<a b@c", "<a b@c>"), ("TO:<<a>>", "<<a>>")])
def test_no_address(mx, argument, shown):
    """What is malformed is shown as the address that it was meant to be."""
    client = mx.client()
    client.ok("MAIL FROM:<s@example.org>")
    assert client.command(f"RCPT {argument}").code == 501
    event = mx.wait_log("rcpt")
    assert (event["to"], event["reason"]) == (shown, "syntax")


def test_events_of_the_process(mx):
    start = mx.wait_log("start")
    done = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True)
    assert start["version"] in done.stdout
    assert mx.wait_log("config", state="loaded")["file"] == mx.config_path
    assert mx.wait_log("downstream", state="up")["host"] == mx.exchange.host
    mx.stop()
    assert mx.log[-1]["event"] == "stop"


def test_level(exchange, postern):
    mx = postern(exchange(), settings={"log": {"level": "debug"}})
    mx.client().deliver(CONTENT, "anna@example.test")
    assert not list(mx.stray)


def test_nobody_reads_the_log(mx, directory):
    """A full pipe on stderr delays no session."""
    mx.stop()
    mx.write_config({"log": {"level": "debug"}})
    with subprocess.Popen([BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)

        client = poll(mx.try_client, "a greeting")
        client.ok("MAIL FROM:<a@example.org>")
        for n in range(3000):
            assert client.command(f"RCPT TO:<x{n}@example.test>").code == 550
        client.close()
        process.terminate()
        process.stderr.read()
        assert process.wait(30) == 0


@pytest.fixture
def rsyslogd(directory):
    server = servers.Rsyslogd(directory)
    yield server
    server.stop()


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp"])
def test_syslog_targets(exchange, postern, rsyslogd, kind):
    target = f"unix:{rsyslogd.socket_path}" if kind == "unix" else f"{kind}:127.0.0.1:{rsyslogd.port}"
    downstream = exchange()
    mx = postern(downstream, settings={"log": {"target": target, "facility": "local3", "tag": "post1"}}, run=False)
    mx.process = subprocess.Popen([BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    downstream.connections.wait()
    client = poll(mx.try_client, "a greeting")
    client.ok("MAIL FROM:<a@example.org>")
    client.ok('RCPT TO:<anna@example.test>')
    line = poll(lambda: next((x for x in rsyslogd.lines() if "event=rcpt" in x), None), "a line in the log")
    # local3 is 19, info 6.
    match = re.fullmatch(r"<158>1 (\S+) mx\.example\.test post1 (\S+) \S+ - ?(event=rcpt .*)", line)
    assert match, line
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", match[1])
    client.close()
    mx.process.terminate()
    assert mx.process.communicate(timeout=30)[1].decode().count("event=") == 0
    assert mx.process.returncode == 0


def test_log_daemon_is_away(exchange, postern, directory):
    mx = postern(downstream := exchange(), settings={"log": {"target": f"unix:{directory}/none"}}, run=False)
    mx.process = subprocess.Popen([BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection = downstream.connections.wait()
    downstream.connections.wait(lambda c: c is connection and c.ended, "the health check")
    client = mx.client()
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    client.quit()
    mx.process.terminate()
    assert mx.process.wait(30) == 0
