"""What goes wrong beside and behind Postern, one after the other, for some seconds each."""

import functools
import os
import random
import re
import signal
import threading
from collections import Counter

from harness import exchange as acts
from harness.journal import poll
from harness.servers import Server

VERBS = ("EHLO", "STARTTLS", "MAIL", "RCPT", "CONTENT", "EOD")
SHARE = 0.4  # of the steps
GUESTS = 40  # who come to the directory, and leave it


def restart(server):
    """The same once more, on its port."""
    Server.__init__(server, server.directory, server.process.args, port=server.port)


def sometimes(action):
    return lambda step: action(step) if random.random() < SHARE else None


def garbage(step):
    octets = [b"\x00\xff garbage\r\n" * 20, b"250 2.1", b"250-2.1.0 more\r\n550 5.1.1 no\r\n", b"9" * 5000]
    if step.verb not in ("CONTENT", "EOD"):  # there the first would be a 250 for what it does not take
        octets.append(b"250 2.0.0 ok\r\n250 2.0.0 unasked\r\n")
    step.connection.send(random.choice(octets))
    raise acts.Drop()


class Faults:
    def __init__(self, world, books):
        self.world, self.books = world, books
        self.counts = Counter()
        self.over = threading.Event()  # of the fault at hand
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        actions = {
            "answers 451": acts.reply("451 4.7.0 try again"), "answers 421": acts.reply_and_drop("421 4.3.2 no"),
            "closes": acts.drop(), "resets": acts.drop(reset=True), "answers garbage": garbage, "is silent": self._silent,
            "neither reads nor answers": self._stopped, "dawdles": self._dawdle}
        # To answer 451 before the content and to take it all the same is a lie that nobody can see through.
        self.kinds = {f"downstream {name} at {verb}": self._at(verb, action)
                      for name, action in actions.items() for verb in VERBS
                      if (name, verb) != ("answers 451", "CONTENT")}
        self.kinds |= {
            "downstream takes it, and its answer is lost": self._at("EOD", self._lose),
            "downstream answers octet by octet": self._split,
            "a host killed": lambda: self._killed(self.world.exchanges[:1]),
            "all hosts killed": lambda: self._killed(self.world.exchanges),
            "syslog stopped": self._unheard,
            "certificate replaced": self._renewed,
            "directory changed": self._guests}
        for name, server in (("directory", self.world.slapd), ("Redis", self.world.redis), ("DNS", self.world.nsd)):
            self.kinds[f"{name} stopped"] = functools.partial(self._frozen, server)
            self.kinds[f"{name} killed"] = functools.partial(self._gone, server)

    def start(self):
        self.thread.start()

    def finish(self):
        self.ending.set()
        self.over.set()
        self.thread.join(120)

    def _run(self):
        kinds = []
        while not self.ending.wait(random.uniform(1, 4)):
            kinds = kinds or random.sample(list(self.kinds), len(self.kinds))
            name = kinds.pop()
            self.counts[re.sub(" at [A-Z]+$", "", name)] += 1
            self.over.clear()
            try:
                self.kinds[name]()
            except Exception as error:  # pylint: disable=broad-except
                self.books.fault(f"{name}: {error!r}")

    def _last(self):
        """As long as the fault lasts."""
        if not self.ending.is_set():
            self.over.wait(random.uniform(4, 10))

    # Of the downstream

    def _at(self, verb, action):
        def fault():
            hosts = random.choice((self.world.exchanges[:1], self.world.exchanges[1:], self.world.exchanges))
            for host in hosts:
                host.on(verb, sometimes(action))
            self._last()
            self.over.set()
            for host in hosts:
                host.usual(verb)
        return fault

    def _silent(self, step):
        """Reads on, and says nothing more."""
        step.connection.socket.settimeout(20)
        acts.hang(step)

    def _stopped(self, step):
        self.over.wait(20)
        raise acts.Drop()

    def _dawdle(self, step):
        self.over.wait(random.uniform(0, 2))

    def _lose(self, step):
        self.world.mark_lost(step.connection.pending[0])
        acts.deliver_and_drop(random.random() < 0.5)(step)

    def _split(self):
        for host in self.world.exchanges:
            host.split_replies = True
        self._last()
        for host in self.world.exchanges:
            host.split_replies = False

    def _killed(self, hosts):
        for host in hosts:
            host.stop_listening()
            host.drop_all()
        self.books.killed()
        self._last()
        for host in hosts:
            host.listen_again()

    # Of the others

    def _frozen(self, server):
        server.freeze()
        self._last()
        server.process.send_signal(signal.SIGCONT)

    def _gone(self, server):
        server.stop(signal.SIGKILL)
        self._last()
        restart(server)

    def _unheard(self):
        """The log goes to a syslog daemon, which takes nothing more."""
        self.world.configure({"log": {"target": f"unix:{self.world.syslog.socket_path}"}})
        self.over.wait(2)
        self._frozen(self.world.syslog)
        self.world.configure({"log": {"target": "stderr"}})

    def _renewed(self):
        """As a renewal does: new files in the places of the old, and SIGHUP."""
        tls = self.world.certificates
        fresh = tls.make("fresh", "mx.example.test", ["mx.example.test"], issuer=tls.ca)
        os.rename(fresh.key, tls.mx.key)
        os.rename(fresh.certificate, tls.mx.certificate)
        self.world.configure()
        poll(lambda: self.world.shown_fingerprint() == tls.mx.fingerprint, "the new certificate")

    def _guests(self):
        names = [f"guest{number}" for number in range(GUESTS)]
        for name in names:
            self.world.slapd.add(name, [f"{name}@copied.test"])
        self._last()
        self.world.slapd.delete(*names)
