"""The files in state_dir, damaged in every way that a disk, a copy or a hand can think of: said, set aside, begun anew; the
other files keep what they know, and mail goes on."""

import os
import random
import shutil
import tempfile

import pytest

from conftest import CONTENT, RECIPIENTS
from harness import FakeExchange, Postern
from harness.ldap_server import LdapServer, entry
from harness.postern import check, ini

PAGE = 4096
BLOCKED = "198.51.100.7"


def pages(octets, change):
    """OCTETS with each page but the first two as CHANGE(number, page) makes it."""
    return octets[:2 * PAGE] + b"".join(change(at // PAGE, octets[at:at + PAGE])
                                        for at in range(2 * PAGE, len(octets), PAGE))


DAMAGES = {
    "an octet": lambda octets: b"x",
    "a text": lambda octets: b"recipients\n" * 1000,
    "half of it": lambda octets: octets[:len(octets) // 2],
    "a page": lambda octets: octets[:PAGE],
    "two pages": lambda octets: octets[:2 * PAGE],
    "two pages and a piece": lambda octets: octets[:2 * PAGE + 100],
    "zeros": lambda octets: bytes(len(octets)),
    "zeros in its pages": lambda octets: pages(octets, lambda number, page: bytes(PAGE)),
    "ones in its pages": lambda octets: pages(octets, lambda number, page: b"\xff" * PAGE),
    "noise in its pages": lambda octets: pages(octets, lambda number, page: random.Random(number).randbytes(PAGE)),
    "noise": lambda octets: random.Random(1).randbytes(len(octets)),
    "other octets": lambda octets: bytes(octet ^ 0x5a for octet in octets),
    "pages that are others": lambda octets: pages(octets, lambda number, page: octets[:PAGE]),
    "another magic": lambda octets: octets.replace(b"\xde\xc0\xef\xbe", b"\xde\xc0\xef\xbf"),
    "another version": lambda octets: octets.replace(b"\xde\xc0\xef\xbe\x01", b"\xde\xc0\xef\xbe\x63"),
}
FILES = {"policy.mdb": "ledger", "recipients.mdb": "directory"}  # and the event that says it


class Directory(LdapServer):
    """Of RECIPIENTS."""

    def __init__(self):
        super().__init__(self.tell, root={"highestCommittedUSN": ["5"], "dnsHostName": ["dc1.example.test"]})

    def tell(self, search):
        if "uSNChanged>=" in search.filter:
            return []
        return [entry(f"cn={number},dc=x", {"proxyAddresses": [f"SMTP:{address}"], "objectGUID": [bytes([number]) * 16]})
                for number, address in enumerate(RECIPIENTS)]


@pytest.fixture(scope="module")
def world():
    """A downstream, a directory, and how to start a Postern between them on a state_dir of one's own."""
    exchange, directory, place = FakeExchange(), Directory(), tempfile.mkdtemp(prefix="postern-", dir="/tmp")

    def make(state, **server):
        one = Postern(tempfile.mkdtemp(dir=place), [exchange], settings={
            "server": {"state_dir": state, **server},
            "directory": {"type": "ad", "file": "", "uri": directory.uri, "bind": "anonymous", "base": "dc=x",
                          "mode": "snapshot", "snapshot_confirm": "no"}})
        return one
    yield make
    directory.stop()
    exchange.stop()
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def good(world):
    """A state_dir in which both files know something."""
    path = tempfile.mkdtemp(prefix="postern-state-", dir="/tmp")
    mx = world(path).start()
    assert mx.control("block", BLOCKED, "7d")["ok"]
    mx.wait_log("directory", look="full", entries=len(RECIPIENTS))
    mx.stop()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def state(good, directory):
    """A copy of it."""
    return shutil.copytree(good, directory + "/state")


class Run:
    """A Postern that starts on STATE, takes mail for whom the directory has and for nobody else, and ends well.  `knew` has
    those of FILES that knew what was in them."""

    def __init__(self, world, state, anew=""):
        mx = world(state).start()
        blocks = mx.control("blocks")["blocks"]
        if anew == "recipients.mdb":
            mx.wait_log("directory", look="full", entries=len(RECIPIENTS))
        assert mx.client().deliver(CONTENT, RECIPIENTS[0]).status == "250 2.6.0"
        assert mx.client().attempt(CONTENT, "nobody@example.test").status == "550 5.1.1"
        mx.stop()
        self.state, self.log = state, list(mx.log)
        self.knew = set()
        if any(block["network"].startswith(BLOCKED) for block in blocks):
            self.knew.add("policy.mdb")
        if not any(event.get("look") == "full" for event in self.log):
            self.knew.add("recipients.mdb")

    def said(self, name):
        """The lines about NAME."""
        return [event for event in self.log if event.get("file") == os.path.join(self.state, name)]


def test_nothing_is_damaged(world, state):
    """What the tests below stand on."""
    run = Run(world, state)
    assert run.knew == set(FILES)
    assert not any(run.said(name) for name in FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(world, state, name, damage):
    path = os.path.join(state, name)
    with open(path, "rb") as file:
        octets = file.read()
    damaged = DAMAGES[damage](octets)
    assert damaged != octets
    with open(path, "wb") as file:
        file.write(damaged)
    run = Run(world, state, name)
    assert run.knew == set(FILES) - {name}
    [line] = run.said(name)
    assert (line["event"], line["state"], line["action"]) == (FILES[name], "degraded", "set aside, begun anew")
    assert "damaged" in line["error"]
    with open(path + ".damaged", "rb") as kept:
        assert kept.read() == damaged
    assert not Run(world, state).said(name)  # what was begun is good


@pytest.mark.parametrize("name", FILES)
def test_a_directory_in_its_place(world, state, name):
    path = os.path.join(state, name)
    os.remove(path)
    os.mkdir(path)
    assert len(Run(world, state, name).said(name)) == 1
    assert os.path.isdir(path + ".damaged")
    assert not Run(world, state).said(name)


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_it(world, state, name):
    """As one is that was made in the moment of a crash: begun, with nothing to say."""
    path = os.path.join(state, name)
    with open(path, "wb"):
        pass
    run = Run(world, state, name)
    assert run.knew == set(FILES) - {name} and not run.said(name)
    assert not os.path.exists(path + ".damaged")


CAPABILITIES = {"nothing": b"", "zeros": bytes(64), "half a line": b"exchange\n", "a long line": b"x" * 10000,
                "empty lines": b"\n" * 1000, "a size too large": b"127.0.0.1:1 99999999999999999999 SIZE, exchange\n"}


@pytest.mark.parametrize("octets", CAPABILITIES.values(), ids=CAPABILITIES)
def test_capabilities(world, state, octets):
    """What the downstream offered is only asked for again."""
    with open(os.path.join(state, "capabilities"), "wb") as file:
        file.write(octets)
    assert Run(world, state).knew == set(FILES)


@pytest.mark.parametrize("name", ["capabilities", "capabilities.new"])
def test_capabilities_that_cannot_be_saved(exchange, postern, name):
    """It is said once, and tried until it works, though they have not changed again."""
    mx = postern(downstream := exchange(), run=False)
    state = mx.settings["server"]["state_dir"]
    os.makedirs(os.path.join(state, name, "in the way"))
    mx.start()
    assert os.path.join(state, "capabilities") in mx.wait_log("downstream", state="degraded")["error"]
    mx.save()
    assert len(mx.events("downstream", state="degraded")) == 1
    since = len(mx.log)
    shutil.rmtree(os.path.join(state, name))
    assert "host" not in mx.wait_log("downstream", state="up", since=since)
    with open(os.path.join(state, "capabilities"), encoding="utf-8") as file:
        assert file.read().startswith(downstream.host + " ")


@pytest.mark.parametrize("name", [*FILES, "policy.mdb-lock", "recipients.key"])
def test_not_readable(world, state, directory, name):
    """By `user`: nothing is damaged, and nothing is begun anew over it.  `-t` and the daemon say so."""
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    path = os.path.join(state, name)
    for root, _, names in os.walk(state):
        for one in [root] + [os.path.join(root, each) for each in names]:
            shutil.chown(one, "nobody")
    shutil.chown(path, "root")
    with open(path, "rb") as file:
        octets = file.read()
    mx = world(state, user="nobody")
    for place in (directory, mx.directory, os.path.dirname(mx.directory)):
        os.chmod(place, 0o711)
    assert f"warning: {path}: user nobody cannot write it" in check(ini(mx.settings), mx.directory)[0].stderr
    with pytest.raises(AssertionError):
        mx.start()
    assert mx.wait_exit() not in (0, None) and mx.process.returncode > 0
    assert any("Permission denied" in line for line in mx.stray)
    with open(path, "rb") as file:
        assert file.read() == octets
