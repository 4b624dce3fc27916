"""The wall clock is set while mail comes in: by libfaketime, which tells the program another time and leaves its monotonic
clock alone, as a step of the real one does."""

import glob
import os
import re

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import postern as built
from harness.journal import Journal


@pytest.fixture
def clock(directory, monkeypatch):
    """Call it with an offset, such as "+40d"."""
    library = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not library or not built.takes_libraries():
        pytest.skip("libfaketime is not there, or cannot be before a sanitizer")
    offset = os.path.join(directory, "offset")

    def step(text):
        with open(offset + ".new", "w", encoding="ascii") as out:
            out.write(text + "\n")
        os.rename(offset + ".new", offset)
    step("+0")
    wrapped = os.path.join(directory, "wrapped")
    with open(wrapped, "w", encoding="ascii") as script:
        script.write(f'#!/bin/sh\nexport FAKETIME_TIMESTAMP_FILE={offset} FAKETIME_NO_CACHE=1 '
                     f'FAKETIME_DONT_FAKE_MONOTONIC=1\nLD_PRELOAD={library[0]} exec {built.BINARY} "$@"\n')
    os.chmod(wrapped, 0o700)
    monkeypatch.setattr(built, "BINARY", wrapped)
    before = set(glob.glob("/dev/shm/*faketime*"))
    yield step
    # What a killed process leaves behind.
    for path in set(glob.glob("/dev/shm/*faketime*")) - before:
        os.unlink(path)


def harvest(mx, client):
    """Unknown recipients until it is shut out; the last reply."""
    one = mx.client(told=client)
    one.ok("MAIL FROM:<a@example.org>")
    for number in range(12):
        reply = one.command(f"RCPT TO:<nobody{number}@example.test>")
        if reply.code == 421:
            break
    one.close()
    return reply


def days(content):
    return re.search(rb"\d+ \w{3} \d{4} (?=\d\d:)", content)[0]


@pytest.mark.parametrize("step", ["+40d", "-40d", "+3y", "-3y"])
def test_clock_is_stepped_under_mail(exchange, postern, clock, step):
    """A message that is under way is acknowledged, a block stays as long as it is to, nobody is timed out, and what was
    kept is still good for the next process."""
    mx = postern(downstream := exchange(), settings={"server": {"proxy_protocol": "127.0.0.1"}})
    gate = faults.Gate()
    assert harvest(mx, "198.51.100.7").code == 421
    downstream.on("EOD", gate)
    waiting, idle = mx.client(told="192.0.2.1"), mx.client(told="192.0.2.2")
    waiting.send_message(CONTENT, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    clock(step)
    gate.open()
    assert waiting.reply().status == "250 2.6.0"
    assert idle.deliver(CONTENT + b"2\r\n", "ben@example.test").status == "250 2.6.0"
    # It has heard of it: the Received field has another date than the one before.
    assert days(downstream.delivered[0].content) != days(downstream.delivered[1].content)
    blocked = mx.client(told="198.51.100.7", greet=False)
    assert blocked.reply().status == "421 4.7.0"
    assert harvest(mx, "198.51.100.8").code == 421
    assert len(mx.control("blocks")["blocks"]) == 2
    mx.save()
    for client in mx.clients:
        client.close()
    mx.crash()
    blocks = {block["network"].split("/")[0] for block in mx.control("blocks")["blocks"]}
    assert "198.51.100.8" in blocks
    assert mx.client(told="192.0.2.1").deliver(CONTENT + b"3\r\n", "anna@example.test").status == "250 2.6.0"


def test_clock_is_behind_at_a_restart(exchange, postern, clock):
    """A block lasts no longer than it was to, and that is what is kept: also when the clock is right again."""
    mx = postern(exchange(), settings={"server": {"proxy_protocol": "127.0.0.1"}})
    assert harvest(mx, "198.51.100.7").code == 421

    def left():
        return [block["remaining_s"] for block in mx.control("blocks")["blocks"] if "198.51.100.7" in block["network"]]

    mx.stop()
    clock("-30d")
    mx.log = Journal("log of another run")
    mx.start()
    assert 0 < left()[0] <= 3600
    assert mx.client(told="198.51.100.7", greet=False).reply().status == "421 4.7.0"
    clock("+0")
    mx.save()
    assert 0 < left()[0] <= 3600
    mx.crash()
    assert 0 < left()[0] <= 3600
