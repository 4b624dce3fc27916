"""Directory servers that answer what no good one does: nothing of it is ever a "no", or the end of Postern."""

import contextlib
import socket
import threading
import time

import pytest

from harness.journal import poll
from harness.ldap_server import (Cut, LdapServer, Raw, WithControls, ber, control, done, entry, integer,
                                 notice_of_disconnection, reference, text)

BASE = "dc=example,dc=test"
TAKEN, UNKNOWN, LATER, DENIED = "250 2.1.5", "550 5.1.1", "451 4.4.3", "550 5.7.1"


def dn(name):
    return f"cn={name},{BASE}"


def person(name, *values, **more):
    return entry(dn(name), {"proxyAddresses": list(values) or [f"SMTP:{name}@example.test"], **more})


@pytest.fixture
def server():
    """Call it with what to answer: a list, or a function of the search."""
    started = []

    def start(answer, **arguments):
        started.append(LdapServer(answer if callable(answer) else lambda search: answer, **arguments))
        return started[-1]
    yield start
    for one in started:
        one.stop()


@pytest.fixture
def ask(exchange, postern):
    """Call it with servers and changes to [directory] for a Postern; `verdict` of it is a RCPT's reply."""
    def start(*servers, **changes):
        one = postern(exchange(), settings={"directory": {
            "type": "ad", "file": "", "uri": ", ".join(server.uri for server in servers), "bind": "anonymous",
            "base": BASE, "timeout": "3s", "connections": 1, **changes}})

        def verdict(address="anna@example.test", sender="sender@example.org"):
            return one.rcpt(address, sender).status
        one.verdict = verdict
        return one
    return start


# What an answer may end with

CODES = [1, 2, 3, 4, 8, 9, 10, 11, 12, 18, 32, 50, 51, 52, 53, 80, 118, 4096]


@pytest.mark.parametrize("code", CODES)
def test_an_end_that_is_no_success_is_no_no(server, ask, code):
    """... and is told by its name, also where all else goes well."""
    one = ask(server(lambda search: [done(code, "words of mine")] if "anna@" in search.filter else []),
              timeout="1s" if code in (51, 52) else "3s")  # that long it waits for a server to come back
    assert one.verdict("nobody@example.test") == UNKNOWN
    assert one.verdict() == LATER
    live = one.control("lookup", "anna@example.test")["live"]
    # A server that is busy is left, and asked again until the time is over.
    assert live["result"] == "unavailable", live
    assert "words of mine" in live["error"] or ("timeout" in live["error"] and code in (51, 52)), live
    poll(lambda: one.verdict("other@example.test") == UNKNOWN, "it is asked again")


@pytest.mark.parametrize("code", [3, 4, 9, 11])
def test_what_came_before_a_limit_is_true(server, ask, code):
    one = ask(server([person("anna"), done(code)]))
    assert one.verdict() == TAKEN
    assert one.verdict("ben@example.test") == LATER


@pytest.mark.parametrize("code", [1, 32, 50, 53])
def test_no_search_succeeds(server, ask, code):
    """Binds do.  It is down, by the error's name, and it is not tried more often than one that refuses connections."""
    lame = server([], probed=[done(code, "words of mine")])
    one = ask(lame)
    assert "words of mine" in one.wait_log("directory", state="down")["error"]
    assert one.get("/readyz")[0] == 503
    assert one.verdict() == LATER
    lame.binds.wait_count(4)
    assert one.events("directory", state="up") == []
    assert len(one.events("directory", state="down")) == 1
    assert len(lame.binds) < 12
    lame.probed = []
    one.wait_log("directory", state="up")
    assert one.verdict() == UNKNOWN
    assert one.get("/readyz")[0] == 200


def test_every_search_is_cut_short(server, ask):
    """It is not ready until somebody was found all the same."""
    one = ask(server([person("anna"), done(4, "words of mine")], probed=[done(4, "words of mine")]))
    assert "words of mine" in one.wait_log("directory", state="degraded")["error"]
    assert one.get("/readyz")[0] == 503
    assert one.verdict("nobody@example.test") == LATER
    assert one.get("/readyz")[0] == 503
    assert one.verdict() == TAKEN
    poll(lambda: one.get("/readyz")[0] == 200, "ready")


@pytest.mark.parametrize("kind, expected", [("ad", UNKNOWN), ("ldap", LATER)])
def test_references(server, ask, kind, expected):
    """Active Directory's are to other partitions; of others a part was not looked at."""
    one = ask(server([reference(), reference("ldap://further.test/??sub")]), type=kind)
    assert one.verdict() == expected


# Other than asked

@pytest.mark.parametrize("answer", [
    [person("ben")],
    [person("anna", "sip:anna@example.test", "x500:anna@example.test", "smtp:anna@example.testing")],
    [person("anna", "smtp:ann\N{LATIN SMALL LETTER A WITH ACUTE}@example.test")],
    [entry(dn("anna"), {})],
    [entry("", {"proxyAddresses": []})],
    [entry(dn("anna"), {"mail": ["anna@example.test"]})],
    [person("anna", b"smtp:anna@example.test\0"), person("ben", "smtp:anna@example.test\r\n")],
])
def test_entries_that_nobody_asked_for(server, ask, answer):
    assert ask(server(answer)).verdict() == UNKNOWN


@pytest.mark.parametrize("rules", [
    {"msExchRequireAuthToSendTo": ["TRUE"]}, {"delivContLength": ["1"]}, {"authOrig": [dn("boss")]},
    {"unauthOrig": [dn("boss")]}, {"dLMemSubmitPerms": [dn("bosses")]}, {"dLMemRejectPerms": [dn("bosses")]},
])
def test_rules_of_one_who_looks_alike(server, ask, rules):
    """Its rules are not those of the one who was asked for, in whichever order they come."""
    def answer(search):
        alike = person("ann", "smtp:ann\N{LATIN SMALL LETTER A WITH ACUTE}@example.test", **rules)
        found = {"anna@": [person("anna"), alike], "ben@": [alike, person("ben")]}
        return next((entries for part, entries in found.items() if part in search.filter), [])
    one = ask(directory := server(answer))
    assert [one.verdict(name + "@example.test") for name in ("anna", "ben")] == [TAKEN, TAKEN]
    assert len(directory.searches) == 2, list(directory.searches)


HOSTILE = [b"\0", b"smtp:\0", b"smtp:" + b"a" * 1_000_000 + b"@example.test", b"\r\n\r\n", b"\xff\xfe", b"smtp:@",
           b"smtp:anna@" + b"x" * 100_000, b"proxyAddresses: smtp:forged@example.test\r\ncn: \x1b[31mforged", b"%s%n"]


def test_values_that_do_harm(server, ask):
    """The one that counts is found among them; and an administrator is shown no line that is none."""
    one = ask(server([person("anna", *HOSTILE, "SMTP:anna@example.test"),
                      person("b\0\r\nen", *HOSTILE)]))
    assert one.verdict() == TAKEN
    live = one.control("lookup", "anna@example.test")["live"]
    assert live["result"] == "found"
    assert "proxyAddresses: SMTP:anna@example.test" in live["attributes"]
    assert not any(line.startswith("cn: ") for line in live["attributes"])
    assert not any(ord(c) < 0x20 for line in live["attributes"] for c in line)
    assert one.verdict("b@example.test") == UNKNOWN


def test_more_entries_than_anybody_has(server, ask):
    one = ask(server([person(f"user{i}") for i in range(5000)]), timeout="20s")
    assert one.verdict() == UNKNOWN
    assert one.verdict("user4999@example.test") == TAKEN


@pytest.mark.parametrize("octets", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x30\x84\x7f\xff\xff\xff", b"\0" * 64, b"\x30\x03\x02\x01", b"\xff" * 300,
    b"\x30\x05\x02\x03\x7f\xff\xff", b"\x30\x80\x02\x01\x02"])
def test_garbage(server, ask, octets):
    """It is lost, asked once more, and then cannot be told; others are answered."""
    one = ask(server(lambda search: [Raw(octets), Cut()] if "anna@" in search.filter else []))
    assert one.verdict() == LATER
    poll(lambda: one.verdict("nobody@example.test") == UNKNOWN, "it is asked again")


def extended(number, name, code=52):
    """An extended response (RFC 4511 4.12) whose name is NAME."""
    return Raw(ber(0x30, integer(number), ber(0x78, integer(code, 10), text(""), text(""), text(name, 0x8a))))


def test_an_unasked_word_without_a_name(server, ask):
    """libldap alone would end the program.  To the client it is as a lost connection."""
    one = ask(server(lambda search: [extended(0, "")] if "anna@" in search.filter else []))
    assert one.verdict() == LATER
    poll(lambda: one.verdict("nobody@example.test") == UNKNOWN, "it is asked again")


@pytest.mark.parametrize("code", [0, 52])
def test_an_answer_to_starttls_without_a_name(server, ask, code):
    """... which anybody on the way can give."""
    lying = server([])
    lying.extended = lambda number: extended(number, "", code).octets
    one = ask(lying, starttls="yes")
    assert "StartTLS" in one.wait_log("directory", state="down")["error"]
    assert one.verdict() == LATER


def test_a_cut_in_the_middle_is_asked_again(server, ask):
    """... unseen."""
    cuts = iter([True])
    one = ask(server(lambda search: [person("anna"), Cut()] if next(cuts, False) else [person("anna")]))
    assert one.verdict() == TAKEN
    assert not one.events("directory", state="down")


def test_an_idle_connection_that_is_cut_costs_nothing(server, ask):
    """Active Directory says so first."""
    idle = server([person("anna")])
    one = ask(idle, cache_positive="0s", cache_stale="0s")
    for count in (1, 2, 3):
        assert one.verdict() == TAKEN
        connection = idle.connections[-1]
        connection.sendall(notice_of_disconnection().octets)
        with contextlib.suppress(OSError):  # who has read it may be gone
            connection.shutdown(socket.SHUT_RDWR)
        idle.binds.wait_count(count + 1)
    assert one.verdict() == TAKEN
    assert not one.events("directory", state="down")


def test_a_server_that_cuts_at_each_question(server, ask):
    """... is not asked as often as anybody may ask."""
    rude = server([Cut()])
    one = ask(rude)
    for _ in range(5):
        assert one.verdict() == LATER
    assert one.wait_log("directory", state="down")
    assert len(rude.connections) < 12


def test_the_first_is_returned_to_though_there_is_always_a_question(server, ask):
    first = server(lambda search: [person("dora")] if "dora@" in search.filter else [], probed=[done(53)])
    second = server([], delay=0.3)
    one = ask(first, second, cache_negative="0s")
    one.wait_log("directory", state="up", host=second.uri)
    is_over = threading.Event()
    pumps = [threading.Thread(target=pump, args=(one.client(), number, is_over)) for number in range(16)]
    for thread in pumps:
        thread.start()
    try:
        second.searches.wait_count(len(pumps))
        first.probed = []
        poll(lambda: one.verdict("dora@example.test") == TAKEN, "the first is asked again")
    finally:
        is_over.set()
        for thread in pumps:
            thread.join()


def pump(client, number, is_over):
    """Questions without an end."""
    client.ok("MAIL FROM:<sender@example.org>")
    count = 0
    while not is_over.is_set():
        count += 1
        client.command(f"RCPT TO:<x{number}-{count}@example.test>")


# Very many values

def parts_of(values, width, name="proxyAddresses"):
    """An answer to ranges, WIDTH values at a time."""
    def answer(search):
        wanted = [a for a in search.attributes if ";range=" in a]
        low = int(wanted[0].split("=")[1].split("-")[0]) if wanted else 0
        high = low + width
        last = "*" if high >= len(values) else str(high - 1)
        return [entry(dn("anna"), {f"{name};range={low}-{last}": values[low:high]})]
    return answer


def test_values_in_parts(server, ask):
    many = server(parts_of([f"smtp:a{i}@example.test" for i in range(4000)], 1500))
    one = ask(many)
    assert one.verdict("a10@example.test") == TAKEN
    assert one.verdict("a1500@example.test") == TAKEN
    assert one.verdict("a3999@example.test") == TAKEN
    assert one.verdict("a4000@example.test") == UNKNOWN
    assert [s.attributes for s in many.searches if s.scope == 0] == [
        [f"proxyAddresses;range={low}-*"] for low in (1500, 1500, 3000, 1500, 3000)]


def ranged(low, high, *values):
    return entry(dn("anna"), {f"proxyAddresses;range={low}-{high}": list(values)})


@pytest.mark.parametrize("answers", [
    [[ranged(0, 1, "smtp:b@example.test")], [ranged(0, 1, "smtp:b@example.test")]],  # it says the same again
    [[ranged(0, 1, "smtp:b@example.test")], []],                                      # it says nothing
    [[ranged(0, 1, "smtp:b@example.test")], [done(32)]],                              # it is gone
    [[ranged(0, 1, "smtp:b@example.test")], [ranged(2, 3, "smtp:c@example.test"), done(4)]],
    [[ranged(0, 1, "smtp:b@example.test"), person("ben")]],                           # two entries, one of them unread
    [[entry(dn("anna"), {"proxyAddresses;range=0-1": ["smtp:b@example.test"],
                           "mail;range=0-1": ["c@example.test"]})]],                   # two that go on
])
def test_parts_that_do_not_come(server, ask, answers):
    left = list(answers)
    one = ask(server(lambda search: left.pop(0) if left else []), attributes="proxyAddresses, mail")
    assert one.verdict() == LATER
    assert not left


# Who may write

def restricted(recipient, groups=()):
    """RECIPIENT's entry for anna@, senders by name, and groups that have them."""
    def answer(search):
        if search.base == BASE and "anna@" in search.filter:
            return [recipient]
        if search.base == BASE:
            return [person(name) for name in ("ben", "carl") if f"smtp:{name}@" in search.filter.lower()]
        if search.base == dn("anna"):
            return [entry(search.base, {})] if f"(authOrig={dn('ben')})" in search.filter else []
        return [entry(search.base, {})] if search.base in groups and f"(member={dn('ben')})" in search.filter else []
    return answer


def test_a_list_in_parts_is_asked_of_the_server(server, ask):
    """Active Directory gives 1500 names of a list; whether the sender is in it it knows by itself."""
    one = ask(server(restricted(person("anna", **{"authOrig;range=0-1499": [dn(f"x{i}") for i in range(1500)]}))))
    assert one.verdict(sender="ben@example.test") == TAKEN
    assert one.verdict(sender="carl@example.test") == DENIED
    assert one.verdict(sender="x@example.org") == DENIED


def test_groups_in_parts_are_left_to_exchange(server, ask):
    names = {"dLMemSubmitPerms;range=0-1499": [dn(f"g{i}") for i in range(1500)]}
    one = ask(server(restricted(person("anna", **names), groups=[dn("g3")])))
    assert one.verdict(sender="ben@example.test") == TAKEN
    assert one.verdict(sender="carl@example.test") == TAKEN


def test_a_group_that_cannot_be_asked_is_no_no(server, ask):
    def answer(search):
        if search.base == dn("secret"):
            return [done(50)]
        return restricted(person("anna", dLMemSubmitPerms=[dn("secret")]))(search)
    one = ask(server(answer))
    assert one.verdict(sender="ben@example.test") == LATER


def test_a_group_of_another_forest_is_left_to_exchange(server, ask):
    def answer(search):
        if search.base == dn("far"):
            return [done(10)]
        return restricted(person("anna", dLMemSubmitPerms=[dn("far")]))(search)
    one = ask(server(answer))
    assert one.verdict(sender="ben@example.test") == TAKEN


def test_a_sender_who_looks_alike_is_another(server, ask):
    """Active Directory finds b\N{LATIN SMALL LETTER E WITH ACUTE}n@ and ben@ equal."""
    def answer(search):
        if search.base == BASE and "anna@" not in search.filter:
            return [person("ben")]  # whoever is asked for
        return restricted(person("anna", authOrig=[dn("ben")]))(search)
    one = ask(server(answer))
    assert one.verdict(sender="ben@example.test") == TAKEN
    assert one.verdict(sender="bem@example.test") == DENIED


# Looks for a snapshot

CONTROLLER = {"highestCommittedUSN": ["5"], "dnsHostName": ["dc1.example.test"]}


def known(number, name, *values, **more):
    return person(name, *values, objectGUID=[bytes([number]) * 16], **more)


@pytest.fixture
def keep(ask):
    """Call it with servers for a Postern that keeps a snapshot; of it `verdict` and `error`."""
    def start(*servers, **changes):
        one = ask(*servers, mode="snapshot", snapshot_refresh="100ms", **changes)
        one.error = lambda: one.control("directory")["directories"][0]["snapshot_error"]
        return one
    return start


def look(*entries):
    """An answer: ENTRIES to a look, what fits to a question by address, and a person's own to a question by DN."""
    def answer(search):
        if "proxyAddresses=smtp:*" in search.filter:
            return list(entries)
        return [person(name) for name in ("ben", "carl") if search.base == dn(name)]
    return answer


def test_a_look_with_values_in_parts(server, keep):
    values = [f"smtp:a{i}@example.test" for i in range(4000)]
    parts = parts_of(values, 1500)

    def answer(search):
        if search.scope == 0:
            return parts(search)
        return look(known(1, "ben"), entry(dn("anna"), {"objectGUID": [b"2" * 16],
                                                        "proxyAddresses;range=0-1499": values[:1500]}))(search)
    many = server(answer, root=CONTROLLER)
    one = keep(many, snapshot_confirm="no")
    assert one.wait_log("directory", look="full")["entries"] == "4001"
    assert [one.verdict(f"a{i}@example.test") for i in (0, 1500, 3999, 4000)] == [TAKEN, TAKEN, TAKEN, UNKNOWN]


def test_a_look_at_lists_in_parts(server, keep):
    """Who may write is then for Exchange to say; who may in no case is not."""
    entries = [known(1, "ben"), known(2, "carl"),
               known(3, "anna", **{"authOrig;range=0-1499": [dn("ben")]}),
               known(4, "dora", **{"dLMemSubmitPerms;range=0-1499": [dn("list")]}),
               known(5, "emil", authOrig=[dn("ben")]),
               known(6, "fritz", unauthOrig=[dn("ben")], **{"dLMemSubmitPerms;range=0-1499": [dn("list")]})]

    def answer(search):
        return entries[2:] if "(authOrig=*)" in search.filter else look(*entries)(search)
    one = keep(server(answer, root=CONTROLLER))
    one.wait_log("directory", look="full")
    for name, sender, expected in [("anna", "ben", TAKEN), ("anna", "carl", TAKEN), ("dora", "carl", TAKEN),
                                   ("emil", "ben", TAKEN), ("emil", "carl", DENIED), ("fritz", "ben", DENIED),
                                   ("fritz", "carl", TAKEN)]:
        assert one.verdict(f"{name}@example.test", f"{sender}@example.test") == expected, (name, sender)


def test_a_look_at_harmful_values(server, keep):
    entries = [known(1, "anna", *HOSTILE, "SMTP:anna@example.test"), known(2, "b\0\r\nen")]
    one = keep(server(look(*entries), root=CONTROLLER), snapshot_confirm="no")
    one.wait_log("directory", look="full")
    assert one.verdict() == TAKEN
    assert one.verdict("forged@example.test") == UNKNOWN


BAD_LOOKS = {
    "a limit": [known(1, "anna"), done(4, "words of mine")],
    "a time limit": [known(1, "anna"), done(3, "words of mine")],
    "a referral": [known(1, "anna"), done(10, "words of mine")],
    "no base": [done(32, "words of mine")],
    "an entry of nobody": [known(1, "anna"), person("ben")],
    "an entry with half a name": [known(1, "anna"), person("ben", objectGUID=[b"short"])],
    "a cut": [known(1, "anna"), Cut()],
    "garbage": [known(1, "anna"), Raw(b"\x30\x84\x7f\xff\xff\xff"), Cut()],
    "an empty paging": [WithControls(done(), [control("1.2.840.113556.1.4.319", b"")])],
    "two in parts": [entry(dn("anna"), {"objectGUID": [b"1" * 16], "proxyAddresses;range=0-1": ["smtp:x@example.test"],
                                        "mail;range=0-1": ["y@example.test"]})],
    "the same again": [known(1, "anna", **{"proxyAddresses": [], "proxyAddresses;range=0-1": ["smtp:x@example.test"]})],
}


@pytest.mark.parametrize("how", BAD_LOOKS)
def test_a_look_that_is_not_whole_is_not_taken(server, keep, how):
    """What was known stays known; and it is said why."""
    now = [known(1, "anna"), known(2, "ben")]
    lying = server(lambda search: [entry(dn("anna"), {"proxyAddresses;range=0-1": ["smtp:x@example.test"]})]
                   if search.scope == 0 else look(*now)(search), root=CONTROLLER)
    one = keep(lying, snapshot_confirm="no", snapshot_max_loss=100, attributes="proxyAddresses, mail")
    one.wait_log("directory", look="full", entries=2)
    now[:] = BAD_LOOKS[how]
    answer = one.control("directory", "sync")
    assert not answer["ok"] and answer["error"], answer
    assert one.error()
    assert one.wait_log("directory", state="degraded")["error"]
    assert [one.verdict(f"{name}@example.test") for name in ("anna", "ben", "nobody")] == [TAKEN, TAKEN, UNKNOWN]
    now[:] = [known(1, "anna"), known(3, "carl")]
    assert one.control("directory", "sync")["ok"]
    assert [one.verdict(f"{name}@example.test") for name in ("anna", "ben", "carl")] == [TAKEN, UNKNOWN, TAKEN]
    assert one.error() == ""


SYNC = "1.3.6.1.4.1.4203.1.9.1."  # RFC 4533: of it 2 is a state, 3 the end, 4 a message in between
SYNC_ENDS = {
    "a state without a value": [person("anna"), control(SYNC + "2")],
    "an empty state": [person("anna"), control(SYNC + "2", b"")],
    "an end without a value": [done(), control(SYNC + "3")],
    "an empty end": [done(), control(SYNC + "3", b"")],
    "a message without a value": [ber(0x79, text(SYNC + "4", 0x80))],
    "a message of nobody": [ber(0x79, text("", 0x80), text(b"\x80\0", 0x81))],
}


@pytest.mark.parametrize("how", SYNC_ENDS)
def test_changes_that_lack_what_they_always_have(server, keep, how):
    """libldap alone would end the program."""
    operation, *controls = SYNC_ENDS[how]
    everybody = [entry(dn("anna"), {"mail": ["anna@example.test"], "entryUUID": ["01" * 16]})]
    is_lying = []

    def answer(search):
        if "contextCSN" in search.attributes:
            return [entry(search.base, {"contextCSN": ["20260101000000.000000Z#000000#000#000000"]})]
        return [WithControls(operation, controls)] if is_lying else everybody
    one = keep(server(answer, root={"supportedControl": [SYNC + "1"], "namingContexts": [BASE]}), type="ldap",
               attributes="mail", filter="(mail=%u)", snapshot_confirm="no")
    one.wait_log("directory", look="full", entries=1)
    is_lying.append(True)
    one.wait_log("directory", state="degraded")
    assert one.verdict() == TAKEN
    is_lying.clear()
    assert one.control("directory", "sync")["ok"]
    assert one.verdict() == TAKEN


def test_a_controller_of_the_same_name_with_fewer_changes_is_another(server, keep):
    """It was set back without saying so."""
    root = dict(CONTROLLER)
    one = keep(server(look(known(1, "anna")), root=root), snapshot_confirm="no")
    one.wait_log("directory", look="full")
    since = len(one.log)
    root["highestCommittedUSN"] = ["4"]
    one.wait_log("directory", since=since, look="full")


@pytest.mark.parametrize("mode", ["lookup", "snapshot"])
def test_the_end_waits_for_one_server_at_most(postern, exchange, mode):
    """... of all that do not answer, which come one after another."""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        one = postern(exchange(), settings={"directory": {
            "type": "ad", "file": "", "uri": ", ".join(f"ldap://127.0.0.1:{s.getsockname()[1]}" for s in silent),
            "bind": "anonymous", "base": BASE, "timeout": "2s", "mode": mode}})
        silent[0].accept()
        began = time.monotonic()
        one.stop()
        assert time.monotonic() - began < 5
