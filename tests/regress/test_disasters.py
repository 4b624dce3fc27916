"""What befalls a machine, under mail: a full disk, very many connections, signals in the midst of it."""

import json
import os
import resource
import signal
import subprocess
import threading

import pytest

from conftest import CONTENT
from harness import postern as built
from harness.journal import poll

LINE = b"0123456789" * 7 + b"\r\n"


# A disk of a megabyte

@pytest.fixture
def small_disk(directory):
    path = os.path.join(directory, "disk")
    os.mkdir(path)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", path], check=False,
                      capture_output=True).returncode != 0:
        pytest.skip("only root may mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(path):
    """Until not an octet more fits."""
    with open(os.path.join(path, "filler"), "wb", buffering=0) as filler:
        for piece in (4096, 1):
            try:
                while True:
                    filler.write(b"x" * piece)
            except OSError:
                pass


def test_spool_s_disk_is_full(exchange, postern, small_disk):
    """By us, then by another: whoever needs a file is told 452, who does not is served, and room comes back."""
    mx = postern(downstream := exchange(), settings={"spool": {"dir": small_disk, "memory": "16K"}})
    large = CONTENT + LINE * 20000
    assert mx.client().deliver(large, "anna@example.test").status == "452 4.3.1"
    assert mx.client().deliver(CONTENT + LINE * 5000, "anna@example.test").status == "250 2.6.0"
    poll(lambda: os.statvfs(small_disk).f_bfree > 250, "the room of what was delivered")
    fill(small_disk)
    another = CONTENT + LINE * 5001
    assert mx.client().deliver(another, "anna@example.test").status == "452 4.3.1"
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    os.unlink(small_disk + "/filler")
    assert mx.client().deliver(another, "anna@example.test").status == "250 2.6.0"
    assert [m.without_trace() for m in downstream.delivered] == [CONTENT + LINE * 5000, CONTENT, another]


def test_state_s_disk_is_full(exchange, postern, small_disk):
    """What cannot be kept is said, mail goes on, and what is learnt meanwhile is kept once there is room again."""
    mx = postern(exchange(), settings={"server": {"state_dir": small_disk + "/state" + "e" * 150}, "spool": {"dir": "/tmp"}})
    mx.save()
    fill(small_disk)

    def problems():
        return json.loads(mx.get("/readyz")[1])["problems"]
    since = len(mx.log)
    for number in range(200):
        assert mx.control("block", f"198.51.100.{number}", "1h")["ok"]
    error = mx.wait_log("ledger", since=since, state="degraded")["error"]
    assert {"part": "ledger", "name": "", "server": "", "state": "degraded", "error": error} in problems()
    assert mx.metrics()["postern_ledger_up"] == 0
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    os.unlink(small_disk + "/filler")
    mx.wait_log("ledger", since=since, state="up")
    assert mx.metrics()["postern_ledger_up"] == 1 and not problems()
    mx.crash()
    assert {"198.51.100.0/32", "198.51.100.0"} & {block["network"] for block in mx.control("blocks")["blocks"]}


# Very many

def test_ten_thousand_connections(exchange, postern):
    """Each is greeted; mail is served as if there were none; and all that they held is given back."""
    count, most = 10000, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, max(most[1], 2 * count)))
    except (ValueError, OSError):
        pytest.skip(f"no more than {most[1]} descriptors are allowed here")
    try:
        mx = postern(downstream := exchange(), settings={
            "server": {"workers": 2, "max_connections": 20000, "max_connections_per_client": 20000},
            "log": {"level": "warning"}}, wait_downstream=False, run=False)
        mx.process = subprocess.Popen([built.BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
        poll(mx.try_client, "a greeting")
        before, held = mx.memory_kib(), []
        for number in range(count):
            held.append(mx.client(source=f"127.0.{1 + number // 4000}.1", greet=False))
        for client in held:
            assert client.reply().code == 220
        each = (mx.memory_kib() - before) / count
        assert mx.is_sanitized() or each < 4, f"{each} KiB each"
        assert mx.client(source="127.0.0.9").deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
        assert len(downstream.delivered) == 1
        for client in mx.clients:
            client.close()
        poll(lambda: mx.metrics()["postern_connections"] == 0, "nobody left")
        mx.process.terminate()
        assert mx.process.wait(30) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


# Signals under load

def load(mx, over, books):
    """One sender after the other until OVER; BOOKS has who was acknowledged."""
    number = 0
    while not over.is_set():
        content = CONTENT + b"%d %d\r\n" % (threading.get_ident(), number)
        number += 1
        books["sent"].append(content)
        try:
            client = mx.client()
            if client.deliver(content, "anna@example.test").code == 250:
                books["acknowledged"].append(content)
            client.close()
        except (OSError, AssertionError):
            books["lost"].append(content)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_and_sigterm_under_load(exchange, postern, workers):
    """Thirty reloads cost nobody a message; SIGTERM ends it, and each 250 that was said stands for a delivery."""
    mx = postern(downstream := exchange(), settings={"server": {"workers": workers}})
    over, books = threading.Event(), {"sent": [], "acknowledged": [], "lost": []}
    threads = [threading.Thread(target=load, args=(mx, over, books)) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(30):
            mx.reload()
            poll(lambda turn=turn: len(books["acknowledged"]) > turn, "mail between the reloads")
        assert not books["lost"]
        mx.send_signal(signal.SIGTERM)
        assert mx.wait_exit() == 0
    finally:
        over.set()
    for thread in threads:
        thread.join()
    delivered = [message.without_trace() for message in downstream.delivered]
    assert set(books["acknowledged"]) <= set(delivered) <= set(books["sent"])
    assert len(delivered) == len(set(delivered))
    assert not downstream.junk
