"""Network namespaces of a test's own, joined by a wire each, and what happens to packets on it.  To be made by root.

    client ---- postern ---- exchange

Nothing in them reaches anything else.  A thread is within one at a time; a socket stays where it was made."""

import contextlib
import ctypes
import os
import select
import socket
import subprocess
import threading

from .journal import DEADLINE_S
from .servers import program

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """The kernel, or who we are, does not allow it."""


def run(*argv, text=None):
    done = subprocess.run([program(argv[0]), *argv[1:]], input=text, stdin=None if text else subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def within(namespace):
    """This thread is there."""
    with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{namespace}", "rb") as there:
        if _LIBC.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if _LIBC.setns(before.fileno(), _CLONE_NEWNET) != 0:
                os.abort()  # in the wrong place for all that follows


class Network:
    CLIENT, OUTSIDE, INSIDE, EXCHANGE = "10.77.1.1", "10.77.1.2", "10.77.2.2", "10.77.2.1"

    def __init__(self):
        self.names = {place: f"postern-{os.getpid()}-{place}" for place in ("client", "postern", "exchange")}
        self.made = []
        try:
            for name in self.names.values():
                run("ip", "netns", "add", name)
                self.made.append(name)
                self._inside(name, "ip", "link", "set", "lo", "up")
            self._wire("client", self.CLIENT, "outside", self.OUTSIDE)
            self._wire("exchange", self.EXCHANGE, "inside", self.INSIDE)
        except (Unavailable, FileNotFoundError):
            self.remove()
            raise

    def _wire(self, place, address, end, postern_address):
        there, here = self.names[place], self.names["postern"]
        self._inside(there, "ip", "link", "add", "wire", "type", "veth", "peer", "name", end, "netns", here)
        for name, link, own in ((there, "wire", address), (here, end, postern_address)):
            self._inside(name, "ip", "address", "add", own + "/24", "dev", link)
            self._inside(name, "ip", "link", "set", link, "up")

    def remove(self):
        while self.made:
            subprocess.run([program("ip"), "netns", "delete", self.made.pop()], check=False)

    def within(self, place):
        return within(self.names[place])

    # Not `ip netns exec` and `ip -n`, which mount, and cannot where / is no mount (chroot).

    def argv(self, place):
        """What a program is to be started by to be there."""
        return self._entrance(self.names[place])

    @staticmethod
    def _entrance(name):
        return [program("nsenter"), f"--net=/run/netns/{name}", "--"]

    def _inside(self, name, *argv, text=None):
        return run(*self._entrance(name), program(argv[0]), *argv[1:], text=text)

    # The wire, at PLACE's end of it

    def lose(self, place, percent, ways=("input", "output")):
        """100: it is cut."""
        drop = "drop" if percent == 100 else f"numgen random mod 100 < {percent} drop"
        chains = "".join(f" chain {way} {{ type filter hook {way} priority 0; {way[0]}ifname wire {drop};\n }}\n"
                         for way in ways)
        self._rules(place, f"table inet faults {{\n{chains}}}\n")

    def heal(self, place):
        self._rules(place, "table inet faults\ndelete table inet faults\n")

    def _rules(self, place, text):
        self._inside(self.names[place], "nft", "-f", "-", text=text)

    def limit(self, place, rate):
        """What goes into the wire at both of its ends, as tc writes rates."""
        end = {"client": "outside", "exchange": "inside"}[place]
        for name, link in ((self.names[place], "wire"), (self.names["postern"], end)):
            self._inside(name, "tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", rate, "burst", "3000",
                         "latency", "200ms")


class Delay:
    """A proxy at ADDRESS that hands on to TARGET what it gets, each octet SECONDS later, either way; both are within
    PLACE."""

    def __init__(self, network, place, address, target, seconds):
        self.network, self.place, self.target, self.seconds = network, place, target, seconds
        with network.within(place):
            self.listener = socket.create_server((address, 0))
        self.address = self.listener.getsockname()
        self.threads = []
        self._start(self._accept)

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        with self.network.within(self.place):
            while True:
                try:
                    near, _ = self.listener.accept()
                    far = socket.create_connection(self.target, DEADLINE_S)
                except OSError:
                    return
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source, target):
        later = threading.Event()  # never set: its wait is the delay
        try:
            while select.select([source], [], [], DEADLINE_S * 3)[0] and (octets := source.recv(65536)):
                later.wait(self.seconds)
                target.sendall(octets)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
