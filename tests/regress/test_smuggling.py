"""Every end of data that is none, of DATA and by BDAT, whole and cut in two at each octet: as many messages reach the
downstream as were acknowledged, with the octets that a reading of RFC 5321 by the letter gives them."""

import itertools

import pytest

from conftest import CONTENT
from harness.exchange import CAPABILITIES

LINE_ENDS = [b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\r", b"\0\r\n", b"\r\n\0", b"\r\0\n"]
TRUE_END = b"\r\n.\r\n"
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\nX: y\r\n\r\n.x\r\n"
ENDS = [end for end in (
    *(before + b"." + after for before, after in itertools.product(LINE_ENDS, LINE_ENDS)),
    *(before + dot + after for before, dot, after in itertools.product(
        (b"\r\n", b"\n", b"\r"), (b"..", b". ", b".\0", b"\0.", b".\t", b"\x85.", b"\xe2\x80\xa8."), (b"\r\n", b"\n", b"\r"))),
) if TRUE_END not in b"x" + end + SMUGGLED]
VIAS = {"BDAT": CAPABILITIES, "DATA": [word for word in CAPABILITIES if word not in ("CHUNKING", "BINARYMIME")]}


def read(stream):
    """(content, whether a CR or LF was bare, the rest) of what follows 354, to the first true end."""
    content, begins_line, is_bare, at = b"", True, False, 0
    while True:
        if begins_line and stream[at:at + 1] == b".":
            if stream[at:at + 3] == b".\r\n":
                return content, is_bare, stream[at + 3:]
            at += 1
        if stream[at:at + 2] == b"\r\n":
            content, begins_line, at = content + b"\r\n", True, at + 2
            continue
        octet = stream[at:at + 1]
        assert octet, "no end"
        begins_line, at = False, at + 1
        if octet in (b"\r", b"\n"):
            content, is_bare = content + b"\r\n", True
        else:
            content += octet


def pieces(octets, first, last):
    """OCTETS whole, and cut in two at each of FIRST to LAST."""
    yield octets,
    for cut in range(first, last + 1):
        yield octets[:cut], octets[cut:]


def streams():
    """(octets for DATA, where the questionable ones begin and end), each another message."""
    for number, end in enumerate(ENDS):
        head = CONTENT[:-2] + b" %d" % number
        yield head + end + SMUGGLED + TRUE_END, len(head), len(head) + len(end)


def assert_received(exchange, contents):
    """These messages, to whom they were for, and not a word more."""
    assert [message.without_trace() for message in exchange.received] == contents
    assert {message.mail.split()[0] for message in exchange.received} <= {"<a@example.org>"}
    assert all(message.addresses == ["anna@example.test"] for message in exchange.received)
    assert exchange.count("MAIL") == exchange.count("RCPT") == len(contents)
    assert not exchange.junk


def test_the_table():
    assert len(ENDS) > 100 and {b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r"} < set(ENDS)


@pytest.mark.parametrize("via", VIAS)
def test_data(exchange, postern, via):
    """bare_lf = normalize; behind each message its session still understands a command."""
    downstream = exchange(capabilities=VIAS[via])
    client = postern(downstream).client()
    contents = []
    for stream, first, last in streams():
        content, _, rest = read(stream)
        assert rest == b""
        for parts in pieces(stream, first, last):
            client.envelope("a@example.org", "anna@example.test")
            client.ok("DATA")
            for part in parts:
                client.send(part)
            assert client.reply().status == "250 2.6.0", parts
            assert client.command("NOOP").status == "250 2.0.0", parts
            contents.append(content)
    assert_received(downstream, contents)


def test_data_octet_by_octet(mx):
    client = mx.client()
    contents = []
    for stream, first, last in streams():
        client.envelope("a@example.org", "anna@example.test")
        client.ok("DATA")
        client.send(stream[:first])
        client.send(stream[first:last], trickle=True)
        client.send(stream[last:])
        assert client.reply().status == "250 2.6.0"
        contents.append(read(stream)[0])
    assert_received(mx.exchange, contents)


def test_data_is_refused(exchange, postern):
    """bare_lf = reject: at the first of them the session ends, and nobody hears of the message."""
    mx = postern(downstream := exchange(), settings={"server": {"bare_lf": "reject"}})
    contents = []
    for stream, first, last in streams():
        content, is_bare, _ = read(stream)
        for parts in pieces(stream, first, last):
            client = mx.client()
            client.envelope("a@example.org", "anna@example.test")
            client.ok("DATA")
            for part in parts:
                client.send(part)
            assert client.reply().status == ("550 5.5.2" if is_bare else "250 2.6.0"), parts
            if is_bare:
                client.ended()
                client.close()
            else:
                contents.append(content)
                client.quit()
            mx.clients.remove(client)
    assert contents
    assert_received(downstream, contents)


def test_chunks(mx):
    """By BDAT all of it is content, wherever the chunks are cut, the true end as well; and arrives octet for octet."""
    client = mx.client()
    contents = []
    for stream, first, last in streams():
        for parts in pieces(stream, first, last):
            client.envelope("a@example.org", "anna@example.test")
            replies = client.bdat(*parts, *([b""] if len(parts) == 1 else []))
            assert replies[-1].status == "250 2.6.0", parts
            assert client.command("NOOP").status == "250 2.0.0"
            contents.append(stream)
    assert_received(mx.exchange, contents)


@pytest.mark.parametrize("before, status", [
    (["RSET"], "503 5.5.1"), (["MAIL FROM:<a@example.org>"], "503 5.5.1"),
    (["MAIL FROM:<a@example.org>", "RCPT TO:<nobody@example.test>"], "554 5.5.1")])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_refused_chunks(mx, before, status, count):
    """With more behind them: their octets are swallowed and never read, the last one's as well."""
    chunk = b"RSET\r\n" + SMUGGLED + b".\r\nQUIT\r\n"
    client = mx.client()
    for command in before:
        client.command(command)
    replies = client.bdat(*[chunk] * count)
    assert [reply.code for reply in replies][0] == int(status[:3])
    assert all(reply.code in (503, 554) for reply in replies)
    client.ok("RSET")
    assert client.deliver(CONTENT, "anna@example.test", sender="a@example.org").status == "250 2.6.0"
    assert_received(mx.exchange, [CONTENT])
