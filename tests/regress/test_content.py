"""Content goes through octet for octet, under one Received field of ours."""

import re

import pytest

from harness.client import dot_stuff
from harness.exchange import CAPABILITIES

HEAD = b"From: <sender@example.org>\r\nSubject: a test\r\n\r\n"

# Lines end with CRLF: DATA can carry these.
LINES = {
    "plain": HEAD + b"Hello.\r\n",
    "empty": b"",
    "an empty line": b"\r\n",
    "header only": b"Subject: no body\r\n",
    "no header": b"\r\nbody\r\n",
    "no fields": b"this is no header line\r\nnor this\r\n\r\nbody\r\n",
    "one dot": HEAD + b".\r\n",
    "dots": HEAD + b".\r\n..\r\n...\r\n.a\r\n..a\r\na.\r\n\r\n.\r\n\r\n",
    "dot first": b".\r\n",
    "dots first": b"..: x\r\n\r\n",
    "long line": HEAD + b"x" * 100000 + b"\r\n",
    "long header line": b"X: " + b"y" * 50000 + b"\r\n\r\nbody\r\n",
    "folded": b"Subject: a\r\n b\r\n\tc\r\n\r\n",
    "8 bit": HEAD + bytes(range(128, 256)) + b"\r\n",
    "controls": HEAD + bytes(o for o in range(32) if o not in (10, 13)) + b"\x7f\r\n",
    "commands": HEAD + b"QUIT\r\nRSET\r\nMAIL FROM:<a@b>\r\n250 ok\r\n",
    "many empty lines": HEAD + b"\r\n" * 5000,
    "lines of every length": HEAD + b"".join(b"x" * n + b"\r\n" for n in range(1100)),
}

# Only BDAT can carry these.
OCTETS = {
    "bare LF": b"Subject: x\n\nbody\n.\nmore\n",
    "bare CR": HEAD + b"a\rb\r",
    "no line end": HEAD + b"the end",
    "CR at the end": HEAD + b"the end\r",
    "LF CR": HEAD + b"\n\r\n\r.\n\r",
    "every octet": HEAD + bytes(range(256)) * 50,
    "NUL": b"\x00" * 1000,
    "end of data": HEAD + b"\r\n.\r\nQUIT\r\n.\r\n",
}


def contents(table):
    return pytest.mark.parametrize("content", table.values(), ids=table.keys())




def pair(exchange, postern, via, **arguments):
    capabilities = [c for c in CAPABILITIES if via == "BDAT" or c not in ("CHUNKING", "BINARYMIME")]
    downstream = exchange(capabilities=capabilities)
    one = postern(downstream, **arguments)
    one.exchange = downstream
    return one


@contents(LINES)
@pytest.mark.parametrize("via", ["BDAT", "DATA"])
def test_data(exchange, postern, via, content):
    mx = pair(exchange, postern, via)
    assert mx.client().deliver(content, "anna@example.test").status == "250 2.6.0"
    message = mx.exchange.delivered[0]
    assert message.without_trace() == content
    assert message.via == via
    assert not mx.exchange.junk


@contents({**LINES, **OCTETS})
def test_bdat(mx, content):
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test", mail=" BODY=BINARYMIME")
    assert client.bdat(content)[-1].status == "250 2.6.0"
    message = mx.exchange.delivered[0]
    assert message.without_trace() == content
    assert message.via == "BDAT"


def test_bdat_in_many_chunks(mx):
    content = HEAD + bytes(range(256)) * 4
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test")
    chunks = [content[:1], b"", content[1:40]] + [content[n:n + 7] for n in range(40, len(content), 7)] + [b""]
    replies = client.bdat(*chunks)
    assert [reply.code for reply in replies] == [250] * len(chunks)
    assert replies[-1].status == "250 2.6.0"
    assert mx.exchange.delivered[0].without_trace() == content


def test_data_octet_by_octet(mx):
    content = LINES["dots"]
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test")
    assert client.command("DATA").code == 354
    client.send(dot_stuff(content), trickle=True)
    assert client.reply().status == "250 2.6.0"
    assert mx.exchange.delivered[0].without_trace() == content


def test_data_cut_in_two_at_every_octet(mx):
    stuffed = b"A: b\r\n\r\n..\r\n...x\r\r\n\r\n.\r\n"
    client = mx.client()
    for cut in range(1, len(stuffed)):
        client.envelope(f"sender{cut}@example.org", "anna@example.test")
        assert client.command("DATA").code == 354
        client.send(stuffed[:cut])
        client.send(stuffed[cut:])
        assert client.reply().status == "250 2.6.0"
    whole = {message.without_trace() for message in mx.exchange.delivered}
    assert len(whole) == 1
    assert len(mx.exchange.delivered) == len(stuffed) - 1


def test_received_field(mx):
    client = mx.client()
    reply = client.deliver(LINES["plain"], "anna@example.test")
    queued = re.fullmatch(r"2\.6\.0 Queued as ((\S+)\.[0-9]+)", reply.lines[0])
    assert queued, reply
    assert mx.wait_log("connect")["session"] == queued[2]
    field = mx.exchange.delivered[0].content[:-len(LINES["plain"])].decode()
    assert field.startswith("Received: from client.example.org (") and field.endswith("\r\n")
    words = " ".join(field.split())
    assert "[127.0.0.1]" in words
    assert " by mx.example.test " in words
    assert " with ESMTP " in words
    assert f" id {queued[1]}" in words
    assert " for <anna@example.test>;" in words
    # The second message of the session has its own number; with two recipients neither is named.
    reply = client.deliver(LINES["plain"], "anna@example.test", "ben@example.test")
    assert reply.lines[0].startswith(f"2.6.0 Queued as {queued[2]}.")
    assert reply.lines[0] != f"2.6.0 Queued as {queued[1]}"
    assert b" for <" not in mx.exchange.delivered[1].content


def test_received_field_cannot_be_forged_by_helo(mx):
    client = mx.client(ehlo=False)
    for name in ("a (b)", "x\ty", "a;b"):
        client.command(f"EHLO {name}")
    client.ehlo("[127.0.0.1]")
    assert client.deliver(LINES["plain"], "anna@example.test").code == 250
    field = mx.exchange.delivered[0].content.split(b"\r\nFrom:")[0]
    assert field.count(b";") == 1


@pytest.mark.parametrize("argument", ["", "x", "-1", "+1", "0x10", "1 FIRST", "1 LAST x", "18446744073709551616",
                                      "99999999999999999999999", "1LAST", "1.5"])
def test_malformed_bdat(mx, argument):
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test")
    client.send(f"BDAT {argument}".rstrip() + "\r\nNOOP\r\n")
    assert client.reply().status == "501 5.5.4"
    client.ended()
    assert not mx.exchange.transactions()


def test_commands_between_chunks(mx):
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test")
    client.send(b"BDAT 3\r\nabc")
    assert client.reply().code == 250
    for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<ben@example.test>", "DATA"):
        assert client.command(command).status == "503 5.5.1", command
    assert client.command("NOOP").code == 250
    assert client.command("RSET").code == 250
    assert client.deliver(LINES["plain"], "anna@example.test").code == 250
    assert mx.exchange.delivered[0].without_trace() == LINES["plain"]


def test_bdat_out_of_sequence(mx):
    """Its octets are no commands."""
    client = mx.client()
    for begin in "RSET", "MAIL FROM:<a@example.org>":
        client.ok(begin)
        client.send(b"BDAT 6 LAST\r\nQUIT\r\n")
        assert client.reply().status == "503 5.5.1", begin
    client.ok("RCPT TO:<anna@example.test>")
    assert [reply.code for reply in client.bdat(LINES["plain"])] == [250]


FIREWALLED = (b"X-MS-Exchange-Organization-SCL: -1\r\nSubject: x\r\n"
              b"x-ms-exchange-organization-authas: Internal\r\n folded\r\nX-MS-Exchange-Forest-RulesExecuted: a\r\n"
              b"X-MS-Exchange-Transport-x: stays\r\n\r\nX-MS-Exchange-Organization-SCL: in the body\r\n")
CLEANED = (b"Subject: x\r\nX-MS-Exchange-Transport-x: stays\r\n\r\n"
           b"X-MS-Exchange-Organization-SCL: in the body\r\n")


def test_header_firewall(mx):
    assert mx.client().deliver(FIREWALLED, "anna@example.test").code == 250
    assert mx.exchange.delivered[0].without_trace() == CLEANED


def test_header_firewall_reads_bare_lf_as_a_line_end(mx):
    client = mx.client()
    client.envelope("sender@example.org", "anna@example.test")
    assert client.bdat(FIREWALLED.replace(b"\r\n", b"\n"))[-1].code == 250
    assert mx.exchange.delivered[0].without_trace() == CLEANED.replace(b"\r\n", b"\n")


def test_header_firewall_off(exchange, postern):
    mx = pair(exchange, postern, "BDAT", settings={"server": {"header_firewall": "no"}})
    assert mx.client().deliver(FIREWALLED, "anna@example.test").code == 250
    assert mx.exchange.delivered[0].without_trace() == FIREWALLED


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_a_first_line_with_a_blank_does_not_continue_what_is_suppressed(exchange, postern, blank):
    mx = pair(exchange, postern, "BDAT", settings={"remote_domain default": {"auto_replies": "no"}})
    assert mx.client().deliver(blank + b"x\r\n" + LINES["plain"], "anna@example.test").code == 250
    assert re.fullmatch(rb"X-Auto-Response-Suppress: OOF, AutoReply\r\n"
                        rb"Received:[^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*" + re.escape(blank + b"x\r\n" + LINES["plain"]),
                        mx.exchange.delivered[0].content)


@pytest.mark.parametrize("shift", range(4))
def test_dots_at_every_place_of_what_goes_out_at_a_time(exchange, postern, shift):
    """A host without CHUNKING gets as many octets at once as fit: none is lost where they end."""
    mx = postern(downstream := exchange(capabilities=["PIPELINING"]), settings={"spool": {"memory": "100K"}})
    content = (b"Subject: x\r\n\r\n" + b"x" * shift + b"\r\n" + b".\r\n" * 60000 + b".." * 70000 + b"\r\n" +
               b"x" * 140000 + b"\r\n.\r\n")
    assert mx.client().deliver(content, "anna@example.test").status == "250 2.6.0"
    assert downstream.delivered[0].without_trace() == content
