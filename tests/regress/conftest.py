"""What every test may ask for: an Exchange, a Postern in front of it, certificates."""

import os
import shutil
import signal
import tempfile

import pytest

from harness import Certificates, FakeExchange, Postern
from harness import postern as built
from harness.servers import Slapd
from harness.slow_disk import SlowDisk

RECIPIENTS = ["anna@example.test", "ben@example.test", "carl@example.test"]
CONTENT = b"From: <sender@example.org>\r\nSubject: a test\r\n\r\nHello.\r\n"


def pytest_collection_modifyitems(items):
    """Under valgrind, where a start takes seconds, each test once: with the first of its parameters."""
    if "UNDER_VALGRIND" in os.environ:
        first = {(item.path, item.originalname): item for item in reversed(items)}
        items[:] = [item for item in items if first[item.path, item.originalname] is item]


@pytest.fixture
def directory():
    """Short, since the path of a unix socket is at most 107 octets."""
    path = tempfile.mkdtemp(prefix="postern-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def certificates():
    path = tempfile.mkdtemp(prefix="postern-tls-", dir="/tmp")
    yield Certificates(path)
    shutil.rmtree(path)


@pytest.fixture
def exchange():
    """Call it for a FakeExchange; the arguments are its own."""
    started = []

    def start(**arguments):
        started.append(FakeExchange(**arguments))
        return started[-1]
    yield start
    for one in started:
        one.stop()


@pytest.fixture
def start_slapd(directory, certificates):
    """Call it for a running Slapd; the arguments are its own, behind the certificates."""
    started = []

    def start(*arguments, **config):
        started.append(Slapd(tempfile.mkdtemp(dir=directory), certificates, *arguments, **config))
        return started[-1]
    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGCONT)
        one.stop()


@pytest.fixture
def postern(directory):
    """Call it with the downstream's hosts and changes to the settings for a running Postern."""
    started = []

    def start(*hosts, recipients=RECIPIENTS, settings=None, run=True, wait_downstream=True):
        one = Postern(tempfile.mkdtemp(dir=directory), hosts, recipients, settings)
        started.append(one)
        return one.start(wait_downstream) if run else one
    yield start
    for one in started:
        if one.process and one.process.returncode is None:
            one.stop()


@pytest.fixture
def hanging_names():
    """The path of a library for LD_PRELOAD: see harness/hanging_names.c."""
    library = os.environ.get("HANGING_NAMES", "")
    if not library or not built.takes_libraries():
        pytest.skip("no library can be before a sanitizer's")
    return library


@pytest.fixture
def mx(exchange, postern):
    """The usual pair: a Postern with nothing unusual, and its Exchange as `mx.exchange`."""
    downstream = exchange()
    one = postern(downstream)
    one.exchange = downstream
    return one


@pytest.fixture
def slow_disk(directory):
    """Call it with a part of the path."""
    made = []

    def make(name):
        library = os.environ.get("SLOW_DISK", "")
        if not library or not built.takes_libraries():
            pytest.skip("no library can be before a sanitizer's")
        made.append(SlowDisk(directory, library, name))
        return made[-1]
    yield make
    for one in made:
        one.go_on()
