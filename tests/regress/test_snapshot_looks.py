"""The directory kept as a snapshot, of real slapds that change, go away and come back."""

import json
import os
import signal
import socket

import pytest

from harness import servers
from harness.journal import DEADLINE_S, poll
from harness.servers import Slapd, recipient_dn, recipient_entry

PEOPLE = {"anna": ["anna@example.test", "a@example.test"], "ben": ["ben@example.test"],
          "carl": ["carl@example.test"], "dora": ["dora@example.test"], "emil": ["emil@example.test"]}


@pytest.fixture
def slapd(start_slapd):
    """Call it for a running slapd."""
    return lambda recipients=PEOPLE, syncprov=True: start_slapd(recipients, syncprov)


def restart(one):
    servers.Server.__init__(one, one.directory, one.process.args, port=one.port)


@pytest.fixture
def keep(exchange, postern, certificates, directory):
    """Call it with servers and changes to [directory] for a Postern that keeps a snapshot.  Of it `verdict` is
    a RCPT's reply and where it came from."""
    password = servers.write(directory, "password", Slapd.PASSWORD)
    os.chmod(password, 0o600)

    def start(*slapds, wait=True, settings=None, **changes):
        section = {
            "type": "ad", "file": "", "uri": ", ".join(one.uri for one in slapds),
            "ca_file": certificates.ca.certificate, "bind_dn": Slapd.ROOT_DN,
            "bind_password_file": password, "base": Slapd.BASE, "timeout": "2s", "mode": "snapshot",
            "snapshot_refresh": "100ms",
        }
        section.update(changes)
        one = postern(exchange(), settings={"directory": section, **(settings or {})})

        def verdict(address, sender="sender@example.org", size=None):
            since = len(one.log)
            reply = one.rcpt(address, sender, size)
            event = one.wait_log("rcpt", since=since, to=f"<{address}>")
            return reply.status, event["source"]
        one.verdict = verdict
        if wait:
            one.wait_log("directory", look="full")
        return one
    return start


def again(one):
    """ONE ends and starts anew."""
    since = len(one.log)
    one.stop()
    one.start()
    return since


KNOWN = ("250 2.1.5", "snapshot")
LIVE = ("250 2.1.5", "ldap")


def test_a_snapshot_answers_at_once(slapd, keep):
    server = slapd()
    one = keep(server, base="dc=example, dc=test")
    look = one.events("directory", look="full")[0]
    assert (look["entries"], look["learned"], look["lost"]) == ("6", "6", "0")
    server.stop(signal.SIGKILL)
    assert one.verdict("anna@example.test") == KNOWN
    assert one.verdict("A@Example.Test") == KNOWN
    assert one.verdict("emil@example.test") == KNOWN


@pytest.mark.parametrize("kind", ["ad", "ldap"])
def test_changes_are_learned(slapd, keep, kind):
    server = slapd()
    one = keep(server, type=kind, attributes="proxyAddresses", snapshot_confirm="no", base="DC=example, DC=test")
    assert one.verdict("fritz@example.test") == ("550 5.1.1", "snapshot")
    server.add("fritz", ["fritz@example.test", "f@example.test"])
    one.wait_log("directory", look="changes", learned=2, entries=8)
    assert one.verdict("f@example.test") == KNOWN
    server.replace("fritz", "proxyAddresses", "SMTP:fritz@example.test", "smtp:fritze@example.test")
    one.wait_log("directory", look="changes", learned=1, lost=1)
    assert one.verdict("f@example.test") == ("550 5.1.1", "snapshot")
    assert one.verdict("fritze@example.test") == KNOWN
    server.replace("ben", "proxyAddresses")  # a recipient no longer
    one.wait_log("directory", look="changes", learned=0, lost=1)
    assert one.verdict("ben@example.test") == ("550 5.1.1", "snapshot")
    server.delete("anna", "carl")
    one.wait_log("directory", look="changes", entries=4)
    assert one.verdict("anna@example.test") == ("550 5.1.1", "snapshot")
    assert one.verdict("carl@example.test") == ("550 5.1.1", "snapshot")
    assert len(one.events("directory", look="full")) == 1


def test_changes_while_it_was_away(slapd, keep):
    server = slapd()
    one = keep(server)
    one.stop()
    server.add("fritz", ["fritz@example.test"])
    server.delete("ben")
    since = len(one.log)
    one.start()
    look = one.wait_log("directory", since=since, look="changes")
    assert (look["learned"], look["lost"], look["entries"]) == ("1", "1", "6")
    assert one.verdict("fritz@example.test") == KNOWN


def test_a_server_that_tells_no_changes_is_looked_at_whole(slapd, keep):
    server = slapd(syncprov=False)
    one = keep(server, snapshot_confirm="no")
    server.add("fritz", ["fritz@example.test"])
    one.wait_log("directory", look="full", learned=1, lost=0)
    assert one.verdict("fritz@example.test") == KNOWN
    server.delete("ben")
    one.wait_log("directory", look="full", lost=1)
    assert one.verdict("ben@example.test") == ("550 5.1.1", "snapshot")


def test_more_than_a_page(slapd, keep):
    ldif = "".join(recipient_entry(f"user{i}", [f"user{i}@example.test"]) for i in range(2345))
    server = slapd(ldif)
    one = keep(server, bind="anonymous", bind_dn="", bind_password_file="")
    assert one.events("directory", look="full")[0]["entries"] == "2345"
    server.stop(signal.SIGKILL)
    assert one.verdict("user0@example.test") == KNOWN
    assert one.verdict("user2344@example.test") == KNOWN


def test_a_start_without_any_server(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_fresh="1h")
    server.stop(signal.SIGKILL)
    again(one)
    assert one.verdict("anna@example.test") == KNOWN
    assert one.verdict("nobody@example.test") == ("550 5.1.1", "snapshot")  # the look is fresh
    status, _ = one.get("/readyz")
    assert status == 200


def test_a_snapshot_answers_though_no_search_does(slapd, keep):
    """The base has gone: no look is taken, nobody is lost, and it is ready.  What it lacks is no "no"."""
    people = f"ou=people,{Slapd.BASE}"
    server = slapd(f"dn: {people}\nobjectClass: organizationalUnit\nou: people\n\n"
                   + recipient_entry("anna", ["anna@example.test"]).replace("cn=anna,", "cn=anna,ou=people,"))
    one = keep(server, base=people, snapshot_fresh="0s")
    server.change(f"dn: {people}\nchangetype: modrdn\nnewrdn: ou=elsewhere\ndeleteoldrdn: 1\n")
    one.wait_log("directory", state="degraded")
    assert one.verdict("anna@example.test") == KNOWN
    assert one.verdict("nobody@example.test")[0] == "451 4.4.3"
    one.wait_log("directory", state="down")
    status, text = one.get("/readyz")
    assert status == 200 and "No such object" in text
    assert one.verdict("anna@example.test") == KNOWN


def test_an_old_look_does_not_say_no(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_fresh="0s")
    server.stop(signal.SIGKILL)
    again(one)
    assert one.verdict("anna@example.test") == KNOWN
    assert one.verdict("nobody@example.test")[0] == "451 4.4.3"


@pytest.mark.parametrize("attributes, alias", [("", "550 5.1.1"), ("mail, proxyAddresses", "250 2.1.5")])
def test_a_filter_of_ones_own_finds_what_the_snapshot_lists(slapd, keep, attributes, alias):
    """Whoever is known while a server lives is known without it."""
    server = slapd()
    one = keep(server, type="ldap", filter="(|(mail=%u)(proxyAddresses=smtp:%u))", attributes=attributes)
    assert one.verdict("a@example.test")[0] == alias
    server.stop(signal.SIGKILL)
    one.wait_log("directory", state="down")
    assert one.verdict("a@example.test")[0] == alias
    assert one.verdict("anna@example.test") == KNOWN


def test_no_is_confirmed_live(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h")
    assert one.verdict("nobody@example.test") == ("550 5.1.1", "ldap")
    assert one.verdict("nobody@example.test") == ("550 5.1.1", "cache")
    server.add("fritz", ["fritz@example.test"])
    assert one.verdict("fritz@example.test") == LIVE
    assert one.verdict("fritz@example.test") == ("250 2.1.5", "cache")


def test_no_is_not_confirmed(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h", snapshot_confirm="no")
    server.add("fritz", ["fritz@example.test"])
    assert one.verdict("fritz@example.test") == ("550 5.1.1", "snapshot")


def test_an_old_no_is_confirmed_all_the_same(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h", snapshot_confirm="no", snapshot_fresh="0s")
    server.add("fritz", ["fritz@example.test"])
    assert one.verdict("fritz@example.test") == LIVE
    server.stop(signal.SIGKILL)
    assert one.verdict("gerd@example.test")[0] == "451 4.4.3"


def test_the_look_is_newer_than_the_cache(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h")
    server.add("fritz", ["fritz@example.test"])
    assert one.verdict("fritz@example.test") == LIVE
    assert one.verdict("gerd@example.test") == ("550 5.1.1", "ldap")
    server.delete("fritz")
    server.add("gerd", ["gerd@example.test"])
    assert one.control("directory", "sync")["ok"]
    assert one.verdict("fritz@example.test") == ("550 5.1.1", "ldap")
    assert one.verdict("gerd@example.test") == KNOWN


def test_a_live_answer_is_newer_than_the_look(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h")
    assert one.verdict("ben@example.test") == KNOWN
    server.delete("ben")
    assert one.verdict("ben@example.test") == KNOWN
    assert one.control("lookup", "ben@example.test")["ok"]  # it asks live
    assert one.verdict("ben@example.test") == ("550 5.1.1", "cache")


def test_a_part_that_is_elsewhere(slapd, keep):
    """Active Directory's references are to other partitions; of others not all would be seen."""
    ldif = "".join(recipient_entry(*item) for item in PEOPLE.items())
    ldif += (f"dn: ou=far,{Slapd.BASE}\nobjectClass: referral\nobjectClass: extensibleObject\nou: far\n"
             f"ref: ldap://127.0.0.1:1/ou=far,{Slapd.BASE}\n\n")
    server = slapd(ldif)
    one = keep(server)
    assert one.verdict("ben@example.test") == KNOWN
    other = keep(server, wait=False, type="ldap")
    assert "another server" in other.wait_log("directory", state="degraded")["error"]
    assert other.verdict("ben@example.test") == LIVE
    assert other.verdict("nobody@example.test")[0] == "451 4.4.3"
    assert "another server" in other.control("lookup", "nobody@example.test")["live"]["error"]


def test_a_look_that_loses_too_much_is_not_taken(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_refresh="1h", snapshot_confirm="no")
    server.delete("ben", "carl")
    answer = one.control("directory", "sync")
    assert not answer["ok"]
    assert "2 of 6 addresses" in answer["error"]
    assert "2 of 6 addresses" in one.wait_log("directory", state="degraded")["error"]
    state = one.control("directory")["directories"][0]
    assert (state["entries"], state["looking"]) == (6, False)
    assert "2 of 6 addresses" in state["snapshot_error"]
    assert one.verdict("ben@example.test") == KNOWN
    answer = one.control("directory", "sync", "--force")
    assert answer["ok"]
    assert one.verdict("ben@example.test") == ("550 5.1.1", "snapshot")
    state = one.control("directory")["directories"][0]
    assert (state["entries"], state["snapshot_error"]) == (4, "")


def test_a_directory_that_is_empty_all_at_once(slapd, keep):
    server = slapd(syncprov=False)
    one = keep(server, snapshot_confirm="no")
    server.delete(*PEOPLE)
    assert "6 of 6" in one.wait_log("directory", state="degraded")["error"]
    assert one.verdict("anna@example.test") == KNOWN
    server.add("anna", PEOPLE["anna"])
    for name in ("ben", "carl", "dora"):
        server.add(name, PEOPLE[name])
    one.wait_log("directory", look="full", entries=5, lost=1)


def test_who_has_left_lately_is_no_harvest(slapd, keep):
    server = slapd()
    one = keep(server, settings={"harvest": {"threshold": 1, "message_threshold": 0, "tarpit": "0s",
                                             "action": "reject", "allow": ""}})
    server.delete("ben")
    one.wait_log("directory", look="changes", lost=1)
    for _ in range(3):
        assert one.verdict("ben@example.test")[0] == "550 5.1.1"
    assert one.events("harvest") == []
    one.verdict("nobody@example.test")
    one.wait_log("harvest")


def test_who_left_longer_ago_than_tombstones_is_a_guess(slapd, keep):
    server = slapd()
    one = keep(server, tombstones="0s", snapshot_full="1s", settings={"harvest": {
        "threshold": 1, "message_threshold": 0, "tarpit": "0s", "action": "reject", "allow": ""}})
    server.delete("ben")
    one.wait_log("directory", lost=1)
    for _ in range(2):  # the second one is in another second
        one.wait_log("directory", look="full", since=len(one.log))
    assert one.verdict("ben@example.test")[0] == "550 5.1.1"
    one.wait_log("harvest")


def test_restrictions_without_a_server(slapd, keep):
    ldif = "".join(recipient_entry(*item) for item in PEOPLE.items())
    ldif += recipient_entry("inner", ["inner@example.test"], member=[recipient_dn("ben"), recipient_dn("outer")])
    ldif += recipient_entry("outer", ["outer@example.test"], member=[recipient_dn("inner"),
                                                                     recipient_dn("carl")])
    ldif += recipient_entry("staff", ["staff@example.test"], msExchRequireAuthToSendTo=["TRUE"])
    ldif += recipient_entry("board", ["board@example.test"], authOrig=[recipient_dn("anna")],
                            dLMemSubmitPerms=[recipient_dn("outer")])
    ldif += recipient_entry("press", ["press@example.test"], unauthOrig=[recipient_dn("ben")])
    ldif += recipient_entry("small", ["small@example.test"], delivContLength=["10"])
    server = slapd(ldif)
    one = keep(server)
    server.stop(signal.SIGKILL)
    denied = ("550 5.7.1", "snapshot")
    for address, sender, expected in [
            ("staff@example.test", "anna@example.test", denied),
            ("board@example.test", "anna@example.test", KNOWN),
            ("board@example.test", "a@example.test", KNOWN),
            ("board@example.test", "ben@example.test", KNOWN),
            ("board@example.test", "carl@example.test", KNOWN),
            ("board@example.test", "dora@example.test", denied),
            ("board@example.test", "", denied),
            ("press@example.test", "anna@example.test", KNOWN),
            ("press@example.test", "ben@example.test", denied),
            ("press@example.test", "", KNOWN)]:
        assert one.verdict(address, sender) == expected, (address, sender)
    assert one.verdict("small@example.test", size=10240)[0] == "250 2.1.5"
    assert one.verdict("small@example.test", size=10241)[0] == "552 5.2.3"


def test_rules_follow_the_members(slapd, keep):
    ldif = "".join(recipient_entry(*item) for item in PEOPLE.items())
    ldif += recipient_entry("list", ["list@example.test"], member=[recipient_dn("ben")])
    ldif += recipient_entry("board", ["board@example.test"], dLMemSubmitPerms=[recipient_dn("list")])
    server = slapd(ldif)
    one = keep(server)
    assert one.verdict("board@example.test", "carl@example.test") == ("550 5.7.1", "snapshot")
    since = len(one.log)
    server.replace("list", "member", recipient_dn("carl"))
    server.add("fritz", ["fritz@example.test"])
    one.wait_log("directory", since=since, look="changes", learned=1)
    assert one.verdict("board@example.test", "carl@example.test") == KNOWN
    assert one.verdict("board@example.test", "ben@example.test") == ("550 5.7.1", "snapshot")


def test_duplicates_are_told_with_their_names(slapd, keep):
    server = slapd()
    one = keep(server)
    assert one.control("directory", "duplicates")["duplicates"] == []
    server.add("other", ["other@example.test", "Anna@Example.test"])
    one.wait_log("directory", look="changes", learned=1)
    found = one.control("directory", "duplicates")["duplicates"]
    assert [(d["address"], sorted(d["objects"])) for d in found] == [
        ("anna@example.test", sorted([recipient_dn("anna"), recipient_dn("other")]))]
    assert one.verdict("anna@example.test") == KNOWN


def test_another_server_with_another_history(slapd, keep):
    first, second = slapd(), slapd({"anna": PEOPLE["anna"], "fritz": ["fritz@example.test"]})
    one = keep(first, second, snapshot_max_loss=100)
    first.stop(signal.SIGKILL)
    one.wait_log("directory", host=second.uri, look="full")
    assert one.verdict("fritz@example.test") == KNOWN
    restart(first)  # it is not gone back to, which would take another full look
    second.add("gerd", ["gerd@example.test"])
    one.wait_log("directory", host=second.uri, look="changes", learned=1)
    assert len(one.events("directory", look="full")) == 2


@pytest.mark.parametrize("damage", ["truncated", "garbage", "zeros in the middle", "no key"])
def test_a_damaged_file_is_said_and_made_anew(slapd, keep, damage):
    ldif = "".join(recipient_entry(f"user{i}", [f"user{i}@example.test"]) for i in range(2000))
    one = keep(slapd(ldif))
    path = os.path.join(one.directory, "state", "recipients.mdb")
    assert os.stat(path).st_mode & 0o777 == 0o600
    one.stop()
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
        elif damage == "garbage":
            file.write(os.urandom(size))
        elif damage == "zeros in the middle":
            file.seek(8192)
            file.write(bytes(size - 8192))
    if damage == "no key":
        os.remove(os.path.join(one.directory, "state", "recipients.key"))
    since = len(one.log)
    one.start()
    assert "damaged" in one.wait_log("directory", since=since, state="degraded", file=path)["error"]
    one.wait_log("directory", since=since, look="full", entries=2000)
    assert one.verdict("user7@example.test") == KNOWN


def test_nobody_stands_in_the_file(slapd, keep):
    one = keep(slapd())
    one.stop()
    with open(os.path.join(one.directory, "state", "recipients.mdb"), "rb") as file:
        octets = file.read()
    assert b"example" not in octets
    assert b"anna" not in octets


def test_other_settings_are_looked_at_anew(slapd, keep):
    server = slapd()
    one = keep(server, snapshot_confirm="no")
    since = len(one.log)
    one.write_config({"directory": {"snapshot_filter": "(cn=ben)"}})
    one.reload()
    one.wait_log("directory", since=since, look="full", entries=1)
    assert one.verdict("ben@example.test") == KNOWN
    assert one.verdict("anna@example.test") == ("550 5.1.1", "snapshot")
    since = len(one.log)
    one.write_config({"directory": {"mode": "lookup"}})
    one.send_signal(signal.SIGHUP)
    one.log.wait(lambda e: e["event"] == "config" and "error" not in e, "a new configuration", since=since)
    assert one.verdict("anna@example.test") == LIVE
    since = len(one.log)
    one.write_config({"directory": {"mode": "snapshot"}})
    one.send_signal(signal.SIGHUP)
    one.log.wait(lambda e: e["event"] == "config" and "error" not in e, "a new configuration", since=since)
    assert one.verdict("ben@example.test") == KNOWN


@pytest.mark.parametrize("changes, source, look", [
    ({"timeout": "3s"}, "snapshot", "changes"), ({"snapshot_filter": "(cn=*)"}, "ldap", "full")])
def test_a_reload_waits_for_no_disk(slapd, keep, slow_disk, changes, source, look):
    """The former settings' look is being written.  What they saw is used on, if the new ones would see the same; who
    is not in it yet is asked about."""
    disk = slow_disk("/recipients.mdb")
    server = slapd()
    one = keep(server)
    one.stop()
    one.start(**disk.environment)
    disk.hang()
    server.add("zoe", ["zoe@example.test"])
    disk.wait_reached()
    since = len(one.log)
    one.write_config({"directory": changes})
    one.reload()
    assert one.get("/healthz")[0] == 200
    assert one.verdict("anna@example.test") == ("250 2.1.5", source)
    assert one.verdict("zoe@example.test") == LIVE
    disk.go_on()
    one.wait_log("directory", since=since, look=look, entries=7)
    assert one.verdict("ben@example.test") == KNOWN


def test_orders_that_a_reload_meets_are_answered(slapd, keep):
    """The one that is obeyed, and those that wait."""
    server = slapd()
    one = keep(server, timeout="20s")
    server.freeze()
    poll(lambda: one.control("directory")["directories"][0]["looking"], "a look")
    orders = []
    for words in ["sync"], ["duplicates"], ["sync", "--force"]:
        orders.append(socket.socket(socket.AF_UNIX))
        orders[-1].connect(one.socket_path)
        orders[-1].sendall(json.dumps({"command": "directory", "args": words}).encode() + b"\n")
    for _ in range(2):
        one.control("status")
    one.write_config({"directory": {"snapshot_full": "2h"}})
    one.reload()
    for order in orders:
        with order, order.makefile("rb") as answers:
            order.settimeout(DEADLINE_S)
            answer = json.loads(answers.readline())
            assert not answer["ok"] and "settings were changed" in answer["error"]


def test_two_directories_in_one_file(slapd, keep):
    first, second = slapd(), slapd({"greta": ["greta@example.test"], "anna": ["anna@example.test"]})
    one = keep(first, snapshot_fresh="1h")
    section = one.settings["directory"]
    one.write_config({"directory": None, "directory one": section, "directory two": {**section, "uri": second.uri},
                      "domain example.test": {"directory": "one, two"}})
    one.reload()
    one.wait_log("directory", directory="one", look="full", entries=6)
    one.wait_log("directory", directory="two", look="full", entries=2)
    looks = one.control("directory", "sync")["looks"]
    assert sorted((look["name"], look["entries"]) for look in looks) == [("one", 6), ("two", 2)]
    first.stop(signal.SIGKILL)
    second.stop(signal.SIGKILL)
    again(one)
    assert one.verdict("ben@example.test") == KNOWN
    assert one.verdict("greta@example.test") == KNOWN
    assert one.verdict("nobody@example.test") == ("550 5.1.1", "snapshot")


def test_it_counts_what_it_keeps(slapd, keep):
    one = keep(slapd())
    metrics = one.metrics()
    assert metrics["postern_snapshot_entries"] == 6
    assert 0 <= metrics["postern_snapshot_age_seconds"] < 60


def test_a_hung_server_delays_no_end(slapd, keep):
    server = slapd()
    one = keep(server)
    server.freeze()
    assert one.verdict("anna@example.test") == KNOWN
    one.stop()
