"""The start: who finds the port open finds everything else too."""

import os
import signal
import socket
import subprocess

import pytest

from conftest import CONTENT
from harness import postern as harness
from harness.journal import poll


def connects(address):
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def open_port(exchange, postern):
    """A Postern whose port has been open for no more than a moment."""
    mx = postern(exchange(), run=False)
    mx.process = subprocess.Popen([harness.BINARY, "-c", mx.config_path], stdin=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, cwd=mx.directory)
    while not connects(mx.address):
        assert mx.process.poll() is None
    yield mx
    mx.process.kill()
    mx.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_behind_the_port_drains(open_port, number):
    open_port.send_signal(number)
    assert open_port.process.wait(10) == 0


def test_sighup_right_behind_the_port_is_no_end(open_port):
    open_port.send_signal(signal.SIGHUP)
    poll(lambda: open_port.control("status")["ready"], "ready")
    assert open_port.process.poll() is None


def test_the_doors_are_open_before_the_port(open_port):
    assert connects(open_port.http)
    assert open_port.control("status")["ok"]


@pytest.mark.parametrize("name", ["exchange", "the other exchange"])
def test_what_a_host_offers_is_saved_at_the_end(exchange, postern, name):
    downstream = exchange()
    mx = postern(downstream, settings={"domain example.test": {"downstream": name},
                                       f"downstream {name}": {"hosts": downstream.host, "tls": "off"}})
    offered = mx.client().offered
    assert "CHUNKING" in str(offered)
    mx.stop()
    downstream.stop_listening()
    mx.start(wait_downstream=False)
    assert mx.client().offered == offered


@pytest.mark.parametrize("target", ["stderr", "unix:/nonexistent/log"])
def test_started_without_standard_descriptors(exchange, postern, target):
    """What is said there goes nowhere, least of all into what was opened in their place."""
    mx = postern(exchange(), run=False, settings={"log": {"target": target}})
    mx.process = subprocess.Popen([harness.BINARY, "-c", mx.config_path], cwd=mx.directory,
                                  preexec_fn=lambda: os.closerange(0, 3))
    poll(lambda: connects(mx.address), "the port")
    try:
        assert [os.readlink(f"/proc/{mx.process.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
        assert mx.get("/healthz")[0] == 200
        mx.process.terminate()
        assert mx.process.wait(10) == 0
    finally:
        mx.process.kill()
        mx.process.wait()
