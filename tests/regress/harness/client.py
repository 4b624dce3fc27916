"""A raw SMTP client: it sends exactly what it is told, and reads replies strictly."""

import re
import socket
import ssl
import struct
from typing import NamedTuple

from .journal import DEADLINE_S

_LINE = re.compile(rb"([2-5][0-9][0-9])([ -])([\t\x20-\x7e\x80-\xff]*)\r\n")
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)")


class Reply(NamedTuple):
    code: int
    lines: list  # texts without the code, enhanced code included

    @property
    def enhanced(self):
        found = _ENHANCED.match(self.lines[0])
        return found.group() if found else None

    @property
    def status(self):
        """"550 5.1.1", or the code alone."""
        return f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)

    def __str__(self):
        return f"{self.code} " + " / ".join(self.lines)


def dot_stuff(content):
    """CONTENT, whose lines end with CRLF, as DATA carries it, the end included."""
    stuffed = re.sub(rb"(^|\r\n)\.", rb"\1..", content)
    return stuffed + (b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n")


def proxy_header(client, port=40000):
    """A PROXY header, version 1, that tells CLIENT's address."""
    kind, server = ("TCP6", "2001:db8::25") if ":" in client else ("TCP4", "192.0.2.25")
    return f"PROXY {kind} {client} {server} {port} 25\r\n".encode()


class Client:
    """FIRST: octets that are sent before the greeting."""

    def __init__(self, address, source=None, greet=True, first=b"", timeout=DEADLINE_S):
        self.socket = socket.create_connection(
            address, timeout, source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.socket.sendall(first)
        self.greeting = self.reply() if greet else None

    # Octets

    def send(self, data, trickle=False):
        """TRICKLE: octet by octet, each in a packet of its own."""
        if isinstance(data, str):
            data = data.encode()
        for piece in ([bytes([octet]) for octet in data] if trickle else [data]):
            self.socket.sendall(piece)

    def receive_line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"closed after {self.buffer!r}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line + b"\n"

    def reply(self):
        lines, code = [], None
        while True:
            line = self.receive_line()
            match = _LINE.fullmatch(line)
            assert match, f"not a reply line: {line!r}"
            assert code in (None, match[1]), f"codes differ in a reply: {line!r}"
            assert len(line) <= 1024, f"long reply line: {line!r}"
            code = match[1]
            lines.append(match[3].decode())
            if match[2] == b" ":
                return Reply(int(code), lines)

    def ended(self):
        """Assert that the server closes without another word."""
        assert not self.buffer, f"left: {self.buffer!r}"
        data = self.socket.recv(65536)
        assert data == b"", f"more than the reply: {data!r}"

    def silent(self):
        """Assert that nothing is there to read; only after an event that proves it should be."""
        self.socket.setblocking(False)
        try:
            more = self.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            more = b""
        finally:
            self.socket.settimeout(DEADLINE_S)
        assert not self.buffer + more, f"unasked: {self.buffer + more!r}"

    def close(self):
        self.socket.close()

    def reset(self):
        """End with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # Commands

    def command(self, line):
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def pipeline(self, *lines):
        """All in one write; a reply for each."""
        self.send(b"".join((x.encode() if isinstance(x, str) else x) + b"\r\n" for x in lines))
        return [self.reply() for _ in lines]

    def ehlo(self, name="client.example.org"):
        """The keywords offered, each with its arguments."""
        reply = self.command(f"EHLO {name}")
        assert reply.code == 250, reply
        offered = {}
        for line in reply.lines[1:]:
            keyword, _, arguments = line.partition(" ")
            assert keyword not in offered, f"{keyword} twice"
            offered[keyword] = arguments
        return offered

    def starttls(self, context, name="mx.example.test"):
        reply = self.command("STARTTLS")
        assert reply.code == 220, reply
        assert not self.buffer
        self.socket = context.wrap_socket(self.socket, server_hostname=name)

    def ok(self, line):
        reply = self.command(line)
        assert reply.code // 100 in (2, 3), f"{line}: {reply}"
        return reply

    def envelope(self, sender, *recipients, mail=""):
        self.ok(f"MAIL FROM:<{sender}>{mail}")
        for recipient in recipients:
            self.ok(f"RCPT TO:<{recipient}>")

    def data(self, content):
        """The reply to CONTENT, sent by DATA."""
        assert self.command("DATA").code == 354
        self.send(dot_stuff(content))
        return self.reply()

    def send_message(self, content, *recipients, sender="sender@example.org"):
        """As `deliver`, but the reply to CONTENT is still to come."""
        self.envelope(sender, *recipients)
        assert self.command("DATA").code == 354
        self.send(dot_stuff(content))

    def bdat(self, *chunks):
        """The replies to CHUNKS, the last one LAST, all in one write."""
        for index, chunk in enumerate(chunks):
            last = b" LAST" if index == len(chunks) - 1 else b""
            self.send(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
        return [self.reply() for _ in chunks]

    def deliver(self, content, *recipients, sender="sender@example.org"):
        self.send_message(content, *recipients, sender=sender)
        return self.reply()

    def attempt(self, content, *recipients, sender="sender@example.org"):
        """As `deliver`, but at the first refusal it is over: that is the reply then."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)):
            reply = self.command(line)
            if reply.code != 250:
                return reply
        return self.data(content)

    def quit(self):
        reply = self.command("QUIT")
        assert reply.status == "221 2.0.0", reply
        self.ended()
        self.close()
