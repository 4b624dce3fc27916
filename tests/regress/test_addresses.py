"""Hosts that are written as names, and IPv6 on every leg."""

import http.client
import os

import pytest

from conftest import CONTENT
from harness.client import Client
from harness.journal import DEADLINE_S, poll
from harness.postern import free_port

ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")


def by_name(downstream, name="localhost"):
    return f"{name}:{downstream.address[1]}"


def test_a_host_by_its_name(exchange, postern):
    """It is looked up again for each probe; an address of it that does not answer (::1) is passed over."""
    downstream = exchange()
    mx = postern(by_name(downstream), settings={"downstream exchange": {"health_interval": "100ms"}})
    seen = len(downstream.connections)
    poll(lambda: len(downstream.connections) >= seen + 3, "more probes")
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    [line] = mx.events("message")
    assert line["downstream"] == by_name(downstream)
    assert not mx.events("downstream", state="down")


def test_a_host_by_its_name_comes_back(exchange, postern):
    downstream = exchange()
    mx = postern(by_name(downstream), settings={"downstream exchange": {"health_interval": "100ms"}})
    downstream.stop_listening()
    downstream.drop_all()
    mx.wait_log("downstream", state="down", host=by_name(downstream))
    since = len(mx.log)
    downstream.listen_again()
    mx.wait_log("downstream", state="up", host=by_name(downstream), since=since)
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_a_name_that_does_not_resolve(postern):
    mx = postern("nosuch.invalid:25", run=False).start(wait_downstream=False, RES_OPTIONS="timeout:1 attempts:1")
    line = mx.wait_log("downstream", state="down", host="nosuch.invalid:25")
    assert line["error"] == "the name does not resolve"
    client = mx.client()
    assert client.command("MAIL FROM:<a@example.org>").status == "451 4.4.1"


def test_a_name_that_does_not_resolve_beside_one_that_does(exchange, postern):
    downstream = exchange()
    mx = postern("nosuch.invalid:25", by_name(downstream), run=False).start(
        wait_downstream=False, RES_OPTIONS="timeout:1 attempts:1")
    mx.wait_log("downstream", state="up", host=by_name(downstream))
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_a_name_that_hangs_holds_up_no_other(exchange, postern, hanging_names):
    """Neither at the start, nor one that a reload brings, nor a host that comes back; its own host is down."""
    first, second = exchange(), exchange()
    mx = postern(run=False, settings={
        "downstream aslow": {"hosts": "hangs.invalid", "tls": "off", "connect_timeout": "200ms"},
        "domain slow.test": {"downstream": "aslow", "recipients": "any"}, "downstream exchange": None,
        "domain example.test": None})
    mx.write_config({"downstream exchange": {"hosts": by_name(first), "tls": "off", "health_interval": "100ms"},
                     "domain example.test": {"downstream": "exchange"}})
    mx.start(LD_PRELOAD=hanging_names)
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    line = mx.wait_log("downstream", state="down", host="hangs.invalid:25")
    assert line["error"] == "the name does not resolve"
    assert mx.rcpt("anna@slow.test").status == "451 4.4.1"
    first.stop_listening()
    first.drop_all()
    mx.wait_log("downstream", state="down", host=by_name(first))
    since = len(mx.log)
    first.listen_again()
    mx.wait_log("downstream", state="up", host=by_name(first), since=since)
    mx.write_config({"downstream exchange": {"hosts": by_name(second)}})
    mx.reload()
    mx.wait_log("downstream", state="up", host=by_name(second))
    assert mx.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
    assert len(second.delivered) == 1


@pytest.mark.parametrize("certificate", ["exchange", "mx"])
def test_the_name_as_written_is_what_the_certificate_must_have(exchange, postern, certificates, certificate):
    downstream = exchange(tls=certificates.server_context(getattr(certificates, certificate)))
    mx = postern(by_name(downstream), wait_downstream=certificate == "exchange", settings={
        "downstream exchange": {"tls": "verify", "ca_file": certificates.ca.certificate}})
    status = {"exchange": "250 2.6.0", "mx": "451 4.7.5"}[certificate]
    assert mx.client().deliver(CONTENT, "anna@example.test").status == status


@ipv6
def test_ipv6_on_both_legs(exchange, postern):
    downstream = exchange(host="::1")
    mx = postern(downstream, run=False)
    port, page = free_port("127.0.0.1"), free_port("127.0.0.1")
    mx.write_config({"server": {"listen": "%s:%d, [::1]:%d" % (*mx.address, port)},
                     "http": {"listen": "[::1]:%d" % page}})
    mx.start()
    client = Client(("::1", port))
    client.ehlo()
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    client.close()
    line = mx.wait_log("connect", client="::1")
    assert line["listener"] == "[::1]:%d" % port
    [message] = downstream.delivered
    assert b"[IPv6:::1]" in message.content.partition(b"\r\n\r\n")[0]
    [line] = mx.events("message")
    assert line["downstream"] == downstream.host
    # Both families on the same process, each for itself.
    assert mx.client().deliver(CONTENT + b"2\r\n", "ben@example.test").status == "250 2.6.0"
    asked = http.client.HTTPConnection("::1", page, timeout=DEADLINE_S)
    asked.request("GET", "/healthz")
    assert asked.getresponse().status == 200
    asked.close()
