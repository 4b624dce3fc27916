"""Those who talk to Postern: senders of mail, and the others."""

import random
import socket
import ssl
import threading
import time
from collections import Counter

from harness import Client
from harness.client import dot_stuff, proxy_header

KNOWN = 200  # person0@ and so on
DOMAINS = "faulty.test", "copied.test"  # asked for live, and kept as a snapshot
SENDER = "sender@dns.test"  # a domain that says who may send for it
CLIENTS = 40  # few, so that what is remembered of each is soon as much as it can be
CROWD = 60
RETRY_S = (2, 6)
SIZES = (200, 200, 2000, 2000, 20000, 200000)
TIMEOUT_S = 90


def known():
    return f"person{random.randrange(KNOWN)}@{random.choice(DOMAINS)}"


def unknown():
    return f"nobody{random.randrange(2000)}@{random.choice(DOMAINS)}"


class Gone(Exception):
    """The client has left by itself."""


class People:
    """WORLD: where Postern is.  Each of the threads is one of them after the other."""

    WEIGHTS = {"mail": 60, "leave": 15, "harvest": 8, "dawdle": 6, "babble": 6, "handshake": 5, "crowd": 2}

    def __init__(self, world, books):
        self.world, self.books = world, books
        self.counts = Counter()
        self.replies = Counter()
        self.waiting = []
        self.lock = threading.Lock()
        self.ending = threading.Event()  # nothing new
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._live, args=(pause,), daemon=True)
                        for pause in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def finish(self, timeout_s):
        """Nothing new; what waits to be sent again is.  The number of messages that wait still."""
        self.ending.set()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and any(m.open for m in self.books.messages.values()):
            time.sleep(0.5)
        self.over.set()
        for thread in self.threads:
            thread.join(TIMEOUT_S * 2)
        return len(self.waiting)

    def _live(self, pause):
        while not self.over.wait(random.uniform(0, 2 * pause)):
            message = self._due()
            if self.ending.is_set():
                kind = "mail" if message else None
            else:
                kind = random.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))[0]
                if message:
                    kind = "mail"
            if kind is None:
                continue
            self.counts[kind] += 1
            try:
                if message or kind == "mail":
                    self._send(message or self._new())
                else:
                    getattr(self, "_" + kind)()
            except (OSError, ConnectionError, Gone):
                pass
            except Exception as error:  # pylint: disable=broad-except
                self.books.fault(f"{kind}: {error!r}")

    def _new(self):
        return self.books.new(sorted({known() for _ in range(random.choice((1, 1, 1, 2, 3)))}),
                              random.choice(SIZES))

    def _due(self):
        with self.lock:
            for message in self.waiting:
                if message.due <= time.monotonic():
                    self.waiting.remove(message)
                    return message
        return None

    def _connect(self, client=None, greet=True):
        told = client or f"192.0.2.{6 * random.randrange(CLIENTS) + 1}"
        one = Client(self.world.address, first=proxy_header(told), greet=False, timeout=TIMEOUT_S)
        if greet:
            one.greeting = one.reply()
            self.replies[one.greeting.code] += 1
            if one.greeting.code != 220:
                one.close()
                raise Gone()
            one.ehlo()
        return one

    def _secure(self, client):
        client.starttls(self.world.certificates.client_context())
        client.ehlo()

    # Mail

    def _send(self, message, leave_at=None):
        message.attempts += 1
        served, reply = [], None
        message.note(f"attempt, to leave at {leave_at}" if leave_at else "attempt")
        try:
            client = self._connect()
            try:
                served, reply = self._transaction(client, message, leave_at)
            finally:
                client.close()
        finally:
            if reply and reply.code == 250:
                self.books.acknowledge(message, served)
            elif reply:
                message.note(str(reply))
            if reply and reply.status == "451 4.4.2":
                self.books.may_be_lost(message.number)
            if message.open:
                message.due = time.monotonic() + random.uniform(*RETRY_S)
                with self.lock:
                    self.waiting.append(message)

    def _transaction(self, client, message, leave_at):
        """Who was accepted, and the reply to the content; that is None if it did not come so far."""
        if random.random() < 0.3:
            self._secure(client)
        wanted = sorted(message.open)
        lines = [f"MAIL FROM:<{SENDER}>"] + [f"RCPT TO:<{one}>" for one in wanted]
        if random.random() < 0.2:
            lines.insert(1, f"RCPT TO:<{unknown()}>")
        if leave_at == "envelope":
            client.send("\r\n".join(lines)[:random.randrange(5, 60)])
            raise Gone()
        replies = (client.pipeline(*lines) if random.random() < 0.5 else
                   [client.command(line) for line in lines])
        for line, answer in zip(lines, replies):
            self.replies[answer.code] += 1
            if line.startswith("RCPT TO:<nobody") and answer.code == 250:
                self.books.fault(f"{line}: {answer}")
            if not line.startswith("RCPT TO:<nobody") and answer.code // 100 == 5:
                self.books.fault(f"{line}: {answer}")
        served = [line[9:-1] for line, answer in zip(lines, replies)
                  if line.startswith("RCPT") and answer.code == 250]
        if not served:
            return served, None
        reply = self._content(client, message.content, leave_at)
        self.replies[reply.code] += 1
        return served, reply

    def _content(self, client, content, leave_at):
        if random.random() < 0.5:
            cut = random.randrange(len(content))
            octets = b"BDAT %d\r\n" % cut + content[:cut] + b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:]
            replies = 2
        else:
            if (answer := client.command("DATA")).code != 354:
                return answer
            octets, replies = dot_stuff(content), 1
        if leave_at == "content":
            client.send(octets[:random.randrange(len(octets))])
            client.reset()
            raise Gone()
        client.send(octets)
        if leave_at == "reply":
            client.reset()
            raise Gone()
        answers = [client.reply() for _ in range(replies)]
        return next((answer for answer in answers if answer.code != 250), answers[-1])

    # Others

    def _leave(self):
        """Gone in the midst; its message comes again, but once only."""
        self._send(self._new(), random.choice(("envelope", "content", "reply", "reply")))

    def _harvest(self):
        client = self._connect(f"198.51.100.{random.randrange(1, 250)}")
        client.ok("MAIL FROM:<sender@example.org>")
        for _ in range(12):
            answer = client.command(f"RCPT TO:<{unknown()}>")
            self.replies[answer.code] += 1
            if answer.code == 250:
                self.books.fault(f"a harvester heard {answer}")
            if answer.code == 421:
                break
        client.close()

    def _dawdle(self):
        client = self._connect()
        for octet in b"MAIL FROM:<slow@example.org>\r\nRCPT TO:<%s>\r\n" % known().encode():
            client.send(bytes([octet]))
            time.sleep(0.05)
        client.close()

    def _babble(self):
        client = self._connect()
        client.send(random.choice((
            random.randbytes(3000) + b"\r\n", b"x" * 70000, b"MAIL FROM:<a@b>\nRCPT TO:<c@d>\n", b"BDAT -1\r\n\0\0",
            b"NOOP\r\n" * 500, b"BDAT 4294967296 LAST\r\n", b"FOO\r\n" * 40, b"STARTTLS\r\nMAIL FROM:<a@b>\r\n")))
        client.socket.settimeout(2)
        try:
            while client.socket.recv(65536):
                pass
        finally:
            client.close()

    def _handshake(self):
        """Begun, and left."""
        client = self._connect()
        client.ok("STARTTLS")
        client.send(b"\x16\x03\x01\x02\x00" + random.randbytes(40))
        if random.random() < 0.5:
            client.reset()
            return
        client.socket.settimeout(2)
        try:
            client.socket.recv(100)
        except (socket.timeout, ssl.SSLError):
            pass
        client.close()

    def _crowd(self):
        """Many at once, who say nothing."""
        crowd = [self._connect(greet=False) for _ in range(CROWD)]
        for one in crowd[::2]:
            one.reply()
        for one in crowd:
            random.choice((one.close, one.reset))()
