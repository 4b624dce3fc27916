"""A downstream that speaks SMTP as Exchange does, and misbehaves as it is told.

What a test says with `exchange.on(VERB, action)` is done at that step of every connection:

    CONNECT EHLO STARTTLS XCLIENT MAIL RCPT DATA BDAT CONTENT EOD RSET NOOP QUIT

CONTENT comes before the octets of a message are read, EOD when they all are.  An action is a function
of the step; it returns the reply to give instead of the usual one, or None for that one, or ends
the connection by raising Drop.  The ready-made actions are below."""

import re
import socket
import ssl
import struct
import threading

from .journal import DEADLINE_S, Journal

CAPABILITIES = ("SIZE 37748736", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS",
                "X-ANONYMOUSTLS", "AUTH NTLM", "X-EXPS GSSAPI NTLM", "8BITMIME", "BINARYMIME",
                "CHUNKING", "SMTPUTF8", "XRDST")


class Drop(Exception):
    """The connection ends here; `reset`: with RST."""

    def __init__(self, reset=False):
        super().__init__()
        self.reset = reset


# Actions

def reply(text):
    return lambda step: text


def drop(reset=False):
    def action(step):
        raise Drop(reset)
    return action


def reply_and_drop(text, reset=False):
    def action(step):
        step.connection.send(text)
        raise Drop(reset)
    return action


def deliver_and_drop(reset=False):
    """At EOD: the message is delivered, and the client of ours never hears of it."""
    def action(step):
        step.connection.commit("250 2.6.0 Queued")
        raise Drop(reset)
    return action


def hang(step):
    """Read on, and never answer."""
    step.connection.swallow()
    raise Drop()


def stop_reading(step):
    """Neither read nor answer."""
    step.connection.exchange.stopping.wait()
    raise Drop()


def drop_in_content(octets, reset=False):
    """At CONTENT: after that many octets."""
    def action(step):
        step.connection.read_exactly(octets)
        raise Drop(reset)
    return action


def endless(line):
    """Repeat LINE until the other end has had enough."""
    def action(step):
        while True:
            step.connection.send(line)
    return action


def positive(answer, digit="2"):
    return (answer if isinstance(answer, str) else answer.decode("latin-1")).startswith(digit)


def for_argument(pattern, action):
    """Only where the command's argument matches."""
    return lambda step: action(step) if re.search(pattern, step.argument) else None


def first(count, action):
    """Only the first COUNT times, over all connections."""
    lock, seen = threading.Lock(), []

    def once(step):
        with lock:
            if len(seen) >= count:
                return None
            seen.append(step)
        return action(step)
    return once


class Gate:
    """Holds a step until the test opens it; `reached` has every step that came."""

    def __init__(self, action=lambda step: None):
        self.reached = Journal("gate")
        self._open = threading.Event()
        self._action = action

    def __call__(self, step):
        step.connection.exchange.gates.append(self)
        self.reached.add(step)
        assert self._open.wait(DEADLINE_S * 3), "a gate was never opened"
        return self._action(step)

    def open(self):
        self._open.set()


# What is recorded

class Command:
    def __init__(self, connection, verb, line):
        self.connection = connection
        self.verb = verb
        self.line = line

    def __str__(self):
        return f"{self.connection.number}: {self.line}"


class Message:
    """Content that arrived whole; delivered if `reply` is positive."""

    def __init__(self, connection, content, via, answer):
        self.connection = connection
        self.mail = connection.mail
        self.recipients = list(connection.recipients)
        self.content = content
        self.via = via  # DATA or BDAT
        self.reply = answer

    @property
    def addresses(self):
        return [re.match(r"<([^>]*)>", line)[1] for line in self.recipients]

    @property
    def body(self):
        return self.content.partition(b"\r\n\r\n")[2]

    def without_trace(self):
        """The content below the Received field that was put on top."""
        match = re.match(rb"Received:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", self.content)
        assert match, f"no Received field on top: {self.content[:200]!r}"
        return self.content[match.end():]

    def __str__(self):
        return f"{self.mail} -> {self.recipients}: {self.reply}"


class Step:
    def __init__(self, connection, verb, argument, usual):
        self.connection = connection
        self.verb = verb
        self.argument = argument
        self.usual = usual


class Connection:
    def __init__(self, exchange, sock, peer, number):
        self.exchange = exchange
        self.socket = sock
        self.peer = peer
        self.number = number
        self.buffer = b""
        self.commands = []
        self.tls = None  # (version, peer certificate) after a handshake
        self.is_resumed = False
        self.tls_error = None
        self.early = b""  # what stood behind STARTTLS
        self.mail = None
        self.recipients = []
        self.pending = None  # (content, via) that awaits its verdict
        self.ended = None

    def __str__(self):
        return f"{self.number}: {[c.line for c in self.commands]} {self.ended}"

    # Octets

    def send(self, text):
        data = text if isinstance(text, bytes) else text.encode() + b"\r\n"
        if self.exchange.split_replies:
            for octet in data:
                self.socket.sendall(bytes([octet]))
        else:
            self.socket.sendall(data)

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        return data

    def read_line(self):
        while b"\r\n" not in self.buffer:
            self.buffer += self.receive()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def read_exactly(self, count):
        parts, have = [self.buffer], len(self.buffer)
        while have < count:
            parts.append(self.receive())
            have += len(parts[-1])
        data = b"".join(parts)
        self.buffer = data[count:]
        return data[:count]

    def read_data(self):
        """Content of DATA, without its dots."""
        data, self.buffer = b"\r\n" + self.buffer, b""
        start = 0
        while (end := data.find(b"\r\n.\r\n", start)) < 0:
            start = max(0, len(data) - 4)
            data += self.receive()
        self.buffer = data[end + 5:]
        return data[:end + 2].replace(b"\r\n.", b"\r\n")[2:]

    def swallow(self):
        try:
            while self.socket.recv(65536):
                pass
        except OSError:
            pass

    # Steps

    def step(self, verb, argument, usual):
        """Do what is to be done at VERB; the reply that was given."""
        action = self.exchange.actions.get(verb)
        answer = action(Step(self, verb, argument, usual)) if action else None
        answer = usual if answer is None else answer
        if verb == "EOD":
            self.commit(answer)
        if answer:
            self.send(answer)
        return answer

    def commit(self, answer):
        content, via = self.pending
        self.exchange.received.add(message := Message(self, content, via, answer))
        if positive(answer):
            self.exchange.delivered.add(message)
        self.mail, self.recipients = None, []

    def run(self):
        try:
            self.ended = self.converse()
        except Drop as end:
            if end.reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.ended = "reset by us" if end.reset else "closed by us"
        except (OSError, ConnectionError) as error:
            self.ended = f"lost: {error}"
        finally:
            self.socket.close()
            self.exchange.connections.poke()

    def converse(self):
        self.step("CONNECT", "", f"220 {self.exchange.name} Microsoft ESMTP MAIL Service ready")
        while True:
            line = self.read_line()
            text = line.decode("utf-8", "replace")
            verb, _, argument = text.partition(" ")
            verb = verb.upper()
            self.commands.append(command := Command(self, verb, text))
            self.exchange.commands.add(command)
            handler = getattr(self, "on_" + verb.lower(), None)
            if handler is None or not verb.isalpha():
                self.exchange.junk.add(command)
                self.send("500 5.3.3 Unrecognized command")
                continue
            if handler(argument) == "end":
                return "quit"

    def on_ehlo(self, argument):
        self.mail, self.recipients = None, []
        lines = [f"{self.exchange.name} Hello [{self.peer[0]}]"]
        for capability in self.exchange.capabilities:
            if capability != "STARTTLS" or (self.exchange.tls and not self.tls):
                lines.append(capability)
        self.step("EHLO", argument,
                  "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines))

    def on_helo(self, argument):
        self.step("HELO", argument, f"250 {self.exchange.name} Hello")

    def on_starttls(self, argument):
        if not self.exchange.tls or self.tls:
            self.send("500 5.3.3 Unrecognized command")
            return
        answer = self.step("STARTTLS", argument, "220 2.0.0 SMTP server ready")
        if not positive(answer):
            return
        self.early, self.buffer = self.buffer, b""
        try:
            self.socket = self.exchange.tls.wrap_socket(self.socket, server_side=True)
        except (ssl.SSLError, OSError) as error:
            self.tls_error = error
            raise
        self.tls = (self.socket.version(), self.socket.getpeercert(binary_form=True))
        self.is_resumed = self.socket.session_reused

    def on_xclient(self, argument):
        self.step("XCLIENT", argument, f"220 {self.exchange.name} Microsoft ESMTP MAIL Service ready")

    def on_mail(self, argument):
        if self.mail is not None:
            self.send("503 5.5.2 Sender already specified")
            return
        if positive(self.step("MAIL", argument, "250 2.1.0 Sender OK")):
            self.mail = argument.partition(":")[2]

    def on_rcpt(self, argument):
        if self.mail is None:
            self.send("503 5.5.2 Need mail command")
            return
        if positive(self.step("RCPT", argument, "250 2.1.5 Recipient OK")):
            self.recipients.append(argument.partition(":")[2])

    def on_data(self, argument):
        if not self.recipients:
            self.send("503 5.5.2 Need rcpt command")
            return
        answer = self.step("DATA", argument, "354 Start mail input; end with <CRLF>.<CRLF>")
        if positive(answer, "3"):
            self.step("CONTENT", argument, "")
            self.pending = (self.read_data(), "DATA")
            self.end_of_data()

    def on_bdat(self, argument):
        # A server that refused the envelope may leave the chunk where it is and read it as commands:
        # this one does, so that a proxy that sends content too early is found out.
        if not self.recipients:
            self.send("503 5.5.2 Need rcpt command")
            return
        size, _, last = argument.partition(" ")
        self.step("CONTENT", argument, "")
        chunk = self.read_exactly(int(size))
        content = self.pending[0] if self.pending and self.pending[1] == "BDAT" else b""
        self.pending = (content + chunk, "BDAT")
        if last.upper() == "LAST":
            self.end_of_data()
        else:
            self.step("BDAT", argument, f"250 2.0.0 {size} octets received")

    def end_of_data(self):
        number = len(self.exchange.received)
        self.step("EOD", "", f"250 2.6.0 <{number}@{self.exchange.name}> [InternalId={number}, "
                  f"Hostname={self.exchange.name}] Queued mail for delivery")
        self.mail, self.recipients, self.pending = None, [], None

    def on_rset(self, argument):
        self.mail, self.recipients, self.pending = None, [], None
        self.step("RSET", argument, "250 2.0.0 Resetting")

    def on_noop(self, argument):
        self.step("NOOP", argument, "250 2.0.0 OK")

    def on_quit(self, argument):
        self.step("QUIT", argument, "221 2.0.0 Service closing transmission channel")
        return "end"


class FakeExchange:
    """Listens from the start.  TLS: an SSLContext, or None for no STARTTLS."""

    def __init__(self, host="127.0.0.1", port=0, capabilities=CAPABILITIES, tls=None,
                 name="ex1.corp.example.test"):
        self.name = name
        self.capabilities = list(capabilities)
        self.tls = tls
        self.split_replies = False
        self.receive_buffer = 0  # octets of each socket; 0: the kernel's choice
        self.actions = {}
        self.connections = Journal("connections")
        self.commands = Journal("commands")
        self.received = Journal("messages received")
        self.delivered = Journal("messages delivered")
        self.junk = Journal("commands that are none")
        self.stopping = threading.Event()
        self.gates = []
        self.threads = []
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=self.family)
        self.address = self.listener.getsockname()[:2]
        self._accept()

    @property
    def host(self):
        return ("[%s]:%d" if self.family == socket.AF_INET6 else "%s:%d") % self.address

    def on(self, verb, action):
        self.actions[verb] = action

    def usual(self, *verbs):
        """Nothing unusual (at VERBS) from here on."""
        for verb in verbs or list(self.actions):
            self.actions.pop(verb, None)

    def count(self, verb):
        return sum(command.verb == verb for command in self.commands)

    def transactions(self):
        """Connections that ever sent MAIL: what is no mere health check."""
        return [c for c in self.connections if any(x.verb == "MAIL" for x in c.commands)]

    def _accept(self):
        def loop():
            while True:
                try:
                    sock, peer = self.listener.accept()
                except OSError:
                    return
                if self.stopping.is_set():
                    sock.close()
                    return
                sock.settimeout(DEADLINE_S * 3)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.receive_buffer:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
                connection = Connection(self, sock, peer, len(self.connections))
                self.connections.add(connection)
                self._thread(connection.run)
        self._thread(loop)

    def _thread(self, target):
        thread = threading.Thread(target=target, daemon=True)
        self.threads.append(thread)
        thread.start()

    def drop_all(self, reset=True, connections=None):
        """End every connection that is open, or those of CONNECTIONS, at once."""
        for connection in self.connections if connections is None else connections:
            if connection.ended is None:
                try:
                    if reset:
                        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                     struct.pack("ii", 1, 0))
                    # SSLSocket's own would have the connection's thread read on in the clear.
                    socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
                except OSError:
                    pass

    def stop_listening(self):
        """New connections are refused."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def listen_again(self):
        self.listener = socket.create_server(self.address, family=self.family)
        self._accept()

    def stop(self):
        self.stopping.set()
        for gate in self.gates:
            gate.open()
        self.stop_listening()
        self.drop_all()
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the fake Exchange does not end"
