"""The greeting, what EHLO offers, and the commands that move no mail."""

import signal
import socket

import pytest

from conftest import CONTENT
from harness import Client

ALWAYS = {"PIPELINING", "ENHANCEDSTATUSCODES", "LIMITS"}
DOWNSTREAMS = {"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME"}


def test_greeting(mx):
    client = mx.client()
    assert str(client.greeting) == "220 mx.example.test ESMTP Postern"
    client.quit()


def test_ehlo_offers_what_the_downstream_does(mx):
    offered = mx.client().offered
    assert set(offered) == ALWAYS | DOWNSTREAMS
    assert offered["SIZE"] == "37748736"
    assert "RCPTMAX=200" in offered["LIMITS"].split()


@pytest.mark.parametrize("missing", sorted(DOWNSTREAMS))
def test_ehlo_lacks_what_the_downstream_lacks(exchange, postern, missing):
    downstream = exchange()
    gone = {missing, "BINARYMIME"} if missing == "CHUNKING" else {missing}  # RFC 3030 3: it needs CHUNKING
    downstream.capabilities = [c for c in downstream.capabilities if c.split()[0] not in gone]
    assert set(postern(downstream).client().offered) == ALWAYS | DOWNSTREAMS - gone


def test_ehlo_offers_what_every_downstream_does(exchange, postern):
    first, second = exchange(), exchange(capabilities=["SIZE 1000000", "8BITMIME", "DSN"])
    settings = {"domain example.org": {"downstream": "second"},
                "downstream second": {"hosts": second.host, "tls": "off", "health_interval": "1h"}}
    mx = postern(first, settings=settings, run=False).start(wait_downstream=False)
    mx.wait_log("downstream", state="up", host=first.host)
    mx.wait_log("downstream", state="up", host=second.host)
    offered = mx.client().offered
    assert set(offered) == ALWAYS | {"SIZE", "8BITMIME", "DSN"}
    assert offered["SIZE"] == "1000000"


def test_ehlo_of_a_downstream_never_reached(exchange, postern):
    downstream = exchange()
    downstream.stop_listening()
    assert set(postern(downstream, wait_downstream=False).client().offered) == ALWAYS | {"8BITMIME"}


def test_ehlo_size_is_the_smaller_limit(exchange, postern):
    mx = postern(exchange(), settings={"server": {"max_message_size": "1M"}})
    assert mx.client().offered["SIZE"] == "1048576"


def test_helo(mx):
    client = mx.client(ehlo=False)
    reply = client.command("HELO client.example.org")
    assert (reply.code, len(reply.lines)) == (250, 1)
    # No extension was offered, so there are no parameters.
    assert client.command("MAIL FROM:<a@example.org> SIZE=1").status == "555 5.5.4"
    assert client.deliver(b"Subject: x\r\n\r\n", "anna@example.test").status == "250 2.6.0"


def test_commands_that_move_no_mail(mx):
    client = mx.client()
    for command, status in [("NOOP", "250 2.0.0"), ("NOOP some words", "250 2.0.0"), ("RSET", "250 2.0.0"),
                            ("VRFY anna@example.test", "252"), ("noop", "250 2.0.0"), ("NoOp", "250 2.0.0")]:
        assert client.command(command).status.startswith(status), command
    client.quit()


@pytest.mark.parametrize("command", ["VRFY", "EXPN"])
@pytest.mark.parametrize("address", ["anna@example.test", "nobody@example.test"])
def test_vrfy_and_expn_tell_nothing(mx, command, address):
    client = mx.client()
    known, unknown = client.command(f"{command} anna"), client.command(f"{command} {address}")
    assert known == unknown
    assert known.code == (252 if command == "VRFY" else 502)


@pytest.mark.parametrize("command, status", [
    ("MAIL FROM:<a@example.org>", "503 5.5.1"),
    ("RCPT TO:<anna@example.test>", "503 5.5.1"),
    ("DATA", "503 5.5.1"),
    ("FOO", "500 5.5.2"),
    ("", "500 5.5.2"),
    ("EHLO", "501 5.5.4"),
    ("HELO", "501 5.5.4"),
])
def test_before_ehlo(mx, command, status):
    assert mx.client(ehlo=False).command(command).status == status


def test_out_of_sequence(mx):
    client = mx.client()
    for command in ("RCPT TO:<anna@example.test>", "DATA", "BDAT 0 LAST"):
        assert client.command(command).status == "503 5.5.1", command
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("MAIL FROM:<b@example.org>").status == "503 5.5.1"
    assert client.command("DATA").status == "503 5.5.1"  # before any RCPT
    client.ok("RCPT TO:<anna@example.test>")
    client.ok("RSET")
    assert client.command("RCPT TO:<anna@example.test>").status == "503 5.5.1"


def test_data_without_an_accepted_recipient(mx):
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<nobody@example.test>").status == "550 5.1.1"
    assert client.command("DATA").status == "554 5.5.1"
    assert client.command("DATA").status == "554 5.5.1"
    # It may begin anew, or name another one.
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("DATA").status == "503 5.5.1"
    assert client.command("RCPT TO:<nobody@example.test>").status == "550 5.1.1"
    assert client.command("DATA").status == "554 5.5.1"
    client.ok("RCPT TO:<anna@example.test>")
    assert client.data(CONTENT).code == 250
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<no@@body>").status == "501 5.1.3"
    assert client.command("DATA").status == "554 5.5.1"  # there was a RCPT
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<nobody@example.test>").status == "550 5.1.1"
    # The chunk is swallowed, not read as commands.
    client.send(b"BDAT 6 LAST\r\nNOOP\r\n")
    assert client.reply().status == "554 5.5.1"
    assert client.command("NOOP").status == "250 2.0.0"


def test_ehlo_ends_a_transaction(mx):
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ehlo()
    assert client.command("DATA").status == "503 5.5.1"


def test_long_command(mx):
    client = mx.client()
    longest = "NOOP " + "x" * (4096 - len("NOOP \r\n"))
    assert client.command(longest).status == "250 2.0.0"
    assert client.command(longest + "x").status == "500 5.5.2"
    # As long as several buffers, and it is still one command with one reply.
    assert client.command("NOOP " + "x" * 300000).status == "500 5.5.2"
    assert client.command("NOOP").status == "250 2.0.0"


@pytest.mark.parametrize("octets", [b"NOOP\n", b"NOOP\r", b"NO\x00OP\r\n", b"NOOP \rx\r\n", b"NOOP\n\r\n",
                                    b"MAIL FROM:<a@example.org>\nRCPT TO:<anna@example.test>\r\n"])
@pytest.mark.parametrize("trickle", [False, True], ids=["whole", "trickle"])
def test_bare_cr_lf_or_nul_in_a_command(mx, octets, trickle):
    client = mx.client()
    # A lone CR is known as such once something else follows it.
    client.send(octets + (b"x" if octets.endswith(b"\r") else b""))
    assert client.reply().status == "550 5.5.2"
    client.ended()


def test_data_before_the_greeting(mx):
    # Stopped, it accepts the connection only once the command is there.
    mx.send_signal(signal.SIGSTOP)
    client = Client(mx.address, greet=False)
    mx.clients.append(client)
    client.send("EHLO client.example.org\r\n")
    mx.send_signal(signal.SIGCONT)
    assert client.reply().status == "554 5.5.0"
    client.ended()


def test_command_octet_by_octet(mx):
    client = mx.client(ehlo=False)
    client.send("EHLO client.example.org\r\n", trickle=True)
    assert client.reply().code == 250


def test_half_closed_client_still_gets_its_reply(mx):
    client = mx.client()
    client.send("NOOP\r\nQUIT\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.reply().status == "250 2.0.0"
    assert client.reply().status == "221 2.0.0"
    client.ended()
