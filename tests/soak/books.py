"""What was sent, what was acknowledged, what was delivered, and whether the three agree."""

import hashlib
import random
import re
import threading
import time
from collections import Counter

from harness.journal import Journal

_MARK = re.compile(rb"X-Soak: (\d+) ([0-9a-f]{64})\r\n")
LOST_S = 2.0  # an answer given so shortly before its connection was killed may not have arrived


class Recent(Journal):
    """Keeps the last items only."""

    KEPT = 400

    def add(self, item):
        super().add(item)
        with self._changed:
            del self._items[:-self.KEPT]


class Log(Recent):
    """Postern's log, counted by event."""

    def __init__(self):
        super().__init__("log")
        self.counts = Counter()

    def add(self, item):
        self.counts[item["event"]] += 1
        super().add(item)


class Message:
    def __init__(self, number, recipients, size):
        self.number = number
        self.recipients = recipients
        lines = [b"%d." % number + b"x" * random.randrange(60) for _ in range(size // 40)]
        body = b"..\r\n" + b"\r\n".join(lines) + b"\r\n.\r\n"
        self.content = (b"From: <sender@example.org>\r\nSubject: soak\r\nX-Soak: %d %s\r\n\r\n"
                        % (number, hashlib.sha256(body).hexdigest().encode()) + body)
        self.open = set(recipients)  # not acknowledged yet
        self.attempts = 0
        self.is_lost = False  # the downstream's answer may have been lost: it may come twice
        self.due = 0.0
        self.history = []

    def note(self, text):
        self.history.append(f"{time.strftime('%H:%M:%S')} {text}")

    def __str__(self):
        return f"message {self.number} ({'; '.join(self.history)})"


class Books:
    def __init__(self):
        self.lock = threading.Lock()
        self.messages = {}
        self.delivered = Counter()  # (number, recipient)
        self.taken_at = {}
        self.faults = []
        self.acknowledged = 0

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def new(self, recipients, size):
        with self.lock:
            message = Message(len(self.messages) + 1, recipients, size)
            self.messages[message.number] = message
        return message

    def acknowledge(self, message, recipients):
        """A 250 for RECIPIENTS: they have it by now."""
        with self.lock:
            self.acknowledged += 1
            message.note(f"acknowledged for {len(recipients)}")
            message.open -= set(recipients)
            for recipient in recipients:
                if self.delivered[message.number, recipient] == 0:
                    self.faults.append(f"{message}: acknowledged, not delivered to {recipient}")
            if not message.open:
                message.content = b""

    def take(self, taken):
        """The downstream has said 250, or was about to."""
        mark = _MARK.search(taken.content)
        if not mark or hashlib.sha256(taken.body).hexdigest().encode() != mark[2]:
            self.fault(f"content that nobody sent: {taken.content[:300]!r}")
            return
        number, now = int(mark[1]), time.monotonic()
        with self.lock:
            self.taken_at[number] = now
            if number in self.messages:
                self.messages[number].note(f"delivered to {len(taken.addresses)}")
            for recipient in taken.addresses:
                self.delivered[number, recipient] += 1

    def may_be_lost(self, number):
        with self.lock:
            self.messages[number].is_lost = True

    def killed(self):
        """Connections of the downstream's end now, whatever they were about to say."""
        since = time.monotonic() - LOST_S
        with self.lock:
            for number, at in self.taken_at.items():
                if at > since:
                    self.messages[number].is_lost = True
            self.taken_at = {number: at for number, at in self.taken_at.items() if at > since}

    def close(self):
        """What does not agree, once all is quiet."""
        with self.lock:
            for (number, recipient), count in self.delivered.items():
                message = self.messages.get(number)
                if message is None or recipient not in message.recipients:
                    self.faults.append(f"message {number}: nobody sent it to {recipient}")
                elif count > 1 and not message.is_lost:
                    self.faults.append(f"{message}: {count} times to {recipient}")
            self.faults += [f"{m}: never acknowledged for {sorted(m.open)}"
                            for m in self.messages.values() if m.open]
            return self.faults

    def twice(self):
        return sum(count - 1 for count in self.delivered.values() if count > 1)


class Taken(Journal):
    """A FakeExchange's journal of what it delivered, straight into the books."""

    def __init__(self, books):
        super().__init__("delivered")
        self.books = books

    def add(self, item):
        self.books.take(item)
