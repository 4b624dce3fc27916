"""A directory server that says whatever a test wants: what no real one can be brought to say."""

import socket
import socketserver
import threading

from .journal import Journal

# BER, as much of it as LDAP (RFC 4511) takes.


def ber(tag, *parts):
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def integer(value, tag=2):
    return ber(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def text(value, tag=4):
    return ber(tag, value if isinstance(value, bytes) else value.encode())


def children(body):
    """(tag, content) of each value in BODY."""
    at = 0
    while at < len(body):
        tag, size = body[at], body[at + 1]
        at += 2
        if size & 0x80:
            octets = size & 0x7f
            size = int.from_bytes(body[at:at + octets], "big")
            at += octets
        yield tag, body[at:at + size]
        at += size


def filter_text(tag, body):
    """As RFC 4515 writes it, but unescaped."""
    parts = list(children(body)) if tag != 0x87 else []
    if tag in (0xa0, 0xa1, 0xa2):
        return "(" + {0xa0: "&", 0xa1: "|", 0xa2: "!"}[tag] + "".join(filter_text(*part) for part in parts) + ")"
    if tag == 0x87:
        return f"({body.decode()}=*)"
    if tag == 0xa4:
        pieces = [("*" if kind != 0x80 else "") + piece.decode() for kind, piece in children(parts[1][1])]
        return f"({parts[0][1].decode()}={''.join(pieces)}*)"
    if tag == 0xa9:
        named = {kind: piece.decode() for kind, piece in parts}
        return f"({named.get(0x82, '')}:{named.get(0x81, '')}:={named[0x83]})"
    sign = {0xa3: "=", 0xa5: ">=", 0xa6: "<=", 0xa8: "~="}[tag]
    return f"({parts[0][1].decode()}{sign}{parts[1][1].decode()})"


class Search:
    """A question: base, scope (0: base, 2: subtree), filter and attributes, as text."""

    def __init__(self, body):
        fields = list(children(body))
        self.base = fields[0][1].decode()
        self.scope = fields[1][1][0]
        self.filter = filter_text(*fields[6])
        self.attributes = [value.decode() for _, value in children(fields[7][1])]

    def __repr__(self):
        return f"Search({self.base!r}, {self.scope}, {self.filter!r}, {self.attributes})"


# What a test may answer with: a list of these.


def entry(dn, attributes):
    """ATTRIBUTES: lists of values by name, which may have options."""
    return ber(0x64, text(dn), ber(0x30, *(
        ber(0x30, text(name), ber(0x31, *(text(value) for value in values)))
        for name, values in attributes.items())))


def reference(uri="ldap://elsewhere.test/"):
    return ber(0x73, text(uri))


def done(code=0, words="", tag=0x65):
    return ber(tag, integer(code, 10), text(""), text(words))


class Cut:
    """The connection ends here."""


class Raw:
    """OCTETS, whatever they are."""

    def __init__(self, octets):
        self.octets = octets


class WithControls:
    """OPERATION, and controls (of `control`) behind it."""

    def __init__(self, operation, controls):
        self.operation = operation
        self.controls = controls


def control(name, value=None):
    """VALUE is left out if there is none."""
    return ber(0x30, text(name), *([] if value is None else [text(value)]))


def notice_of_disconnection(words=""):
    """RFC 4511 4.4.1.  Of WORDS libldap forgets the memory."""
    return Raw(ber(0x30, integer(0), ber(0x78, integer(52, 10), text(""), text(words),
                                         text("1.3.6.1.4.1.1466.20036", 0x8a))))


# What Postern asks for to learn whether a server answers.
PROBE = "probe@postern.invalid"


class LdapServer:
    """ANSWER(search) says what comes; a list without `done` at its end is ended with success.  `searches` has what was
    asked, `binds` one for each connection that got as far.  The root of it is ROOT: attributes of its rootDSE.  Probes
    get PROBED, and are not in `searches`.  Other answers come DELAY seconds late, each for itself."""

    def __init__(self, answer, root=None, probed=(), delay=0):
        self.answer = answer
        self.delay = delay
        self.lock = threading.Lock()
        self.root = root or {}
        self.probed = probed
        self.extended = lambda number: b""  # what comes for an extended request
        self.searches = Journal("searches")
        self.binds = Journal("binds")
        self.connections = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                outer.connections.append(self.request)
                try:
                    outer.serve(self.request)
                except OSError:
                    pass

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.uri = "ldap://127.0.0.1:%d" % self.listener.server_address[1]
        self.thread = threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def serve(self, connection):
        with connection.makefile("rb") as stream:
            while True:
                message = self.read(stream)
                if message is None:
                    return
                number, (tag, body) = message
                if tag == 0x60:
                    self.binds.add(body)
                    self.send(connection, number, [done(tag=0x61)])
                elif tag == 0x63 and self.delay:
                    threading.Timer(self.delay, self.send_late, (connection, number, Search(body))).start()
                elif tag == 0x63 and not self.send(connection, number, self.reply(Search(body))):
                    return
                elif tag == 0x77:
                    connection.sendall(self.extended(number))
                elif tag == 0x42:
                    return

    @staticmethod
    def read(stream):
        head = stream.read(2)
        if len(head) < 2:
            return None
        size = head[1]
        if size & 0x80:
            size = int.from_bytes(stream.read(size & 0x7f), "big")
        fields = list(children(stream.read(size)))
        return int.from_bytes(fields[0][1], "big"), fields[1]

    def reply(self, search):
        if search.base == "" and search.scope == 0:
            return [entry("", self.root)]
        if PROBE in search.filter:
            return self.probed
        self.searches.add(search)
        return self.answer(search)

    def send_late(self, connection, number, search):
        try:
            with self.lock:
                self.send(connection, number, self.reply(search))
        except OSError:
            pass  # nobody waits for it any longer

    def send(self, connection, number, parts):
        """False: the connection is over."""
        parts = list(parts)
        last = parts[-1] if parts else b""
        if not isinstance(last, (Cut, Raw, WithControls)) and last[:1] not in (b"\x65", b"\x61"):
            parts.append(done())
        for part in parts:
            if isinstance(part, Cut):
                connection.shutdown(socket.SHUT_RDWR)
                return False
            connection.sendall(self.message(number, part))
        return True

    @staticmethod
    def message(number, part):
        if isinstance(part, Raw):
            return part.octets
        if isinstance(part, WithControls):
            return ber(0x30, integer(number), part.operation, *([ber(0xa0, *part.controls)] if part.controls else []))
        return ber(0x30, integer(number), part)

    def stop(self):
        self.listener.shutdown()
        self.listener.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
