"""The log at a real rsyslogd, and what the examples in docs/ make of it."""

import json
import os
import re
import signal
import shutil
import subprocess

import pytest

from conftest import CONTENT
from harness import servers
from harness.journal import poll
from harness.postern import BINARY

EXAMPLES = os.path.join(os.environ["SOURCE_DIR"], "docs", "examples")
LOCAL0 = {"facility": "local0", "tag": "postern"}


def example(name):
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as text:
        return text.read()


class Rsyslogd(servers.Server):
    """CONF is put behind a working directory; PLACE, a port or a socket, is ready when it is."""

    def __init__(self, directory, conf, port=None, path=None):
        self.path = path
        conf = servers.write(directory, "rsyslog.conf", f'global(workDirectory="{directory}")\n{conf}')
        super().__init__(directory, [servers.program("rsyslogd"), "-n", "-f", conf, "-i",
                                     os.path.join(directory, "pid")], port=port)

    def is_ready(self):
        return os.path.exists(self.path) if self.path else super().is_ready()


@pytest.fixture
def rsyslogd(directory):
    """Call it with a configuration for a running rsyslogd."""
    started = []

    def start(conf, **place):
        started.append(Rsyslogd(directory, conf, **place))
        return started[-1]
    yield start
    for one in started:
        one.stop()


def lines_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="backslashreplace") as lines:
        return lines.read().splitlines()


@pytest.fixture
def start(exchange, postern):
    """Call it with settings for [log]: a Postern whose log is not on stderr, and its Exchange."""
    started = []

    def run(log, **settings):
        mx = postern(exchange(), settings={"log": LOCAL0 | log} | settings, run=False)
        mx.process = subprocess.Popen([BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE)
        started.append(mx)
        poll(mx.try_client, "a greeting").quit()
        return mx
    yield run
    for mx in started:
        for client in mx.clients:
            client.close()
        mx.process.terminate()
        words = mx.process.communicate(timeout=30)[1].decode()  # of a target that was away, and nothing else
        assert re.sub(r"(?m)^\S+ event=log state=(down|up) .*\n", "", words) == ""
        assert mx.process.returncode == 0


def ask(mx, first, count, source=None):
    """COUNT recipients in a session, each with a number of its own in its address."""
    client = mx.client(source=source)
    client.ok("MAIL FROM:<a@example.org>")
    for n in range(first, first + count):
        client.command(f"RCPT TO:<n{n}@example.test>")
    client.quit()


def numbers(lines):
    return [int(found[1]) for found in (re.search(r"event=rcpt .*to=<n(\d+)@", line) for line in lines) if found]


class Collector:
    """rsyslogd's configuration for a kind of target; the lines go into `path` as they came."""

    def __init__(self, kind, directory):
        self.path = os.path.join(directory, "lines")
        self.socket = os.path.join(directory, "log.sock")
        port = servers.free_port()
        self.place = {"path": self.socket} if kind == "unix" else {"port": port}
        self.target = f"unix:{self.socket}" if kind == "unix" else f"{kind}:127.0.0.1:{port}"
        inputs = ['module(load="imuxsock" SysSock.Use="off")',
                  f'input(type="imuxsock" Socket="{self.socket}" UseSpecialParser="off" ParseHostname="on" '
                  'RateLimit.Interval="0")'] if kind == "unix" else [
                      'module(load="imudp")', f'input(type="imudp" address="127.0.0.1" port="{port}")',
                      'module(load="imptcp")', f'input(type="imptcp" address="127.0.0.1" port="{port}")']
        self.conf = "\n".join(['global(maxMessageSize="8k" parser.escapeControlCharactersOnReceive="off")', *inputs,
                               'template(name="raw" type="string" string="%rawmsg-after-pri%\\n")',
                               f'action(type="omfile" file="{self.path}" template="raw")', ""])

    def lines(self):
        return lines_of(self.path)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_daemon_comes_back(rsyslogd, start, directory, kind):
    """While it is away lines are kept; then they come in order, each once, and none is missing."""
    at = Collector(kind, directory)
    daemon = rsyslogd(at.conf, **at.place)
    mx = start({"target": at.target})
    ask(mx, 0, 20)
    poll(lambda: numbers(at.lines()) == list(range(20)), "the first lines")
    daemon.stop()
    if os.path.exists(at.socket):
        os.unlink(at.socket)
    ask(mx, 20, 50)
    rsyslogd(at.conf, **at.place)
    ask(mx, 70, 10)
    poll(lambda: numbers(at.lines())[-1] == 79, "the last line")
    assert numbers(at.lines()) == list(range(80))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_daemon_that_hangs(rsyslogd, start, directory, kind):
    """It takes nothing more: sessions go on, and what was said comes in order once it does."""
    at = Collector(kind, directory)
    daemon = rsyslogd(at.conf, **at.place)
    mx = start({"target": at.target})
    ask(mx, 0, 20)
    poll(lambda: numbers(at.lines()) == list(range(20)), "the first lines")
    daemon.freeze()
    try:
        ask(mx, 20, 980)
        assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    poll(lambda: numbers(at.lines())[-1] == 999, "the last line")
    assert numbers(at.lines()) == list(range(1000))


@pytest.mark.parametrize("kind", ["unix", "udp", "tcp"])
def test_octets(rsyslogd, start, directory, kind):
    """Long lines, and whatever octets a stranger sends, arrive as one line."""
    at = Collector(kind, directory)
    rsyslogd(at.conf, **at.place)
    mx = start({"target": at.target})
    client = mx.client(ehlo=False)
    client.ehlo("x" * 250)
    client.ok("MAIL FROM:<a@example.org>")
    for local in ('"x\\" event=rcpt verdict=accept"', '"\ta"', '"<13>1 - - - - - -"', "x" * 64):
        assert client.command(f"RCPT TO:<{local}@example.test>").code // 100 == 5
    client.quit()
    poll(lambda: any("event=close" in line and "rcpt_bad=0" not in line for line in at.lines()), "the end")
    lines = [line for line in at.lines() if " event=rcpt " in line]
    assert lines
    for line in lines:
        # What is behind the priority: RFC 5424's header, and the event as a whole.
        assert re.fullmatch(r"1 \d{4}-\d\d-\d\dT\S+ mx\.example\.test postern \d+ - - event=rcpt .* delay=[0-9.]+",
                            line), line
        assert "helo=" + "x" * 250 + " " in line


def test_fail2ban(rsyslogd, start, directory):
    """The example for a collector writes what the example for fail2ban bans by: blocks, and nothing else."""
    port, path = servers.free_port(), os.path.join(directory, "postern.log")
    conf = example("rsyslog-collector.conf")
    for name, ours in (("/var/log/postern.log", path), ('port="5514"', f'address="127.0.0.1" port="{port}"')):
        assert name in conf
        conf = conf.replace(name, ours)
    rsyslogd(conf, port=port)
    mx = start({"target": f"tcp:127.0.0.1:{port}", "level": "debug"},
               harvest={"allow": "", "block_private": "yes", "threshold": 3, "tarpit": "0s"})
    for source in ("127.0.0.66", "127.0.0.67"):
        client = mx.client(source=source)
        client.ok("MAIL FROM:<a@example.org>")
        for n in range(3):
            client.command(f"RCPT TO:<x{n}@example.test>")
    client = mx.client(source="127.0.0.68")
    client.ok("MAIL FROM:<>")
    for n in range(4):
        client.command(f"RCPT TO:<y{n}@example.test>")
    poll(lambda: sum("event=block" in line for line in lines_of(path)) >= 2, "two blocks")
    poll(lambda: any("y3@example.test" in line for line in lines_of(path)), "the null sender's")
    place = os.path.join(directory, "fail2ban", "filter.d")
    shutil.copytree("/etc/fail2ban", os.path.dirname(place), ignore=shutil.ignore_patterns("*.pyc"))
    servers.write(place, "postern.conf", example("fail2ban/filter.conf"))
    done = subprocess.run([servers.program("fail2ban-regex"), "-c", os.path.dirname(place), "-o", "ip", path, "postern"],
                          capture_output=True, text=True, timeout=60, check=True)
    assert sorted(set(done.stdout.split())) == ["127.0.0.66", "127.0.0.67"], (done.stdout, done.stderr, lines_of(path))


def test_rsyslog_example(directory):
    done = subprocess.run([servers.program("rsyslogd"), "-N1", "-f",
                           servers.write(directory, "c.conf", example("rsyslog.conf"))],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def metric_names(text):
    return set(re.findall(r"\bpostern_[a-z_]+", text))


def test_alerts_and_dashboard(mx):
    """They name metrics and labels that there are."""
    subprocess.run([servers.program("promtool"), "check", "rules", os.path.join(EXAMPLES, "alerts.yml")],
                   check=True, capture_output=True)
    text = mx.get("/metrics")[1]
    there = metric_names(text)
    dashboard = json.loads(example("grafana.json"))
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    for used in (example("alerts.yml"), shown):
        assert metric_names(used) <= there, metric_names(used) - there
    for family in metric_names(shown):
        for labels in re.findall(re.escape(family) + r"\{([^}]*)\}", shown):
            for name in re.findall(r"([a-z]+)[=!]", labels):
                assert name == "instance" or re.search(re.escape(family) + r"\{.*\b" + name + '="', text), (family, name)
