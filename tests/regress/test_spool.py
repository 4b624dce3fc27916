"""Messages held: in memory, then in an unlinked file, within bounds."""

import contextlib
import glob
import os

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.journal import poll

LINE = b"0123456789" * 7 + b"\r\n"


def held_files(mx, spool):
    """Links to what the program has open there, all without a name."""
    held = []
    for link in glob.glob(f"/proc/{mx.process.pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(link)
            if target.startswith(spool) and target.endswith("(deleted)"):
                held.append(link)
    return held


def test_large_message_goes_through_a_file(exchange, postern, directory):
    spool = directory + "/spool"
    os.mkdir(spool)
    content = CONTENT + LINE * 100000
    mx = postern(downstream := exchange(), settings={"spool": {"dir": spool, "memory": "64K"}})
    gate = faults.Gate()
    downstream.on("EOD", gate)
    client = mx.client()
    client.send_message(content, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    assert held_files(mx, spool)
    assert os.listdir(spool) == []
    gate.open()
    assert client.reply().status == "250 2.6.0"
    assert downstream.delivered[0].without_trace() == content


def test_a_file_that_only_the_disk_has(exchange, postern, directory):
    """What the kernel does not keep in memory is read by the thread that may wait for it."""
    spool = directory + "/spool"
    os.mkdir(spool)
    content = CONTENT + LINE * 20000
    mx = postern(downstream := exchange(), settings={"spool": {"dir": spool, "memory": "64K"}})
    gate = faults.Gate()
    downstream.on("RCPT", gate)
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(content + b".\r\n")
    gate.reached.wait()
    [link] = poll(lambda: held_files(mx, spool), "the message in a file")
    file = os.open(link, os.O_RDONLY)
    poll(lambda: os.fstat(file).st_size > len(content) - 128 * 1024, "all of it is written")
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    gate.open()
    assert client.reply().status == "250 2.6.0"
    assert downstream.delivered[0].without_trace() == content


@pytest.mark.parametrize("via", ["DATA", "BDAT"])
@pytest.mark.parametrize("size", [65535, 65536, 65537, 200000])
def test_sizes_around_the_memory_share(exchange, postern, via, size):
    head = b"Subject: x\r\n\r\n"
    content = head + b"x" * (size - len(head) - 2) + b"\r\n"
    mx = postern(downstream := exchange(), settings={"spool": {"memory": "64K"}})
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    reply = client.data(content) if via == "DATA" else client.bdat(content)[-1]
    assert reply.status == "250 2.6.0"
    assert downstream.delivered[0].without_trace() == content


def test_file_survives_a_failover(exchange, postern):
    """The content is read from its beginning again for the second host."""
    bad, good = exchange(), exchange()
    mx = postern(bad, good, wait_downstream=False, settings={"spool": {"memory": "64K"}})
    for host in (bad, good):
        mx.wait_log("downstream", state="up", host=host.host)
    bad.on("CONTENT", faults.drop_in_content(300000, reset=True))
    content = CONTENT + LINE * 200000
    for n in range(2):
        assert mx.client().deliver(content + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert [m.without_trace() for m in good.delivered] == [content + b"0\r\n", content + b"1\r\n"]


def test_memory_of_all_messages(exchange, postern):
    """Beyond memory_total messages go to files from their first octet, and arrive as well."""
    mx = postern(downstream := exchange(), settings={"spool": {"memory": "64K", "memory_total": "128K"}})
    content = CONTENT + LINE * 800
    clients = []
    for n in range(8):
        client = mx.client()
        client.envelope(f"a{n}@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(content)
        clients.append(client)
    for client in clients:
        client.send(b".\r\n")
    assert [client.reply().status for client in clients] == ["250 2.6.0"] * 8
    assert [m.without_trace() for m in downstream.delivered] == [content] * 8


def test_disk_is_full(exchange, postern):
    """One client has a quarter of the files' room; what does not fit is told so, and room comes back."""
    mx = postern(downstream := exchange(), settings={"spool": {"memory": "64K", "disk_total": "4M"}})
    client = mx.client()
    assert client.deliver(CONTENT + LINE * 40000, "anna@example.test").status == "452 4.3.1"
    assert not downstream.received
    assert client.deliver(CONTENT + LINE * 8000, "anna@example.test").status == "250 2.6.0"
    assert client.deliver(CONTENT + LINE * 8000, "ben@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == 2


def test_disk_is_full_by_bdat(exchange, postern):
    mx = postern(downstream := exchange(), settings={"spool": {"memory": "64K", "disk_total": "4M"}})
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    replies = client.bdat(CONTENT, LINE * 40000, b"the rest")
    assert replies[0].code == 250
    assert replies[-1].status in ("452 4.3.1", "503 5.5.1")
    assert any(reply.status == "452 4.3.1" for reply in replies)
    assert client.command("NOOP").code == 250
    assert not downstream.received


@pytest.mark.parametrize("size, then, status", [
    (900000, "RSET", "250 2.0.0"), (900000, "EHLO client.example.org", "250"), (900000, "QUIT", "221 2.0.0"),
    (900000, "BDAT -1", "501 5.5.4"), (900000, None, None), (10 ** 18, None, None),
    (900000, "BDAT 0 LAST", "554 5.6.0"), (900000, "BDAT 144 LAST\r\n" + "x" * 142, "554 5.6.0"),
    (2500000, "x" * 1599998, "452 4.3.1"),
], ids=["RSET", "EHLO", "QUIT", "malformed", "gone between chunks", "gone in a chunk", "refused", "refused chunk",
        "too much"])
def test_room_of_chunks_comes_back(exchange, postern, size, then, status):
    """What is held of a chunk of SIZE is most of a client's quarter; three times it ends as THEN says."""
    mx = postern(downstream := exchange(), settings={"spool": {"memory": "64K", "disk_total": "4M"}})
    downstream.on("EOD", faults.reply("554 5.6.0 No"))
    for _ in range(3):
        client = mx.client()
        client.envelope("a@example.org", "anna@example.test")
        client.send(b"BDAT %d\r\n" % size + (CONTENT + LINE * 12500)[:900000])
        if size == 900000:
            assert client.reply().code == 250
        if then is not None:
            assert client.command(then).status == status
        session = mx.events("connect")[-1]["session"]
        client.reset()
        mx.clients.remove(client)
        mx.wait_log("close", session=session)
    downstream.usual()
    assert mx.client().deliver(CONTENT + LINE * 12500, "anna@example.test").status == "250 2.6.0"


@pytest.mark.parametrize("blocks", [1, 40])
def test_what_cannot_be_written(exchange, postern, directory, blocks):
    """Whether that is known before the end of the message or, as it is read back, after it."""
    os.mkdir(directory + "/spool")
    mx = postern(downstream := exchange(), settings={"spool": {"dir": directory + "/spool", "memory": "64K"}})
    os.rmdir(directory + "/spool")
    client = mx.client()
    assert client.deliver(CONTENT + LINE * 1000 * blocks, "anna@example.test").status == "452 4.3.1"
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert len(downstream.delivered) == 1


def test_several_clients_share_the_disk(exchange, postern):
    """Four quarters are all of it: the fifth message finds it full, until one of the others is delivered."""
    mx = postern(exchange(), settings={"spool": {"memory": "64K", "disk_total": "3800K"}})
    content = CONTENT + LINE * 13000
    clients = [mx.client(source=f"127.0.0.{n + 10}") for n in range(5)]

    def hold(client):
        client.envelope("a@example.org", "anna@example.test")
        client.send(b"BDAT %d\r\n" % len(content) + content)
        return client.reply().status
    assert [hold(client) for client in clients] == ["250 2.0.0"] * 4 + ["452 4.3.1"]
    assert clients[0].command("BDAT 0 LAST").status == "250 2.6.0"
    assert hold(clients[4]) == "250 2.0.0"
    assert [client.command("BDAT 3 LAST\r\n%d" % n).status for n, client in enumerate(clients[1:], 10)] == ["250 2.6.0"] * 4


def test_nothing_is_left_open(exchange, postern):
    mx = postern(exchange(), settings={"spool": {"memory": "64K"}, "downstream exchange": {"idle_connections": 0}})

    def descriptors():
        return len(os.listdir(f"/proc/{mx.process.pid}/fd"))
    for n in range(3):
        before = descriptors() if n else 0
        since = len(mx.log)
        client = mx.client()
        client.deliver(CONTENT + LINE * 2000 + b"%d\r\n" % n, "anna@example.test")
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(CONTENT + LINE * 2000)
        session = mx.wait_log("connect", since=since)["session"]
        client.reset()
        mx.clients.remove(client)
        mx.wait_log("close", session=session)
    mx.client().quit()
    poll(lambda: descriptors() <= before, "as few descriptors as before")


@pytest.mark.parametrize("via", ["BDAT", "DATA"])
def test_a_file_that_cannot_be_read_any_more(exchange, postern, directory, via):
    """Nothing of what is not the message's goes to the downstream, and the client keeps its message."""
    spool = directory + "/spool"
    os.mkdir(spool)
    content = CONTENT + LINE * 2000
    capabilities = [c for c in faults.CAPABILITIES if via == "BDAT" or c not in ("CHUNKING", "BINARYMIME")]
    mx = postern(downstream := exchange(capabilities=capabilities),
                 settings={"spool": {"dir": spool, "memory": "16K"}})
    gate = faults.Gate()
    downstream.on("RCPT", gate)
    client = mx.client()
    client.send_message(content, "anna@example.test", sender="a@example.org")
    gate.reached.wait()
    [link] = poll(lambda: held_files(mx, spool), "the message in a file")
    poll(lambda: os.stat(link).st_size > len(content) - 32 * 1024, "all of it is written")
    os.truncate(link, 0)
    gate.open()
    assert client.reply().status == "452 4.3.1"
    assert not downstream.delivered
    assert client.deliver(content, "anna@example.test").status == "250 2.6.0"
    assert [m.without_trace() for m in downstream.delivered] == [content]
