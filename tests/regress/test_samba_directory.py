"""A real Active Directory (Samba's): looks by pages, changes by USN, restrictions, what it asks of a bind."""

import os
import shutil
import signal
import tempfile

import pytest

from harness import Certificates, samba
from harness.journal import poll
from harness.samba import BASE, DomainController, user_dn, user_ldif
from harness.servers import write

CROWD = 1100  # more than a page

ENTRIES = "".join([
    user_ldif("anna", "anna@example.test", "a@example.test", targetAddress=["SMTP:anna@elsewhere.test"]),
    user_ldif("ben", "ben@example.test"),
    user_ldif("carl", "carl@example.test"),
    user_ldif("dora", "dora@example.test", kind="contact"),
    user_ldif("inner", member=[user_dn("ben")], kind="group"),
    user_ldif("outer", member=[user_dn("inner")], kind="group"),
    user_ldif("staff", "staff@example.test", kind="group", msExchRequireAuthToSendTo=["TRUE"]),
    user_ldif("board", "board@example.test", kind="group", authOrig=[user_dn("anna")],
              dLMemSubmitPerms=[user_dn("outer")]),
    user_ldif("press", "press@example.test", kind="group", unauthOrig=[user_dn("ben")]),
    user_ldif("small", "small@example.test", delivContLength=["10"]),
    user_ldif("old", "old@example.test", legacyExchangeDN=["/o=Example/cn=Recipients/cn=old"]),
    "".join(user_ldif(f"crowd{i}", f"crowd{i}@example.test", kind="contact") for i in range(CROWD)),
])
ADDRESSES = CROWD + 10
KNOWN = ("250 2.1.5", "snapshot")
UNKNOWN = ("550 5.1.1", "ldap")


@pytest.fixture(scope="module")
def controller():
    directory = tempfile.mkdtemp(prefix="postern-dc-", dir="/tmp")
    os.mkdir(os.path.join(directory, "tls"))
    one = DomainController(os.path.join(directory, "dc"), Certificates(os.path.join(directory, "tls")), ENTRIES)
    yield one
    one.stop()
    shutil.rmtree(directory)


@pytest.fixture
def dc(controller):
    """It runs."""
    if controller.process.poll() is not None:
        controller.restart()
    return controller


@pytest.fixture
def twin(dc, directory):
    """A second controller of the same domain."""
    one = dc.twin(os.path.join(directory, "twin"))
    yield one
    one.stop()


@pytest.fixture
def ask(exchange, postern, dc, directory):
    """Call it with changes to [directory] for a Postern; `verdict` of it is a RCPT's reply and where it came from."""
    password = write(directory, "password", samba.PASSWORD)
    os.chmod(password, 0o600)

    def start(**changes):
        section = {
            "type": "ad", "file": "", "uri": dc.tls_uri, "ca_file": dc.authority, "bind_dn": samba.ADMINISTRATOR,
            "bind_password_file": password, "base": BASE, "timeout": "5s", "snapshot_refresh": "100ms",
        }
        section.update(changes)
        one = postern(exchange(), settings={"directory": section})

        def verdict(address, sender="sender@example.org", size=None):
            since = len(one.log)
            reply = one.rcpt(address, sender, size)
            event = one.wait_log("rcpt", since=since)
            return reply.status, event["source"]
        one.verdict = verdict
        if section.get("mode") == "snapshot":
            one.wait_log("directory", look="full")
        return one
    return start


def check_restrictions(one, source):
    known, denied = ("250 2.1.5", source), ("550 5.7.1", source)
    for address, sender, expected in [
            ("staff@example.test", "anna@example.test", denied),
            ("board@example.test", "a@example.test", known),
            ("board@example.test", "anna@elsewhere.test", known),
            ("board@example.test", "ben@example.test", known),
            ("board@example.test", "carl@example.test", denied),
            ("board@example.test", "", denied),
            ("press@example.test", "anna@example.test", known),
            ("press@example.test", "ben@example.test", denied)]:
        assert one.verdict(address, sender) == expected, (address, sender)
    assert one.verdict("small@example.test", size=10240)[0] == "250 2.1.5"
    assert one.verdict("small@example.test", size=10241)[0] == "552 5.2.3"


# Live

def test_recipients_are_asked_live(ask):
    one = ask()
    assert one.verdict("anna@example.test") == ("250 2.1.5", "ldap")
    assert one.verdict("A@Example.Test") == ("250 2.1.5", "ldap")
    assert one.verdict("dora@example.test") == ("250 2.1.5", "ldap")
    assert one.verdict("nobody@example.test") == UNKNOWN
    assert one.verdict("*@example.test") == UNKNOWN
    assert one.verdict("imceaex-_o=Example_cn=Recipients_cn=old@example.test") == ("250 2.1.5", "ldap")


def test_restrictions_live(ask):
    check_restrictions(ask(), "ldap")


def test_the_catalogue(ask, dc):
    one = ask(uri=dc.catalogue_uri, base="")
    assert one.verdict("anna@example.test") == ("250 2.1.5", "ldap")
    assert one.verdict("nobody@example.test") == UNKNOWN


def test_a_clear_bind_is_refused(ask, dc):
    one = ask(uri=dc.uri)
    assert "Strong(er) authentication required" in one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test")[0] == "451 4.4.3"


def test_starttls(ask, dc):
    one = ask(uri=dc.uri, starttls="yes")
    assert one.verdict("anna@example.test") == ("250 2.1.5", "ldap")


def test_a_wrong_password_is_no_no(ask, directory):
    wrong = write(directory, "wrong", "not it")
    os.chmod(wrong, 0o600)
    one = ask(bind_password_file=wrong)
    assert "data 52e" in one.wait_log("directory", state="down")["error"]
    assert one.verdict("anna@example.test")[0] == "451 4.4.3"


def test_a_ticket_instead_of_a_password(ask, dc, directory, monkeypatch):
    """GSSAPI by a keytab.  The controller is known by its address, as no name of it resolves here."""
    keytab = os.path.join(directory, "keytab")
    dc.tool("spn", "add", f"ldap/{dc.address}", "DC1$")
    dc.tool("domain", "exportkeytab", keytab, f"--principal=Administrator@{samba.REALM}")
    conf = write(directory, "krb5.conf", (
        f"[libdefaults]\ndefault_realm = {samba.REALM}\ndns_lookup_kdc = false\nrdns = false\n"
        f"dns_canonicalize_hostname = false\n[realms]\n{samba.REALM} = {{\n kdc = {dc.address}\n}}\n"))
    monkeypatch.setenv("KRB5_CONFIG", conf)
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", keytab)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{directory}/tickets")
    one = ask(uri=dc.uri, bind="gssapi", bind_dn="", bind_password_file="")
    assert one.verdict("anna@example.test") == ("250 2.1.5", "ldap")
    assert one.verdict("nobody@example.test") == UNKNOWN


# Snapshots

def test_a_snapshot_by_pages(ask, dc):
    one = ask(mode="snapshot")
    assert one.events("directory", look="full")[0]["entries"] == str(ADDRESSES)
    dc.stop(signal.SIGKILL)
    for address in ("anna@example.test", "a@example.test", "dora@example.test", "crowd0@example.test",
                    f"crowd{CROWD - 1}@example.test", "imceaex-_o=Example_cn=Recipients_cn=old@example.test"):
        assert one.verdict(address) == KNOWN
    check_restrictions(one, "snapshot")


def test_changes_by_usn(ask, dc):
    one = ask(mode="snapshot")
    dc.add("fritz", "fritz@example.test", "f@example.test")
    one.wait_log("directory", look="changes", learned=2, entries=ADDRESSES + 2)
    assert one.verdict("f@example.test") == KNOWN
    dc.replace("fritz", "proxyAddresses", "SMTP:fritz@example.test", "smtp:fritze@example.test")
    one.wait_log("directory", look="changes", learned=1, lost=1)
    assert one.verdict("fritze@example.test") == KNOWN
    assert one.verdict("f@example.test") == UNKNOWN
    dc.replace("fritz", "proxyAddresses")
    one.wait_log("directory", look="changes", learned=0, lost=2)
    dc.replace("fritz", "proxyAddresses", "SMTP:fritz@example.test")
    one.wait_log("directory", look="changes", learned=1, lost=0)
    dc.delete("fritz")
    one.wait_log("directory", look="changes", learned=0, lost=1, entries=ADDRESSES)
    assert one.verdict("fritz@example.test") == UNKNOWN
    assert len(one.events("directory", look="full")) == 1


def test_who_moves_away_is_gone(ask, dc):
    """The base is a part of the domain, changes are looked for in all of it."""
    dc.change(f"dn: OU=mail,{BASE}\nchangetype: add\nobjectClass: organizationalUnit\n\n")
    one = ask(mode="snapshot", base=f"OU=mail,{BASE}", snapshot_confirm="no")
    assert one.verdict("carl@example.test") == ("550 5.1.1", "snapshot")
    dc.change(f"dn: {user_dn('carl')}\nchangetype: modrdn\nnewrdn: CN=carl\ndeleteoldrdn: 1\n"
              f"newsuperior: OU=mail,{BASE}\n")
    one.wait_log("directory", look="changes", learned=1, entries=1)
    assert one.verdict("carl@example.test") == KNOWN
    dc.change(f"dn: CN=carl,OU=mail,{BASE}\nchangetype: modrdn\nnewrdn: CN=carl\ndeleteoldrdn: 1\n"
              f"newsuperior: CN=Users,{BASE}\n")
    one.wait_log("directory", look="changes", lost=1, entries=0)
    assert one.verdict("carl@example.test") == ("550 5.1.1", "snapshot")


def test_rules_follow_the_groups(ask, dc):
    one = ask(mode="snapshot")
    since = len(one.log)
    dc.change(f"dn: {user_dn('inner')}\nchangetype: modify\nadd: member\nmember: {user_dn('carl')}\n\n")
    dc.add("gerd", "gerd@example.test")
    one.wait_log("directory", since=since, look="changes", learned=1)
    assert one.verdict("board@example.test", "carl@example.test") == KNOWN
    since = len(one.log)
    dc.change(f"dn: {user_dn('inner')}\nchangetype: modify\ndelete: member\nmember: {user_dn('carl')}\n\n")
    dc.delete("gerd")
    one.wait_log("directory", since=since, look="changes", lost=1)
    assert one.verdict("board@example.test", "carl@example.test") == ("550 5.7.1", "snapshot")


def test_a_start_goes_on_where_it_was(ask, dc):
    one = ask(mode="snapshot")
    one.stop()
    dc.add("hugo", "hugo@example.test")
    since = len(one.log)
    one.start()
    one.wait_log("directory", since=since, look="changes", learned=1)
    dc.delete("hugo")
    one.wait_log("directory", since=since, look="changes", lost=1)
    assert len(one.events("directory", look="full")) == 1


def test_a_restored_controller_is_looked_at_whole(ask, dc):
    """It has another invocationId: its USNs are those of another life."""
    one = ask(mode="snapshot")
    dc.stop()
    dc.live_anew()
    assert one.verdict("anna@example.test") == KNOWN
    since = len(one.log)
    dc.restart()
    one.wait_log("directory", since=since, look="full", entries=ADDRESSES, learned=0, lost=0)


def test_duplicates(ask, dc):
    one = ask(mode="snapshot")
    dc.add("twin", "twin@example.test", "Ben@example.test")
    one.wait_log("directory", look="changes", learned=1)
    found = one.control("directory", "duplicates")["duplicates"]
    assert [(d["address"], sorted(d["objects"])) for d in found] == [
        ("ben@example.test", sorted([user_dn("ben"), user_dn("twin")]))]
    dc.delete("twin")
    one.wait_log("directory", look="changes", lost=1)
    assert one.control("directory", "duplicates")["duplicates"] == []


# Two controllers

def test_another_controller_answers(ask, dc, twin):
    dc.add("fritz", "fritz@example.test")  # it is not told to the other one
    one = ask(uri=f"{dc.tls_uri}, {twin.tls_uri}", cache_positive="0s", cache_negative="0s", cache_stale="0s")
    assert one.verdict("fritz@example.test") == ("250 2.1.5", "ldap")
    one.wait_log("directory", state="up", host=twin.tls_uri)
    dc.stop(signal.SIGKILL)
    assert one.verdict("anna@example.test") == ("250 2.1.5", "ldap")
    assert one.verdict("fritz@example.test") == UNKNOWN
    dc.restart()
    poll(lambda: one.verdict("fritz@example.test")[0] == "250 2.1.5", "the first is asked again")
    dc.delete("fritz")


def test_another_controller_is_looked_at_whole(ask, dc, twin):
    """Numbers of changes belong to one controller: the snapshot keeps to it while it can be had, wherever in the list it
    stands, and begins anew with another."""
    one = ask(uri=f"{dc.tls_uri}, {twin.tls_uri}", mode="snapshot")
    assert one.events("directory", look="full")[0]["host"] == dc.tls_uri
    dc.add("fritz", "fritz@example.test")
    one.wait_log("directory", host=dc.tls_uri, look="changes", learned=1)
    dc.stop(signal.SIGKILL)
    look = one.wait_log("directory", host=twin.tls_uri, look="full")
    assert (look["learned"], look["lost"], look["entries"]) == ("0", "1", str(ADDRESSES))
    assert one.verdict("anna@example.test") == KNOWN
    twin.add("gerd", "gerd@example.test")
    one.wait_log("directory", host=twin.tls_uri, look="changes", learned=1)
    dc.restart()  # who was left is not gone back to
    since = len(one.log)
    twin.add("hugo", "hugo@example.test")
    one.wait_log("directory", since=since, host=twin.tls_uri, look="changes", learned=1)
    one.stop()
    twin.delete("gerd")
    since = len(one.log)
    one.start()
    one.wait_log("directory", since=since, host=twin.tls_uri, look="changes", lost=1)
    assert [e["host"] for e in one.log if e["event"] == "directory" and e.get("look") == "full"] == [
        dc.tls_uri, twin.tls_uri]
    dc.delete("fritz")
