"""What strangers and servers say, with everything in it that some reader of it may take for an end: by each way in, looked
at in each way out.  A command, a header, a line of the log, a metric or JSON is never more than it was."""

import json
import re
import socket

import pytest

from conftest import CONTENT
from harness import exchange as does
from harness.client import Client
from harness.journal import poll
from harness.ldap_server import LdapServer, entry

PAYLOADS = {
    "CRLF command": b"x\r\nMAIL FROM:<forged@example.org>",
    "CRLF header": b"x\r\nForged: yes",
    "LF log line": b"x\nevent=forged client=192.0.2.1",
    "CR": b"x\revent=forged",
    "NUL": b"x\0event=forged",
    "pair": b"x event=forged verdict=accept",
    "quote": b'x" event=forged verdict="accept',
    "backslash": b"x\\",
    "escaped quote": b'x\\" event=forged',
    "label": b'x"} 1\npostern_forged{a="b',
    "object": b'x","forged":"yes',
    "markup": b"x</td><script>forged()</script>",
    "format": b"%s%n%x%.1000d",
    "escape": b"\x1b[2Jx\x9b",
    "separators": b"x\xc2\x85\xe2\x80\xa8\xe2\x80\xa9event=forged",
    "bad UTF-8": b"x\xff\xc0\x80\xed\xa0\x80\xf5",
    "plus": b"x+0D+0AForged:+20yes",
    "angle": b"x> SIZE=0 NOTIFY=NEVER <y",
    "comment": b"x (\r\n y) ; z",
}
XCLIENT = "NAME ADDR PORT PROTO HELO"
VERBS = {"EHLO", "HELO", "XCLIENT", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT"}
METRIC = re.compile(r'postern_[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? [-+0-9.eInfNa]+')


def quoted(payload):
    """A local part, as RFC 5321 quotes it."""
    return b'"' + payload.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def another(mx):
    """A message of which there is no other."""
    mx.sent.append(CONTENT + b"%d\r\n" % len(mx.sent))
    return mx.sent[-1]


def say(mx, *lines, source=None):
    """Each that is one line; then a whole message, if its session is still there.  The number of messages taken."""
    client = mx.client(source=source, ehlo=False)
    client.ehlo()
    for line in lines:
        if b"\r\n" in line:
            continue
        client.send(line + b"\r\n")
        try:
            reply = client.reply()
        except ConnectionError:
            return 0
        if reply.status == "550 5.5.2":
            client.ended()
            return 0
    client.ok("RSET")
    taken = client.deliver(another(mx), "anna@example.test").code == 250
    client.quit()
    return taken


def deliver(mx, mail=b"", rcpt=b"", sender=b"a@example.org", helo=b"client.example.org"):
    """With these parameters and names, if they are taken."""
    lines = [b"EHLO " + helo, b"MAIL FROM:<" + sender + b">" + mail, b"RCPT TO:<anna@example.test>" + rcpt]
    if any(b"\r\n" in line for line in lines):
        return 0
    client = mx.client(ehlo=False)
    for line in lines:
        client.send(line + b"\r\n")
        if client.reply().code != 250:
            client.close()
            return 0
    taken = client.data(another(mx)).code == 250
    client.quit()
    return taken


# The ways in: each gets MX and a payload, and returns how many messages it had taken.

def by_ehlo(mx, payload):
    return deliver(mx, helo=payload)


def by_helo(mx, payload):
    return say(mx, b"HELO " + payload)


def by_sender(mx, payload):
    return deliver(mx, sender=payload + b"@example.org") + deliver(mx, sender=quoted(payload) + b"@example.org")


def by_recipient(mx, payload):
    return say(mx, b"MAIL FROM:<a@example.org>", b"RCPT TO:<" + payload + b"@example.test>",
               b"RCPT TO:<" + quoted(payload) + b"@example.test>", b"RCPT TO:<x@" + payload + b">")


def by_parameters(mx, payload):
    return (deliver(mx, mail=b" ENVID=" + payload, rcpt=b" ORCPT=rfc822;" + payload + b" NOTIFY=" + payload)
            + deliver(mx, mail=b" ENVID=" + payload) + deliver(mx, rcpt=b" ORCPT=rfc822;" + payload)
            + deliver(mx, mail=b" AUTH=" + payload) + deliver(mx, mail=b" BODY=" + payload + b" SIZE=" + payload))


def by_command(mx, payload):
    return say(mx, payload, b"VRFY " + payload, b"NOOP " + payload, b"HELP " + payload)


def by_xclient(mx, payload):
    """As it is, and in the hexadecimal that XCLIENT has for what it cannot hold."""
    hexadecimal = b"".join(b"+%02X" % octet for octet in payload)
    return sum(say(mx, *(b"XCLIENT %s=%s ADDR=198.51.100.7" % (name, value) for name in (b"NAME", b"HELO", b"LOGIN")),
                   b"EHLO client.example.org", source="127.0.0.30") for value in (payload, hexadecimal))


def by_proxy(mx, payload):
    """In a header of version 1, and in the TLVs of one of version 2, which are for nobody."""
    one = Client(mx.address, source="127.0.0.20", greet=False, first=b"PROXY TCP4 198.51.100.7 " + payload + b" 1 25\r\n")
    with pytest.raises((ConnectionError, OSError, AssertionError)):
        while True:
            one.reply()
    one.close()
    tlv = b"\x02" + len(payload).to_bytes(2, "big") + payload
    body = bytes([198, 51, 100, 7, 192, 0, 2, 25, 1, 0, 0, 25]) + tlv
    client = Client(mx.address, source="127.0.0.20",
                    first=b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(body).to_bytes(2, "big") + body)
    client.ehlo()
    taken = client.deliver(another(mx), "anna@example.test").code == 250
    client.quit()
    return taken


def by_downstream(mx, payload):
    """In its refusals.  One that is no reply ends its connection; before the content there may be another."""
    taken = 0
    for verb in ("MAIL", "RCPT", "EOD"):
        mx.exchange.on(verb, does.first(1, does.reply(b"550 5.7.1 " + payload + b"\r\n")))
        reply = mx.client().attempt(another(mx), "anna@example.test")
        assert reply.code in (451, 550) if verb == "EOD" else reply.code in (250, 451, 550)
        assert len(reply.lines) == 1
        taken += reply.code == 250
        mx.exchange.usual()
    return taken


def by_downstream_s_ehlo(mx, payload):
    mx.exchange.on("EHLO", does.reply(b"250-" + payload + b"\r\n250-X-" + payload + b"\r\n250 8BITMIME\r\n"))
    mx.exchange.drop_all()
    client = mx.client()
    assert set(client.offered) <= {"PIPELINING", "ENHANCEDSTATUSCODES", "LIMITS", "SIZE", "8BITMIME", "SMTPUTF8", "DSN",
                                   "CHUNKING", "BINARYMIME"}
    taken = client.attempt(another(mx), "anna@example.test").code == 250
    mx.exchange.usual()
    mx.exchange.drop_all()
    poll(lambda: mx.client().command("MAIL FROM:<>").code == 250, "the downstream up")
    return taken


def by_directory(mx, payload):
    """In the values and the name of an entry."""
    mx.said = payload
    mx.control("forget", "carl@example.test")
    assert mx.control("lookup", "carl@example.test")["live"]["result"] == "found"
    return say(mx, b"MAIL FROM:<a@example.org>", b"RCPT TO:<carl@example.test>")


def by_control(mx, payload):
    text = payload.decode("latin-1")
    for words in (("lookup", text + "@example.test"), ("lookup", "anna@example.test", text), ("forget", text), ("block", text),
                  ("log-level", text), ("explain", text), (text,)):
        assert "forged" not in mx.control(*words).keys()
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(mx.socket_path)
        conn.sendall(b'{"command":"lookup","args":["' + payload + b'"]}\n')
        assert "forged" not in json.loads(conn.makefile("rb").readline())
    return 0


def by_http(mx, payload):
    for request in (b"GET /" + payload + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: " + payload + b"\r\n\r\n"):
        with socket.create_connection(mx.http) as conn:
            conn.sendall(request)
            answer = conn.makefile("rb").read()
            assert b"forged" not in answer.lower()
    return 0


WAYS = [by_ehlo, by_helo, by_sender, by_recipient, by_parameters, by_command, by_xclient, by_proxy, by_downstream,
        by_downstream_s_ehlo, by_directory, by_control, by_http]


@pytest.fixture(name="mx")
def start(exchange, postern):
    """A Postern that believes a proxy and an XCLIENT, tells its downstream by XCLIENT, and has a directory that says of
    carl what is in `said`."""
    downstream = exchange(capabilities=["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 1000000", f"XCLIENT {XCLIENT}"])
    server = LdapServer(lambda search: [entry("cn=x,dc=x" + one.said.decode("latin-1"), {
        "proxyAddresses": [b"SMTP:carl@example.test", b"smtp:" + one.said, one.said],
        "cn": [one.said]})] if "carl" in search.filter else
        [entry("cn=a,dc=x", {"proxyAddresses": ["SMTP:anna@example.test"]})] if "anna" in search.filter else [])
    one = postern(downstream, settings={
        "server": {"proxy_protocol": "127.0.0.20", "xclient": "127.0.0.30", "max_errors": 1000},
        "downstream exchange": {"xclient": "yes", "health_interval": "200ms"},
        "log": {"level": "debug"},
        "directory": {"type": "ad", "file": "", "uri": server.uri, "bind": "anonymous", "base": "dc=x", "timeout": "20s"}})
    one.exchange, one.said, one.sent = downstream, b"", []
    yield one
    one.stop()
    server.stop()


def assert_nothing_forged(mx, taken):
    # Commands: each of a verb we use, on a line of its own, and a transaction for each message alone.
    assert {command.verb for command in mx.exchange.commands} <= VERBS
    assert not mx.exchange.junk
    assert len(mx.exchange.delivered) == taken
    for command in mx.exchange.commands:
        assert not re.search("[\\x00-\\x1f\\x7f]", command.line), command
    # Headers: one field on top, whose lines are its own.
    for message in mx.exchange.delivered:
        content = message.without_trace()
        assert content in mx.sent
        trace = message.content[:-len(content)]
        assert trace.count(b"\r\n") == len(re.findall(rb"\r\n[\t ]", trace)) + 1 and b"\nForged" not in trace
        assert not re.search(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n", trace)
    # The log: read by the letter as it came (harness.postern), and no event is another's.
    assert not list(mx.stray)
    assert "forged" not in {event["event"] for event in mx.log} and len(mx.events("start")) == 1
    # Metrics, JSON, the page.
    _, text = mx.get("/metrics")
    for line in text.splitlines():
        assert line.startswith(("# HELP postern_", "# TYPE postern_")) or METRIC.fullmatch(line), line
        assert "forged" not in line
    assert "forged" not in json.loads(mx.get("/api/status")[1])
    assert b"<script>forged" not in mx.get("/")[1].encode()
    for words in (("status",), ("downstreams",), ("directory",), ("blocks",)):
        assert mx.control(*words)["ok"]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_nothing_is_forged(mx, way):
    taken = sum(way(mx, payload) for payload in PAYLOADS.values())
    assert taken > 0 or way in (by_control, by_http)
    assert_nothing_forged(mx, taken)
