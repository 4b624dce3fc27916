"""What threads record and tests wait for.  Every wait has a bound, and no test waits for a time."""

import os
import threading
import time

# A test that passes never comes near it.
DEADLINE_S = 120.0 if "UNDER_VALGRIND" in os.environ else 20.0


class Journal:
    """A list that only grows; a wait ends with the first item that fits."""

    def __init__(self, name):
        self.name = name
        self._items = []
        self._over = False
        self._changed = threading.Condition()

    def add(self, item):
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def open(self):
        with self._changed:
            self._over = False

    def close(self):
        """Nothing more will come: who still waits need not."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def poke(self):
        """Something about an item has changed: look again."""
        with self._changed:
            self._changed.notify_all()

    def __len__(self):
        with self._changed:
            return len(self._items)

    def __iter__(self):
        with self._changed:
            return iter(list(self._items))

    def __getitem__(self, index):
        with self._changed:
            return self._items[index]

    def wait(self, fits=lambda item: True, what="an item", since=0, timeout=DEADLINE_S):
        """The first item from index SINCE on that FITS; WHAT names it should it never come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for item in self._items[since:]:
                    if fits(item):
                        return item
                left = deadline - time.monotonic()
                if left <= 0 or self._over:
                    shown = "\n  ".join(str(item) for item in self._items[since:][-30:])
                    raise AssertionError(f"{self.name}: {what} did not come; there is:\n  {shown}")
                self._changed.wait(left)

    def wait_count(self, count, timeout=DEADLINE_S):
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self._items) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"{self.name}: {len(self._items)} of {count} came")
                self._changed.wait(left)
            return list(self._items)


def poll(question, what, timeout=DEADLINE_S):
    """Ask until the answer is true: only for what gives no sign when it changes."""
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.02)
