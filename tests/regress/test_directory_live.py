"""The directory asked over LDAP, of real slapds that come, go, hang and lie."""

import json
import os
import signal
import tempfile

import pytest

from conftest import CONTENT
from harness import servers

PEOPLE = {"anna": ["anna@example.test", "a@example.test"], "ben": ["ben@example.test"],
          "carl": ["carl@example.test"]}


@pytest.fixture
def slapd(directory, certificates):
    """Call it for a running slapd with PEOPLE."""
    started = []

    def start():
        started.append(servers.Slapd(tempfile.mkdtemp(dir=directory), certificates, PEOPLE))
        return started[-1]
    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGCONT)
        one.stop()


def password(directory, text=servers.Slapd.PASSWORD):
    path = os.path.join(directory, "password")
    with open(path, "w", encoding="ascii") as out:
        out.write(text + "\n")
    os.chmod(path, 0o600)
    return path


@pytest.fixture
def ask(exchange, postern, certificates, directory):
    """Call it with URIs and changes to [directory] for a Postern; `verdict` of it is a RCPT's reply."""
    def start(*uris, **changes):
        section = {
            "type": "ad", "file": "", "uri": ", ".join(uris), "ca_file": certificates.ca.certificate,
            "bind_dn": servers.Slapd.ROOT_DN, "bind_password_file": password(directory),
            "base": servers.Slapd.BASE, "timeout": "2s",
        }
        section.update(changes)
        one = postern(exchange(), settings={"directory": section})

        def verdict(address, sender="sender@example.org"):
            client = one.client()
            client.ok(f"MAIL FROM:<{sender}>")
            reply = client.command(f"RCPT TO:<{address}>")
            client.close()
            return reply.status
        one.verdict = verdict
        return one
    return start


def restart(one):
    """ONE's process again, on its ports."""
    servers.Server.__init__(one, one.directory, one.process.args, port=one.port)


@pytest.mark.parametrize("transport, starttls", [("uri", "no"), ("uri", "yes"), ("tls_uri", "no")])
def test_transports(slapd, ask, transport, starttls):
    server = slapd()
    one = ask(getattr(server, transport), starttls=starttls)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("A@Example.Test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    assert one.verdict("*@example.test") == "550 5.1.1"
    one.wait_log("rcpt", to="<anna@example.test>", source="ldap")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    one.wait_log("rcpt", to="<anna@example.test>", source="cache")


def test_ldap_type_looks_for_mail(slapd, ask):
    one = ask(slapd().uri, type="ldap")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("a@example.test") == "550 5.1.1"  # no value of mail


def test_a_filter_of_ones_own(slapd, ask):
    one = ask(slapd().uri, type="ldap", filter="(&(cn=%l)(mail=*@%d))")
    assert one.verdict("ben@example.test") == "250 2.1.5"
    assert one.verdict("a@example.test") == "550 5.1.1"


@pytest.mark.parametrize("changes, error", [
    ({"ca_file": ""}, "TLS"),                                    # a certificate nobody vouches for
    ({"bind_dn": "cn=nobody,dc=example,dc=test"}, "Invalid credentials"),
])
def test_a_server_that_cannot_be_used_is_no_no(slapd, ask, changes, error):
    one = ask(slapd().tls_uri, **changes)
    assert error in one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test") == "451 4.4.3"
    assert one.verdict("nobody@example.test") == "451 4.4.3"
    assert len(one.events("directory", state="down")) == 1


def test_a_base_that_does_not_exist_is_no_no(slapd, ask):
    one = ask(slapd().uri, base="ou=nowhere,dc=example,dc=test")
    assert one.verdict("anna@example.test") == "451 4.4.3"
    assert "No such object" in one.wait_log("directory", state="degraded")["error"]
    problem = next(p for p in json.loads(one.get("/readyz")[1])["problems"] if p["part"] == "directory")
    assert problem["state"] == "degraded" and "No such object" in problem["error"]
    assert one.verdict("nobody@example.test") == "451 4.4.3"
    assert len(one.events("directory", state="degraded")) == 1


def test_a_restarted_server_is_not_noticed(slapd, ask):
    server = slapd()
    one = ask(server.tls_uri)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.stop(signal.SIGKILL)
    restart(server)
    assert one.verdict("ben@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"


def test_the_known_are_served_while_no_server_answers(slapd, ask):
    server = slapd()
    one = ask(server.uri, cache_positive="0s", cache_negative="0s")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    server.stop(signal.SIGKILL)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "451 4.4.3"
    assert one.verdict("ben@example.test") == "451 4.4.3"
    one.wait_log("directory", state="down", host=server.uri)
    since = len(one.log)
    restart(server)
    one.wait_log("directory", state="up", since=since)
    assert one.verdict("ben@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"


def test_on_failure_accept(slapd, ask):
    server = slapd()
    one = ask(server.uri, on_failure="accept")
    one.wait_log("directory", state="up")
    server.stop(signal.SIGKILL)
    assert one.verdict("anybody@example.test") == "250 2.1.5"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_next_server_takes_over(slapd, ask, how):
    first, second = slapd(), slapd()
    one = ask(first.tls_uri, second.tls_uri)
    one.wait_log("directory", state="up", host=first.tls_uri)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    first.process.send_signal(how)
    assert one.verdict("ben@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    one.wait_log("directory", state="down", host=first.tls_uri)
    one.wait_log("directory", state="up", host=second.tls_uri)
    since = len(one.log)
    if how == signal.SIGSTOP:
        first.process.send_signal(signal.SIGCONT)
    else:
        first.process.wait()
        restart(first)
    one.wait_log("directory", state="up", host=first.tls_uri, since=since)  # and back to the first


def test_a_hung_server_delays_its_own_lookups_only(slapd, ask):
    server = slapd()
    one = ask(server.tls_uri, timeout="3s")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.process.send_signal(signal.SIGSTOP)
    waiting = one.client()
    waiting.ok("MAIL FROM:<sender@example.org>")
    waiting.send("RCPT TO:<ben@example.test>\r\n")
    other = one.client()
    other.envelope("sender@example.org", "anna@example.test")
    assert other.data(CONTENT).code == 250
    waiting.silent()
    assert waiting.reply().status == "451 4.4.3"
    one.wait_log("directory", state="down", host=server.tls_uri)
    assert one.verdict("carl@example.test") == "451 4.4.3"
    assert one.verdict("anna@example.test") == "250 2.1.5"


def test_a_learnt_address_is_known_once_the_negative_answer_is_old(slapd, ask):
    server = slapd()
    one = ask(server.uri, cache_negative="0s")
    assert one.verdict("dora@example.test") == "550 5.1.1"
    server.add("dora", ["dora@example.test"])
    assert one.verdict("dora@example.test") == "250 2.1.5"
