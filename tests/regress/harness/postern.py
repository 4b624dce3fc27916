"""The built program, with a configuration of its own, on ports of its own."""

import collections
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading

from .client import Client, proxy_header
from .journal import DEADLINE_S, Journal, poll

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BINARY = os.environ.get("POSTERN", os.path.join(SOURCE, "build", "release", "postern"))

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) (event=.*)")
_PAIR = re.compile(r'([a-z_]+)=(?:"((?:[^"\\\x00-\x1f\x7f]|\\x[0-9a-fA-F]{2})*)"|([^\s"\\=\x00-\x1f\x7f]*))(?: |$)')


_MARKER = "127.0.0.250"  # a client that no test is about


class Event(dict):
    """A log line's pairs, unquoted; `text` is the line without its time."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        at = 0
        while at < len(text):
            match = _PAIR.match(text, at)
            if not match or match[1] in self:
                raise ValueError(f"not a log line: {text!r}")
            quoted = match[2]
            self[match[1]] = match[3] if quoted is None else re.sub(
                r"\\x(..)", lambda found: chr(int(found[1], 16)), quoted)
            at = match.end()
        if not text.startswith("event="):
            raise ValueError(f"event does not come first: {text!r}")

    def __str__(self):
        return self.text

    def has(self, pairs):
        return all(self.get(key) == str(value) for key, value in pairs.items())


def takes_libraries():
    """Whether LD_PRELOAD may put one in front of the program's: not of a sanitizer's."""
    with open(BINARY, "rb") as program:
        return not re.search(rb"lib[at]san\.so", program.read())


def free_port(host="127.0.0.1"):
    """A port below the range that the kernel hands out by itself.  Daemons that share ports would not notice
    a second one on theirs, so a UDP socket elsewhere keeps other test runs from choosing the same."""
    for port in range(free_port.next, 32000):
        token = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                token.bind(("127.0.0.254", port))
                probe.bind((host, port))
            except OSError:
                token.close()
                continue
        free_port.tokens.append(token)
        free_port.next = port + 1
        return port
    raise AssertionError("no port is free")


free_port.next = 10000 + os.getpid() * 37 % 15000
free_port.tokens = []


def merge(base, changes):
    """Sections of BASE with the keys of CHANGES; a section or key that is None goes."""
    merged = {section: dict(keys) for section, keys in base.items()}
    for section, keys in (changes or {}).items():
        if keys is None:
            merged.pop(section, None)
            continue
        for key, value in keys.items():
            merged.setdefault(section, {})[key] = value
            if value is None:
                del merged[section][key]
    return merged


def ini(sections):
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]"] + [f"{key} = {value}".rstrip() for key, value in keys.items()] + [""]
    return "\n".join(lines)


def last_transaction(path):
    """Of an LMDB file: the number in the newer one of its two first pages."""
    with open(path, "rb") as file:
        pages = [file.read(4096) for _ in range(2)]
    assert all(page[16:20] == b"\xde\xc0\xef\xbe" for page in pages)
    return max(int.from_bytes(page[144:152], "little") for page in pages)


class Postern:
    """HOSTS: the downstream's, as text or FakeExchange.  SETTINGS: changes to what `defaults` says."""

    def __init__(self, directory, hosts, recipients=(), settings=None):
        self.directory = directory
        self.address = ("127.0.0.1", free_port())
        self.http = ("127.0.0.1", free_port())
        self.socket_path = os.path.join(directory, "control.sock")
        self.config_path = os.path.join(directory, "postern.ini")
        self.recipients_path = os.path.join(directory, "recipients")
        self.log = Journal("log")
        self.stray = Journal("stderr beside the log")
        self.clients = []
        self.process = None
        self.reader = None
        self.settings = merge(self.defaults(hosts), settings)
        self.write_recipients(recipients)
        self.write_config()

    def defaults(self, hosts):
        return {
            "server": {
                "hostname": "mx.example.test",
                "listen": "%s:%d" % self.address,
                "workers": 1,
                "state_dir": os.path.join(self.directory, "state"),
                "drain_timeout": "5s",
            },
            "log": {"target": "stderr"},
            "control": {"socket": self.socket_path},
            "http": {"listen": "%s:%d" % self.http},
            "domain example.test": {"downstream": "exchange"},
            "downstream exchange": {
                "hosts": ", ".join(getattr(host, "host", host) for host in hosts),
                "tls": "off",
                "health_interval": "1h",
            },
            "directory": {"type": "file", "file": self.recipients_path},
            "harvest": {"tarpit": "0s"},
        }

    # Its files

    def write_config(self, changes=None):
        self.settings = merge(self.settings, changes)
        self.write(self.config_path, ini(self.settings))

    def write_recipients(self, recipients):
        self.write(self.recipients_path, "".join(f"{address}\n" for address in recipients))

    @staticmethod
    def write(path, text):
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(text)
        os.rename(path + ".new", path)

    # Its life

    def start(self, wait_downstream=True, **environment):
        self.process = subprocess.Popen([BINARY, "-c", self.config_path], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, cwd=self.directory, env={**os.environ, **environment})
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        since = len(self.log)
        self.log.open()
        self.reader.start()
        self.wait_log("start", since=since)
        if wait_downstream:
            self.wait_log("downstream", state="up", since=since)
        return self

    def _read(self, stderr):
        with stderr:
            for raw in stderr:
                line = raw.decode("utf-8", "backslashreplace").rstrip("\n")
                match = _STAMP.fullmatch(line)
                try:
                    if not match:
                        raise ValueError(line)
                    self.log.add(Event(match[1]))
                except ValueError as error:
                    self.stray.add(str(error))
        self.log.close()

    def wait_log(self, event, since=0, **pairs):
        return self.log.wait(lambda e: e["event"] == event and e.has(pairs), f"event={event} {pairs}",
                             since=since)

    def events(self, event, **pairs):
        """What was logged until now: all of it, since lines are written by a thread of their own."""
        self._catch_up()
        return [e for e in self.log if e["event"] == event and e.has(pairs) and e.get("client") != _MARKER]

    def _catch_up(self):
        """A connection of our own, whose line comes behind all that were there before it."""
        since = len(self.log)
        try:
            with socket.create_connection(self.address, timeout=1, source_address=(_MARKER, 0)):
                self.log.wait(lambda e: e["event"] == "connect" and e.get("client") == _MARKER, "the marker",
                              since=since, timeout=2)
        except (OSError, AssertionError):
            pass  # nobody listens, or the level is too low: then what is there must do

    def send_signal(self, number):
        self.process.send_signal(number)

    def reload(self, state="loaded"):
        since = len(self.log)
        self.send_signal(signal.SIGHUP)
        return self.wait_log("config", state=state, since=since)

    def wait_exit(self, seconds=DEADLINE_S * 2):
        code = self.process.wait(seconds)
        self.reader.join(DEADLINE_S)
        return code

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """SIGTERM; the exit must be a clean one, and nothing but the log on stderr."""
        for client in self.clients:
            client.close()
        if self.is_running():
            self.send_signal(signal.SIGTERM)
        try:
            code = self.wait_exit()
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGABRT)
            raise AssertionError("SIGTERM does not end it") from None
        assert list(self.stray) == [], "\n".join(list(self.stray)[:60])
        assert code == 0, f"exit status {code}"

    def kill(self, number=signal.SIGKILL):
        self.send_signal(number)
        self.wait_exit()

    def crash(self):
        """SIGKILL, and a second run with a log of its own."""
        self.kill()
        self.log = Journal("log of another run")
        self.start()

    def save(self):
        """Wait until all that is known now is in state_dir, which takes at most 2 s: the transaction that ends next
        may have begun before, the one behind it has not.  What there is to save is a block of SAVED."""
        path = os.path.join(self.settings["server"]["state_dir"], "policy.mdb")
        for duration in ("1h", "2h"):
            last = last_transaction(path)
            assert self.control("block", self.SAVED, duration)["ok"]
            poll(lambda last=last: last_transaction(path) > last, "another state", timeout=2.5)

    SAVED = "203.0.113.254"

    # Its faces

    def client(self, source=None, greet=True, ehlo=True, told=None):
        """A connection, greeted and with EHLO said (its capabilities in `offered`).  TOLD: the address that a
        proxy tells for its client."""
        client = Client(self.address, source=source, greet=greet, first=proxy_header(told) if told else b"")
        self.clients.append(client)
        client.offered = client.ehlo() if greet and ehlo else None
        return client

    def rcpt(self, address, sender="sender@example.org", size=None):
        """The reply to RCPT for ADDRESS, in a session of its own."""
        client = self.client()
        client.ok(f"MAIL FROM:<{sender}>" + (f" SIZE={size}" if size else ""))
        reply = client.command(f"RCPT TO:<{address}>")
        client.close()
        return reply

    def try_client(self):
        """A client, or None while nobody listens."""
        try:
            return self.client()
        except OSError:
            return None

    def memory_kib(self):
        """What it has of its own.  Not its proportional set size: of the libraries' pages that grows whenever
        another process that has them ends."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))

    def is_sanitized(self):
        """Built with a sanitizer, or under valgrind, whose own memory drowns the program's."""
        with open(f"/proc/{self.process.pid}/maps", encoding="ascii") as maps:
            return bool(re.search("san.so|valgrind", maps.read()))

    def control(self, command, *args):
        with socket.socket(socket.AF_UNIX) as conn:
            conn.settimeout(DEADLINE_S)
            conn.connect(self.socket_path)
            conn.sendall(json.dumps({"command": command, "args": args}).encode() + b"\n")
            with conn.makefile("rb") as answer:
                return json.loads(answer.readline())

    def get(self, path):
        conn = http.client.HTTPConnection(*self.http, timeout=DEADLINE_S)
        try:
            conn.request("GET", path)
            answer = conn.getresponse()
            return answer.status, answer.read().decode()
        finally:
            conn.close()

    def metrics(self):
        status, text = self.get("/metrics")
        assert status == 200
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def assert_counts_are_the_log_s(self):
        """Of recipients and harvests, whose every line counts.  Sessions are at rest."""
        told = collections.Counter()
        for e in self.events("rcpt"):
            told[f'postern_recipients_total{{verdict="{e["verdict"]}",reason="{e["reason"]}"}}'] += 1
        for e in self.events("harvest"):
            told[f'postern_harvests_total{{action="{e["action"]}"}}'] += 1
        assert told == {name: n for name, n in self.metrics().items()
                        if n and name.startswith(("postern_recipients_total", "postern_harvests_total"))}


def check(text, directory):
    """postern -t: the completed process, and the path of the configuration it was given."""
    path = os.path.join(directory, "checked.ini")
    Postern.write(path, text)
    done = subprocess.run([BINARY, "-t", "-c", path], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=DEADLINE_S, text=True, check=False)
    return done, path
