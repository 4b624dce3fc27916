"""A disk that does not come back, by a library in front of the C library's: whoever waits for it, mail does not."""

import os
import signal
import tempfile

import pytest

from conftest import CONTENT
from harness.journal import Journal
from harness.servers import Nsd, Redis

ZONE = """$ORIGIN dns.test.
$TTL 60
@ SOA ns host 1 60 60 60 60
@ NS ns
ns A 127.0.0.1
2.0.0.127.bl A 127.0.0.2
1.2.0.192.bl A 127.0.0.2
"""


@pytest.fixture
def nsd(directory):
    path = tempfile.mkdtemp(dir=directory)
    os.chmod(path, 0o755)
    server = Nsd(path, {"dns.test": ZONE})
    yield server
    server.stop()


@pytest.fixture
def redis(directory):
    server = Redis(tempfile.mkdtemp(dir=directory))
    yield server
    server.stop(signal.SIGKILL)


def rcpt(mx, address):
    client = mx.client(told=address)
    client.ok("MAIL FROM:<a@example.org>")
    status = client.command("RCPT TO:<anna@example.test>").status
    client.close()
    return status


@pytest.mark.parametrize("name", ["policy.mdb", "capabilities.new"])
def test_nobody_waits_for_what_is_saved(exchange, postern, nsd, slow_disk, name):
    """The name server is asked, mail is delivered, the control socket and the metrics answer, a reload is done; and all
    that is known is saved in the end."""
    disk = slow_disk(name)
    mx = postern(exchange(), run=False, settings={
        "server": {"proxy_protocol": "127.0.0.0/8"}, "dns": {"nameserver": f"127.0.0.1:{nsd.port}"},
        "dnsbl": {"any_sender": "bl.dns.test"}})
    if name == "capabilities.new":  # saved once
        disk.hang()
    mx.start(**disk.environment)
    mx.wait_log("dnsbl", state="up")
    disk.hang()
    assert mx.control("block", "203.0.113.1", "1h")["ok"]
    disk.wait_reached()
    assert rcpt(mx, "192.0.2.1") == "550 5.7.1"
    assert rcpt(mx, "192.0.2.9") == "250 2.1.5"
    assert mx.client(told="192.0.2.9").deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    assert mx.get("/healthz")[0] == 200
    assert mx.control("block", "203.0.113.2", "1h")["ok"]
    mx.reload()
    assert len(mx.control("blocks")["blocks"]) == 2
    for client in mx.clients:
        client.close()
    mx.send_signal(signal.SIGTERM)
    disk.go_on()
    assert mx.wait_exit() == 0
    assert not mx.events("ledger") and not mx.events("downstream", state="degraded")
    assert os.path.exists(mx.settings["server"]["state_dir"] + "/capabilities")
    mx.log = Journal("log of another run")
    mx.start()
    assert len(mx.control("blocks")["blocks"]) == 2


def test_a_question_to_the_fleet_ends_though_nobody_hears_the_answer(exchange, postern, redis, slow_disk):
    """Whoever asks Redis waits for a disk, in a reload: the messages that asked have their own deadline."""
    disk = slow_disk("postern.ini")
    mx = postern(exchange(), run=False, settings={
        "harvest": {"ledger": "redis", "redis": f"127.0.0.1:{redis.port}"}})
    mx.start(**disk.environment)
    mx.wait_log("ledger", state="up")
    since = len(mx.log)
    disk.hang()
    mx.send_signal(signal.SIGHUP)
    disk.wait_reached()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    disk.go_on()
    mx.wait_log("config", state="loaded", since=since)
    assert mx.client().deliver(CONTENT + b"2\r\n", "anna@example.test").status == "250 2.6.0"
