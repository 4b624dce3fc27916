"""The directory asked over LDAP, of real slapds that come, go, hang and lie."""

import json
import os
import signal
import socket
import time

import pytest

from conftest import CONTENT
from harness import servers
from harness.journal import poll

PEOPLE = {"anna": ["anna@example.test", "a@example.test"], "ben": ["ben@example.test"],
          "carl": ["carl@example.test"]}


@pytest.fixture
def slapd(start_slapd):
    """Call it for a running slapd with PEOPLE."""
    return lambda recipients=PEOPLE, **config: start_slapd(recipients, **config)


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
        one.verdict = lambda *arguments: one.rcpt(*arguments).status
        return one
    return start


def restart(one):
    """ONE's process again, on its ports."""
    servers.Server.__init__(one, one.directory, one.process.args, port=one.port)


# Binds

# Whoever has a certificate of our CA is known by its name; only that one may read.
BY_CERTIFICATE = """
TLSVerifyClient demand
authz-regexp "^cn=([^,]+)$" "cn=$1,dc=example,dc=test"
"""
FOR_POSTERN = """
access to * by dn.exact="cn=postern.example.test,dc=example,dc=test" read by anonymous auth by * none
"""


@pytest.fixture
def pem(certificates, directory, monkeypatch):
    """Call it with a certificate of the harness for a file with it and its key."""
    # What libldap forgets of them (see ldap/dir_tls.h) is no fault of ours.
    known = servers.write(directory, "known", "leak:gnutls_x509_privkey_init\nleak:gnutls_x509_crt_init\n")
    monkeypatch.setenv("LSAN_OPTIONS", f"suppressions={known}:print_suppressions=0")

    def join(which):
        path = os.path.join(directory, "client.pem")
        with open(path, "w", encoding="ascii") as out:
            for part in (which.certificate, which.key):
                with open(part, encoding="ascii") as text:
                    out.write(text.read())
        os.chmod(path, 0o600)
        return path
    return join


@pytest.mark.parametrize("transport, starttls", [("uri", "yes"), ("tls_uri", "no")])
def test_a_certificate_instead_of_a_password(slapd, ask, pem, certificates, transport, starttls):
    server = slapd(config=FOR_POSTERN, globals_=BY_CERTIFICATE)
    one = ask(getattr(server, transport), starttls=starttls, bind="external", bind_dn="",
              bind_password_file=pem(certificates.client))
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"


@pytest.mark.parametrize("transport, starttls", [("uri", "yes"), ("tls_uri", "no")])
@pytest.mark.parametrize("who", ["stranger", "none"])
def test_a_certificate_that_does_not_fit_is_no_no(slapd, ask, pem, certificates, transport, starttls, who):
    server = slapd(config=FOR_POSTERN, globals_=BY_CERTIFICATE)
    one = ask(getattr(server, transport), starttls=starttls, bind="external", bind_dn="",
              bind_password_file=pem(certificates.stranger) if who == "stranger" else "")
    assert one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test") == "451 4.4.3"
    assert not is_ready(one)[0]


def test_a_certificate_without_rights_is_no_no(slapd, ask, pem, certificates):
    """The server knows it, under a name that may read nothing."""
    server = slapd(config=FOR_POSTERN, globals_=BY_CERTIFICATE)
    one = ask(server.tls_uri, bind="external", bind_dn="", bind_password_file=pem(certificates.exchange))
    assert "search" in one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test") == "451 4.4.3"


def test_an_empty_password_is_none(slapd, ask, directory):
    """A server may take it for a stranger's, who sees nobody: then all would be unknown."""
    server = slapd(globals_="allow bind_anon_cred", config="access to * by users read by * search")
    one = ask(server.uri)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    with open(one.settings["directory"]["bind_password_file"], "w", encoding="ascii"):
        pass
    server.stop(signal.SIGKILL)
    restart(server)
    # In the log too, though another error was told just before.
    one.log.wait(lambda e: e["event"] == "directory" and "no password" in e.get("error", ""), "the error")
    assert "no password" in lookup(one)["error"]
    assert one.verdict("ben@example.test") == "451 4.4.3"


@pytest.mark.parametrize("servers_", [1, 2])
def test_a_wrong_password_shows_at_the_reload(slapd, ask, directory, servers_):
    """Though the connections that stand would serve on; and the right one is taken at the next."""
    started = [slapd() for _ in range(servers_)]
    one = ask(*[server.uri for server in started])
    assert one.verdict("anna@example.test") == "250 2.1.5"
    password(directory, "wrong")
    assert one.control("reload")["ok"]
    assert "nvalid credentials" in one.wait_log("directory", state="down")["error"]
    assert one.verdict("ben@example.test") == "451 4.4.3"
    assert one.verdict("anna@example.test") == "250 2.1.5"  # cached
    password(directory)
    assert one.control("reload")["ok"]
    poll(lambda: one.verdict("ben@example.test") == "250 2.1.5", "the right password taken")


def test_an_address_of_two_objects_is_shown_as_both_s(slapd, ask):
    """Exchange bounces it (5.1.4)."""
    ldif = "".join(servers.recipient_entry(name, ["dup@example.test"]) for name in ("one", "two"))
    server = slapd(ldif)
    mx = ask(server.uri)
    live = lookup(mx, "dup@example.test")
    others = [line.partition(": ")[2] for line in live["attributes"] if line.startswith("also the address of: ")]
    assert sorted([live["dn"], *others]) == sorted(servers.recipient_dn(name) for name in ("one", "two"))
    refused = mx.control("directory", "duplicates")
    assert not refused["ok"] and "mode = snapshot" in refused["error"]


# What Exchange would accept and bounce

def test_restrictions_live(slapd, ask):
    ldif = "".join(servers.recipient_entry(*item) for item in PEOPLE.items()) + "".join([
        servers.recipient_entry("list", ["list@example.test"], member=[servers.recipient_dn("ben")]),
        servers.recipient_entry("staff", ["staff@example.test"], msExchRequireAuthToSendTo=["TRUE"]),
        servers.recipient_entry("open", ["open@example.test"], msExchRequireAuthToSendTo=["FALSE"]),
        servers.recipient_entry("board", ["board@example.test"], authOrig=[servers.recipient_dn("anna")],
                                dLMemSubmitPerms=[servers.recipient_dn("list")]),
        servers.recipient_entry("press", ["press@example.test"], unauthOrig=[servers.recipient_dn("anna")],
                                dLMemRejectPerms=[servers.recipient_dn("list")]),
        # A name in a list that is nobody's any longer.
        servers.recipient_entry("ghost", ["ghost@example.test"], authOrig=[servers.recipient_dn("gone")]),
        servers.recipient_entry("far", ["far@example.test"], dLMemSubmitPerms=["cn=list,dc=elsewhere,dc=test"]),
        servers.recipient_entry("small", ["small@example.test"], delivContLength=["10"])])
    one = ask(slapd(ldif).uri)
    known, denied = "250 2.1.5", "550 5.7.1"
    for name, sender, expected in [
            ("staff", "anna@example.test", denied), ("staff", "", denied), ("open", "x@example.org", known),
            ("board", "a@example.test", known), ("board", "ben@example.test", known),
            ("board", "carl@example.test", denied), ("board", "x@example.org", denied), ("board", "", denied),
            ("press", "anna@example.test", denied), ("press", "ben@example.test", denied),
            ("press", "carl@example.test", known), ("press", "x@example.org", known), ("press", "", known),
            ("ghost", "anna@example.test", denied), ("ghost", "x@example.org", denied),
            ("far", "x@example.org", denied)]:
        assert one.verdict(f"{name}@example.test", sender) == expected, (name, sender)
    client = one.client()
    for size, status in ((10240, known), (10241, "552 5.2.3")):
        client.ok(f"MAIL FROM:<x@example.org> SIZE={size}")
        assert client.command("RCPT TO:<small@example.test>").status == status
        client.ok("RSET")
    plain = ask(slapd(ldif).uri, type="ldap", attributes="proxyAddresses")
    assert plain.verdict("staff@example.test") == known  # of Exchange's attributes it knows nothing


@pytest.mark.parametrize("stage", ["rcpt", "data"])
@pytest.mark.parametrize("via", ["data", "bdat"])
def test_too_large_for_one_at_the_end(slapd, ask, stage, via):
    """The same for stage = data, where RCPT took what it knew to be too large."""
    one = ask(slapd("".join([servers.recipient_entry("anna", ["anna@example.test"]),
                             servers.recipient_entry("small", ["small@example.test"], delivContLength=["1"])])).uri)
    one.write_config({"harvest": {"stage": stage}})
    one.reload()
    client = one.client()
    for declared in ["", " SIZE=3000"] if stage == "data" else [""]:
        client.envelope("x@example.org", "anna@example.test", "small@example.test", mail=declared)
        content = CONTENT + b"x" * 2000 + b"\r\n"
        replies = [client.data(content)] if via == "data" else client.bdat(content[:1000], content[1000:])
        assert str(replies[-1]).startswith("552 5.2.3 <small@example.test>: "), replies
    client.envelope("x@example.org", "small@example.test")
    assert client.data(CONTENT).status == "250 2.6.0"


# Where it ends

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
    ({"ca_file": ""}, "vouched for by ca_file"),                 # a certificate nobody vouches for
    ({"bind_dn": "cn=nobody,dc=example,dc=test"}, "Invalid credentials"),
    ({"filter": "(!(mail=%u)(cn=%l))"}, "Bad search filter"),
])
def test_a_server_that_cannot_be_used_is_no_no(slapd, ask, changes, error):
    one = ask(slapd().tls_uri, **changes)
    assert error in one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test") == "451 4.4.3"
    assert one.verdict("nobody@example.test") == "451 4.4.3"
    assert len(one.events("directory", state="down")) == 1


def lookup(one, address="anna@example.test"):
    return one.control("lookup", address)["live"]


def is_ready(one):
    """What /readyz says, and its problems with the directory."""
    status, text = one.get("/readyz")
    problems = [(p["state"], p["error"]) for p in json.loads(text)["problems"] if p["part"] == "directory"]
    return status == 200, problems


OU = "dn: ou=people,dc=example,dc=test\nchangetype: {}\n{}\n"

BLIND = """
access to dn.subtree="dc=example,dc=test" by dn.exact="cn=ben,dc=example,dc=test" none by * read
"""


@pytest.mark.parametrize("changes, config, error", [
    ({"base": "ou=nowhere,dc=example,dc=test"}, "", "No such object"),
    ({"bind_dn": "cn=ben,dc=example,dc=test"}, BLIND, "No such object"),  # so that nobody learns what there is
    ({"bind_dn": "cn=ben,dc=example,dc=test"}, BLIND.replace("none", "disclose"), "Insufficient access"),
])
def test_a_server_that_takes_binds_and_answers_no_search(slapd, ask, changes, config, error):
    """It is as good as down: before anybody asks, and without a wait for who does."""
    one = ask(slapd(config=config).uri, **changes)
    assert error in one.wait_log("directory", state="down")["error"]
    poll(lambda: not is_ready(one)[0], "not ready")
    assert any(state == "down" and error in text for state, text in is_ready(one)[1])
    for address in ("anna@example.test", "nobody@example.test"):
        assert one.verdict(address) == "451 4.4.3"
    live = lookup(one)
    assert live["result"] == "unavailable" and error in live["error"]
    assert len(one.events("directory", state="down")) == 1
    assert not one.events("directory", state="up")


def test_a_base_that_goes_and_comes_back(slapd, ask):
    """Nobody need ask for Postern to find that it can answer again."""
    server = slapd()
    server.change(OU.format("add", "objectClass: organizationalUnit\nou: people\n"))
    one = ask(server.uri, base="ou=people,dc=example,dc=test", cache_negative="0s")
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    assert is_ready(one) == (True, [])
    server.change(OU.format("delete", ""))
    assert one.verdict("nobody@example.test") == "451 4.4.3"
    one.wait_log("directory", state="degraded")
    poll(lambda: not is_ready(one)[0], "not ready")
    since = len(one.log)
    server.change(OU.format("add", "objectClass: organizationalUnit\nou: people\n"))
    one.wait_log("directory", since=since, state="up")
    assert is_ready(one) == (True, [])
    assert one.verdict("nobody@example.test") == "550 5.1.1"


def test_the_cached_are_answered_though_no_search_is(slapd, ask):
    """... and so it is ready.  To know who is absent is not enough."""
    server = slapd()
    server.change(OU.format("add", "objectClass: organizationalUnit\nou: people\n"))
    one = ask(server.uri, base=f"ou=people,{servers.Slapd.BASE}", cache_positive="0s", cache_negative="1h")
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    server.change(f"dn: cn=anna,ou=people,{servers.Slapd.BASE}\nchangetype: add\nobjectClass: adRecipient\ncn: anna\n"
                  "proxyAddresses: smtp:anna@example.test\n\n")
    server.stop(signal.SIGKILL)
    poll(lambda: not is_ready(one)[0], "not ready")
    since = len(one.log)
    restart(server)
    one.wait_log("directory", since=since, state="up")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.change(f"dn: cn=anna,ou=people,{servers.Slapd.BASE}\nchangetype: delete\n\n" + OU.format("delete", ""))
    since = len(one.log)
    assert one.verdict("ben@example.test") == "451 4.4.3"
    assert "No such object" in one.wait_log("directory", since=since, state="down")["error"]
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert is_ready(one)[0]


def test_one_search_that_fails_is_named(slapd, ask):
    """Of one address there are too many: that is no trouble with the others, and no "no" either."""
    crowd = "".join(servers.recipient_entry(f"twin{i}", ["twin@example.test"]) for i in range(30))
    everybody = "".join(servers.recipient_entry(*item) for item in PEOPLE.items())
    one = ask(slapd(everybody + crowd).uri, type="ldap", filter="(|(mail=%u)(cn=%l*))", attributes="mail")
    assert one.verdict("twin@example.test") == "250 2.1.5"
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    # The filter finds many, and what was asked for is not among those that come.
    assert one.verdict("twi@example.test") == "451 4.4.3"
    assert "Size limit exceeded" in one.wait_log("directory", state="degraded")["error"]
    live = lookup(one, "twi@example.test")
    assert live["result"] == "unavailable" and "Size limit exceeded" in live["error"]
    assert one.verdict("anna@example.test") == "250 2.1.5"
    poll(lambda: is_ready(one) == (True, []), "all is well")


def test_no_cache(slapd, ask):
    """cache_size = 0: each question is the server's to answer."""
    one = ask(slapd().uri, cache_size=0)
    for name in ("anna", "nobody"):
        for _ in range(2):
            one.verdict(f"{name}@example.test")
        assert [e["source"] for e in one.events("rcpt", to=f"<{name}@example.test>")] == ["ldap"] * 2


def test_a_restarted_server_is_not_noticed(slapd, ask):
    server = slapd()
    one = ask(server.tls_uri, timeout="20s")  # so long it has to come back
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


@pytest.mark.parametrize("changes, status", [
    ({"timeout": "1s", "cache_stale": "2h"}, "250 2.1.5"),
    ({"mode": "snapshot"}, "451 4.4.3"),
    ({"cache_size": "0"}, "451 4.4.3"),
    ({"filter": "(mail=%u)"}, "451 4.4.3"),
])
def test_a_reload_in_an_outage_forgets_no_answer_that_still_holds(slapd, ask, changes, status):
    server = slapd()
    one = ask(server.uri, cache_positive="0s")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.stop(signal.SIGKILL)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    one.write_config({"directory": changes})
    one.reload()
    assert one.verdict("anna@example.test") == status
    assert one.verdict("ben@example.test") == "451 4.4.3"


@pytest.mark.parametrize("name, sender, status", [
    ("anna+x", "x@example.org", "250 2.1.5"),      # then without its tag
    ("board", "anna@example.test", "250 2.1.5"),   # then with its sender
    ("board", "x@example.org", "550 5.7.1"),
])
def test_a_question_that_a_reload_meets_is_asked_to_its_end(slapd, ask, name, sender, status):
    server = slapd("".join([
        servers.recipient_entry("anna", ["anna@example.test"]), servers.recipient_entry("ben", ["ben@example.test"]),
        servers.recipient_entry("board", ["board@example.test"], authOrig=[servers.recipient_dn("anna")])]))
    one = ask(server.uri, plus_addressing="yes", timeout="20s")
    assert one.verdict("ben@example.test") == "250 2.1.5"
    server.freeze()
    client = one.client()
    client.ok(f"MAIL FROM:<{sender}>")
    client.send(f"RCPT TO:<{name}@example.test>\r\n")
    poll(lambda: one.control("directory")["directories"][0]["pending"], "the question")
    one.write_config({"directory": {"cache_stale": "2h"}})
    one.reload()
    server.process.send_signal(signal.SIGCONT)
    assert client.reply().status == status


def test_the_next_directory_too_is_asked_by_a_question_that_a_reload_meets(slapd, ask):
    first, second = slapd(), slapd({"dora": ["dora@example.test"]})
    one = ask(first.uri, timeout="20s")
    one.write_config({"domain example.test": {"directory": "one, two"}, "directory": None,
                      "directory one": one.settings["directory"],
                      "directory two": {**one.settings["directory"], "uri": second.uri}})
    one.reload()
    assert one.verdict("anna@example.test") == "250 2.1.5"
    first.freeze()
    client = one.client()
    client.ok("MAIL FROM:<x@example.org>")
    client.send("RCPT TO:<dora@example.test>\r\n")
    poll(lambda: one.control("directory")["directories"][0]["pending"], "the question")
    one.write_config({name: {"cache_stale": "2h"} for name in ("directory one", "directory two")})
    one.reload()
    first.process.send_signal(signal.SIGCONT)
    assert client.reply().status == "250 2.1.5"


def connections(port):
    """How many there are to it."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    return sum(int(row[2].partition(":")[2], 16) == port and row[3] == "01" for row in rows)


def test_a_reload_closes_what_it_replaced_though_nobody_asks(slapd, ask):
    server = slapd()
    one = ask(server.uri, connections="5")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    assert lookup(one)["result"] == "found"
    poll(lambda: connections(server.port) == 5, "five connections")
    one.write_config({"directory": {"connections": "1"}})
    one.reload()
    poll(lambda: connections(server.port) == 1, "one connection")


def test_a_reload_waits_for_no_visit_to_a_stand_by(slapd, ask):
    """It hangs, and the connections that a first reload took out of use are closed long before."""
    server = slapd()
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        one = ask(server.uri, f"ldap://127.0.0.1:{port}", timeout="5m")
        poll(lambda: connections(port), "a visit")
        one.write_config({"directory": {"connections": "3"}})
        one.reload()
        poll(lambda: connections(server.port) == 3, "the first ones closed")
        one.reload()
        assert one.verdict("anna@example.test") == "250 2.1.5"
        one.stop()  # nor does the end, which says nothing of the server
        assert not one.events("directory", state="down")


def test_in_an_outage_a_tag_does_not_inherit_a_no(slapd, ask):
    """Who may not write to staff@ may write to staff+public@, which is a mailbox of its own."""
    server = slapd({"staff": ["staff@example.test"], "public": ["staff+public@example.test"]})
    server.replace("staff", "msExchRequireAuthToSendTo", "TRUE")
    one = ask(server.uri, plus_addressing="yes")
    assert one.verdict("staff@example.test") == "550 5.7.1"
    server.stop(signal.SIGKILL)
    assert one.verdict("staff@example.test") == "550 5.7.1"
    assert one.verdict("staff+public@example.test") == "451 4.4.3"


def test_on_failure_accept(slapd, ask):
    server = slapd()
    one = ask(server.uri, on_failure="accept")
    one.wait_log("directory", state="up")
    server.stop(signal.SIGKILL)
    assert one.verdict("anybody@example.test") == "250 2.1.5"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_next_server_takes_over(slapd, ask, how):
    first, second = slapd(), slapd()
    one = ask(first.tls_uri, second.tls_uri, cache_positive="0s", cache_negative="0s", cache_stale="0s")
    one.wait_log("directory", state="up", host=first.tls_uri)
    assert one.verdict("anna@example.test") == "250 2.1.5"
    first.freeze() if how == signal.SIGSTOP else first.stop(how)
    assert one.verdict("ben@example.test") == "250 2.1.5"
    assert one.verdict("nobody@example.test") == "550 5.1.1"
    one.wait_log("directory", state="down", host=first.tls_uri)
    one.wait_log("directory", state="up", host=second.tls_uri)
    assert is_ready(one)[0]
    since = len(one.log)
    if how == signal.SIGSTOP:
        first.process.send_signal(signal.SIGCONT)
    else:
        restart(first)
    one.wait_log("directory", state="up", host=first.tls_uri, since=since)
    # And back to the first: what it has learnt is known, though the second never heard of it.
    first.add("dora", ["dora@example.test"])
    poll(lambda: one.verdict("dora@example.test") == "250 2.1.5", "the first is asked again")
    second.stop(signal.SIGKILL)
    assert one.verdict("anna@example.test") == "250 2.1.5"


def servers_of(one):
    """State of each server, in status and in the metrics."""
    listed = one.control("directory")["directories"][0]["servers"]
    metrics = one.metrics()
    return [(server["state"], metrics.get(f'postern_directory_up{{server="{server["uri"]}"}}')) for server in listed]


def test_who_stands_by_is_known_before_it_is_needed(slapd, ask):
    """Until it was tried nothing is said of it; then what it is."""
    first, second, third = slapd(), slapd(), slapd()
    third.stop()
    one = ask(first.uri, second.uri, third.uri)
    one.wait_log("directory", state="up", host=first.uri)
    states = servers_of(one)
    assert states[0] == ("up", 1)
    assert set(states[1:]) <= {("untried", None), ("up", 1), ("down", 0)}
    one.wait_log("directory", state="up", host=second.uri)
    one.wait_log("directory", state="down", host=third.uri)
    assert servers_of(one) == [("up", 1), ("up", 1), ("down", 0)]
    assert is_ready(one)[0]


def asked(one, address):
    """A client that has asked for ADDRESS, and reads no reply yet."""
    client = one.client()
    client.ok("MAIL FROM:<sender@example.org>")
    client.send(f"RCPT TO:<{address}>\r\n")
    return client


def test_a_hung_server_delays_its_own_lookups_only(slapd, ask):
    server = slapd()
    one = ask(server.tls_uri, timeout="5s")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.freeze()
    waiting = asked(one, "ben@example.test")
    other = one.client()
    other.envelope("sender@example.org", "anna@example.test")
    assert other.data(CONTENT).code == 250
    assert waiting.reply().status == "451 4.4.3"
    # The order in the log is the order of the verdicts.
    late = one.wait_log("rcpt", to="<ben@example.test>")
    events = list(one.log)
    assert events.index(one.wait_log("message")) < events.index(late)
    one.wait_log("directory", state="down", host=server.tls_uri)
    assert one.verdict("carl@example.test") == "451 4.4.3"
    assert one.verdict("anna@example.test") == "250 2.1.5"


def test_nobody_waits_for_a_server_that_is_known_to_hang(slapd, ask):
    """The first to ask waits, and who asks meanwhile; then all are answered at once, whatever is tried behind."""
    server = slapd()
    one = ask(server.uri, timeout="4s", cache_positive="0s")
    assert one.verdict("anna@example.test") == "250 2.1.5"
    server.freeze()
    began = time.monotonic()
    assert one.verdict("ben@example.test") == "451 4.4.3"
    first = time.monotonic() - began
    one.wait_log("directory", state="down", host=server.uri)
    began = time.monotonic()
    for _ in range(3):
        assert one.verdict("ben@example.test") == "451 4.4.3"
        assert one.verdict("nobody@example.test") == "451 4.4.3"
        assert one.verdict("anna@example.test") == "250 2.1.5"  # stale
    assert time.monotonic() - began < first / 2
    assert "timeout" in lookup(one)["error"]
    since = len(one.log)
    server.process.send_signal(signal.SIGCONT)
    one.wait_log("directory", state="up", since=since)
    assert one.verdict("ben@example.test") == "250 2.1.5"


def test_a_name_that_hangs_delays_nobody_beyond_his_own_timeout(exchange, postern, hanging_names):
    """The thread that asks for it cannot be woken; each question is over in its time all the same, in whatever order
    they came."""
    def directory_of(name, timeout):
        return {"type": "ldap", "uri": f"ldap://{name}.invalid", "bind": "anonymous", "base": "dc=test",
                "timeout": timeout}
    one = postern(exchange(), settings={
        "domain slow.test": {"downstream": "exchange", "directory": "slow"},
        "domain fast.test": {"downstream": "exchange", "directory": "fast"},
        "directory slow": directory_of("hangs", "1h"), "directory fast": directory_of("hangs-too", "500ms")}, run=False)
    one.start(LD_PRELOAD=hanging_names)
    waiting = asked(one, "anna@slow.test")
    assert one.rcpt("ben@fast.test").status == "451 4.4.3"
    # The net's own timer, as the first has taken the thread with it.
    assert one.rcpt("carl@fast.test").status == "451 4.4.3"
    waiting.close()
    one.kill()


def test_a_learnt_address_is_known_once_the_negative_answer_is_old(slapd, ask):
    server = slapd()
    one = ask(server.uri, cache_negative="0s")
    assert one.verdict("dora@example.test") == "550 5.1.1"
    server.add("dora", ["dora@example.test"])
    assert one.verdict("dora@example.test") == "250 2.1.5"
