"""What Postern holds while it runs, and whether that grows."""

import itertools
import os
import statistics
import sys
import threading
import time

from harness.journal import poll
from harness.postern import takes_libraries

MEMORY = "own memory, KiB"
HEAP = "allocated, KiB"
STATE = "state on disk, KiB"
# More than at half time.  What is in use: 20 octets for each message of half an hour.  With the holes between it, which
# one bad minute of the downstream widens: 80.
MARGIN_KIB = {HEAP: 256, MEMORY: 1024}
STATE_TIMES = 1.5  # what files become that never shrink
REMEMBERED_S = 600  # duplicate_window: only then state_dir has as much as ever
SHORT_MINUTES = 10  # too short to say something of memory
CONNECTIONS = 16  # descriptors more than before anybody came: what is kept for the next message


def each(look, directory):
    """LOOK at all that is in DIRECTORY, but for what goes meanwhile."""
    for name in os.listdir(directory):
        try:
            yield look(os.path.join(directory, name))
        except FileNotFoundError:
            pass


class Heap:
    """What heap.c says; nothing in a program with a sanitizer, which brings a heap of its own."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "in-use")
        with open(self.path, "wb") as out:
            out.write(bytes(8))

    def environment(self, library):
        return {"LD_PRELOAD": library, "SOAK_HEAP": self.path} if takes_libraries() else {}

    def in_use(self):
        with open(self.path, "rb") as octets:
            return int.from_bytes(octets.read(8), sys.byteorder)


def held(world):
    postern = world.postern
    process = f"/proc/{postern.process.pid}"
    with open(f"{process}/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    names = list(each(os.readlink, f"{process}/fd"))
    octets = sum(each(os.path.getsize, postern.settings["server"]["state_dir"]))
    return {HEAP: world.heap.in_use() / 1024, MEMORY: postern.memory_kib(), "RSS, KiB": int(fields["VmRSS"].split()[0]),
            STATE: octets / 1024, "descriptors": len(names),
            "files without a name": sum(name.endswith(" (deleted)") for name in names), "threads": int(fields["Threads"])}


class Steward:
    """Loads the configuration again, changes the level of the log, reads what is there for monitoring, and looks at
    what Postern holds."""

    def __init__(self, world, books):
        self.world, self.books = world, books
        self.ending = threading.Event()
        self.samples = []
        self.reloads = self.levels = self.pages = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        levels = itertools.cycle(("debug", "warning", "info", "error", "info"))
        idle = itertools.cycle((5, 2))
        for turn in itertools.count():
            if self.ending.wait(2):
                return
            try:
                self._turn(turn, levels, idle)
            except Exception as error:  # pylint: disable=broad-except
                self.books.fault(f"steward: {error!r}")

    def _turn(self, turn, levels, idle):
        postern = self.world.postern
        self.samples.append((time.monotonic(), held(self.world)))
        for path in ("/metrics", "/api/status"):
            assert postern.get(path)[0] == 200
            self.pages += 1
        if turn % 5 == 0:
            assert postern.control("log-level", next(levels))["ok"]
            self.levels += 1
        if turn % 13 == 0:
            self.world.configure({"downstream faulty": {"idle_connections": next(idle)}})
            self.reloads += 1

    def start(self):
        self.thread.start()

    def finish(self):
        self.ending.set()
        self.thread.join(60)
        self.world.postern.control("log-level", "info")

    def medians(self, since, until):
        within = [sample for at, sample in self.samples if since <= at <= until] or [self.samples[-1][1]]
        return {key: statistics.median(sample[key] for sample in within) for key in within[0]}


class Account:
    """What is held before anybody came; when half of the time is over; at the last; and after all have gone.  Until the half the
    workers' heaps, which have holes, come to what they are at most."""

    def __init__(self, world):
        self.world, self.before = world, held(world)
        self.half = self.last = self.after = None
        self.memory = []  # a line each
        self.faults = []

    def close(self, steward, began, ended, minutes):
        part = (ended - began) / 10
        self.half = steward.medians(began + 5 * part, began + 6 * part)
        self.last = steward.medians(ended - part, ended)
        try:
            poll(lambda: not self._left(held(self.world)), "nothing is left", 30)
        except AssertionError:
            pass
        self.after = held(self.world)
        self.faults = self._left(self.after)
        self._judge(minutes)

    def _left(self, now):
        most = {"descriptors": CONNECTIONS, "files without a name": 0, "threads": 0}
        return [f"{key}: {now[key]}, {self.before[key]} before" for key, more in most.items()
                if now[key] > self.before[key] + more]

    def _judge(self, minutes):
        is_judged = minutes >= SHORT_MINUTES and not self.world.postern.is_sanitized()
        for key, margin in MARGIN_KIB.items():
            half, last = self.half[key], self.last[key]
            is_flat = last <= half + margin
            line = (f"{key}: {half:.0f} when half of the time is over, {last:.0f} at the end (medians of a tenth of it), "
                    f"{margin} more is allowed: " + ("not judged" if not is_judged else "flat" if is_flat else "it grows"))
            self.memory.append(line)
            if is_judged and not is_flat:
                self.faults.append(line)
        if minutes * 60 / 2 >= REMEMBERED_S and self.last[STATE] > self.half[STATE] * STATE_TIMES:
            self.faults.append(f"{STATE}: {self.last[STATE]:.0f}, {self.half[STATE]:.0f} when half of the time was over")

    def table(self):
        say = ["| held | before | half | last | after |", "|---|--:|--:|--:|--:|"]
        return say + [f"| {key} | " + " | ".join(f"{one[key]:.0f}" for one in
                                                 (self.before, self.half, self.last, self.after)) + " |"
                      for key in self.before]
