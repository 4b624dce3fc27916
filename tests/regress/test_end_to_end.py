"""On real parts: swaks and smtp-source as clients, Postfix as the downstream, slapd as the directory."""

import os
import subprocess
import sys

import pytest

from harness import servers
from harness.journal import DEADLINE_S, poll
from harness.postern import BINARY, SOURCE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix's master needs root")


@pytest.fixture
def postfix(directory, certificates):
    os.chmod(directory, 0o755)
    os.mkdir(path := os.path.join(directory, "postfix"))
    server = servers.Postfix(path, certificates.exchange)
    yield server
    server.stop()


@pytest.fixture
def slapd(directory, certificates):
    os.mkdir(path := os.path.join(directory, "slapd"))
    server = servers.Slapd(path, certificates, {
        "anna": ["anna@example.test", "anna.lang@example.test"], "ben": ["ben@example.test"],
        "star": ["st*r@example.test"]})
    yield server
    server.stop()


def swaks(mx, *arguments):
    return subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(mx.address[1]), "--helo", "client.example.org",
         "--from", "sender@example.org", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S * 2, check=False)


def settings(certificates, slapd=None, **directory):
    chosen = {
        "tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key},
        "downstream exchange": {"tls": "verify", "ca_file": certificates.ca.certificate,
                                "server_name": "ex1.example.test"},
    }
    if slapd:
        chosen["directory"] = {
            "type": "ldap", "file": None, "uri": slapd.uri, "bind": "anonymous", "base": slapd.BASE,
            "filter": "(proxyAddresses=smtp:%u)", "attributes": "proxyAddresses", **directory}
    return chosen


def test_good_message_byte_for_byte(postern, postfix, certificates, directory):
    mx = postern(postfix.address, settings=settings(certificates))
    body = "Subject: byte for byte\n\n.leading dot\n..two\n\nFrom the start\n" + "x" * 2000 + "\nü\n"
    with open(directory + "/mail", "w", encoding="utf-8") as out:
        out.write(body)
    done = swaks(mx, "--tls", "--to", "anna@example.test", "--data", "@" + directory + "/mail")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "250 2.6.0 Queued as" in done.stdout
    mail, = postfix.wait_mails(1)
    assert mail.decode().rstrip("\n").endswith("\n" + body.rstrip("\n"))
    assert b"with ESMTPS" in mail and b"by mx.example.test" in mail


def test_unknown_recipient(postern, postfix, certificates):
    mx = postern(postfix.address, settings=settings(certificates))
    done = swaks(mx, "--tls", "--to", "nobody@example.test")
    assert done.returncode == 24  # no recipient was accepted
    assert "550 5.1.1 <nobody@example.test>: Recipient address rejected: User unknown" in done.stdout
    assert postfix.mails() == []


def test_mixed_recipients(postern, postfix, certificates):
    mx = postern(postfix.address, settings=settings(certificates))
    done = swaks(mx, "--tls", "--to", "anna@example.test,nobody@example.test,ben@example.test")
    assert done.returncode == 0, done.stdout
    assert "550 5.1.1 <nobody@example.test>" in done.stdout
    mails = postfix.wait_mails(2)
    assert sorted(line for mail in mails for line in mail.decode().splitlines() if line.startswith("Delivered-To")) == [
        "Delivered-To: anna@example.test", "Delivered-To: ben@example.test"]


@pytest.mark.parametrize("over", ["ldap", "ldaps", "starttls"])
def test_directory_in_ldap(postern, postfix, slapd, certificates, over):
    keys = {"uri": slapd.tls_uri if over == "ldaps" else slapd.uri, "ca_file": certificates.ca.certificate}
    if over == "starttls":
        keys["starttls"] = "yes"
    mx = postern(postfix.address, settings=settings(certificates, slapd, **keys))
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    replies = client.pipeline(*(f"RCPT TO:<{a}@example.test>" for a in (
        "anna", "nobody", "anna.lang", "*", "ANNA", "st*r", "star", "ann*", "ben)(cn=*")))
    assert [r.status for r in replies] == [
        "250 2.1.5", "550 5.1.1", "250 2.1.5", "550 5.1.1", "250 2.1.5", "250 2.1.5", "550 5.1.1", "550 5.1.1",
        "501 5.1.3"]
    mx.wait_log("rcpt", to="<anna@example.test>", source="ldap")
    mx.wait_log("rcpt", to="<ANNA@example.test>", source="cache")


def test_ldap_simple_bind(postern, postfix, slapd, certificates, directory):
    with open(directory + "/password", "w", encoding="ascii") as out:
        out.write(slapd.PASSWORD + "\n")
    os.chmod(directory + "/password", 0o600)
    mx = postern(postfix.address, settings=settings(
        certificates, slapd, bind="simple", bind_dn=slapd.ROOT_DN, bind_password_file=directory + "/password"))
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    assert client.command("RCPT TO:<anna@example.test>").status == "250 2.1.5"


def test_ldap_server_is_gone(postern, postfix, slapd, certificates):
    """What is known stays known; what is not is put off, never refused."""
    mx = postern(postfix.address, settings=settings(certificates, slapd, timeout="500ms"))
    client = mx.client()
    client.ok("MAIL FROM:<sender@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    slapd.stop()
    client.ok("RCPT TO:<anna@example.test>")
    for name in ("ben", "nobody"):
        assert client.command(f"RCPT TO:<{name}@example.test>").status == "451 4.4.3"
    mx.wait_log("directory", state="down")


def test_smtp_source(postern, postfix, certificates):
    """Two hundred messages over ten connections at once."""
    mx = postern(postfix.address, settings={"server": {"workers": 2}, **settings(certificates)})
    subprocess.run([servers.program("smtp-source"), "-s", "10", "-m", "200", "-l", "5000", "-f", "sender@example.org",
                    "-t", "anna@example.test", "127.0.0.1:%d" % mx.address[1]],
                   check=True, timeout=120, capture_output=True)
    assert len(postfix.wait_mails(200)) == 200
    poll(lambda: len(mx.events("message")) == 200, "a line for each message")


def test_postfix_stopped(postern, postfix, certificates):
    mx = postern(postfix.address, settings=settings(certificates))
    assert swaks(mx, "--to", "anna@example.test").returncode == 0
    assert len(postfix.wait_mails(1)) == 1
    postfix.stop()
    assert "451 4.4.1" in swaks(mx, "--to", "anna@example.test").stdout
    assert len(postfix.mails()) == 1


def test_demo():
    """`make run`, as a test of itself."""
    done = subprocess.run([os.path.join(SOURCE, "tests", "demo", "run"), "--check", BINARY], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=sys.stderr, timeout=120, check=False, text=True)
    assert done.returncode == 0, done.stdout
