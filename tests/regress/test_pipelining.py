"""A reply for each command, in order, however the commands are cut into packets (RFC 2920)."""

import threading

import pytest

from conftest import CONTENT
from harness.client import dot_stuff

ADDRESSES = ["anna@example.test", "nobody@example.test", "ben@example.test", "anna@example.org", "@", "postmaster"]
STATUSES = ["250 2.1.5", "550 5.1.1", "250 2.1.5", "550 5.7.1", "501 5.1.3", "250 2.1.5"]


@pytest.mark.parametrize("trickle", [False, True], ids=["whole", "trickle"])
def test_a_whole_session_in_one_write(mx, trickle):
    client = mx.client()
    envelope = "".join(f"RCPT TO:<{address}>\r\n" for address in ADDRESSES)
    contents = [CONTENT, CONTENT + b"Again.\r\n"]
    octets = b"".join(f"MAIL FROM:<a@example.org>\r\n{envelope}DATA\r\n".encode() + dot_stuff(content)
                      for content in contents)
    client.send(octets + b"NOOP\r\nQUIT\r\n", trickle=trickle)
    for _ in range(2):
        assert client.reply().status == "250 2.1.0"
        assert [client.reply().status for _ in ADDRESSES] == STATUSES
        assert client.reply().code == 354
        assert client.reply().status == "250 2.6.0"
    assert client.reply().status == "250 2.0.0"
    assert client.reply().status == "221 2.0.0"
    client.ended()
    assert [m.without_trace() for m in mx.exchange.delivered] == contents


def test_bdat_behind_its_envelope(mx):
    client = mx.client()
    client.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<anna@example.test>\r\nBDAT 5\r\nA: b\r"
                b"BDAT 3 LAST\r\n\n\r\nNOOP\r\n")
    assert [client.reply().status for _ in range(5)] == [
        "250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.6.0", "250 2.0.0"]
    assert mx.exchange.delivered[0].without_trace() == b"A: b\r\n\r\n"


def test_many_recipients_in_one_write(exchange, postern):
    known = [f"user{n}@example.test" for n in range(150)]
    mx = postern(exchange(), recipients=known, settings={"harvest": {"tarpit": "0s"}})
    client = mx.client()
    lines = ["MAIL FROM:<a@example.org>"]
    for address in known:
        lines += [f"RCPT TO:<{address}>", f"RCPT TO:<x{address}>"]
    replies = client.pipeline(*lines)
    assert [r.code for r in replies[1::2]] == [250] * 150
    assert [r.lines[0] for r in replies[2::2]] == [
        f"5.1.1 <x{address}>: Recipient address rejected: User unknown" for address in known]


def test_what_is_pipelined_behind_quit_is_not_done(mx):
    client = mx.client()
    client.send("QUIT\r\nNOOP\r\nNOOP\r\n")
    assert client.reply().status == "221 2.0.0"
    client.ended()


def test_many_commands_at_every_split(mx):
    """The commands of a transaction in two packets, cut at every octet."""
    octets = b"MAIL FROM:<>\r\nRCPT TO:<anna@example.test>\r\nRCPT TO:<x@example.test>\r\nRSET\r\n"
    client = mx.client()
    for cut in range(1, len(octets)):
        client.send(octets[:cut])
        client.send(octets[cut:])
        assert [client.reply().status for _ in range(4)] == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.0.0"]


def test_replies_that_the_client_does_not_read(mx):
    """A client that only writes is stopped by its own full window; what it wrote is answered when it reads."""
    client = mx.client()
    count = 20000
    writer = threading.Thread(target=client.send, args=(b"NOOP\r\n" * count,), daemon=True)
    writer.start()
    assert all(client.reply().status == "250 2.0.0" for _ in range(count))
    writer.join()
