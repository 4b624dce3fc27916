"""What the documents tell people to type is tried as it stands there; lists that stand twice are the same."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import CONTENT
from harness import Client, servers
from harness.journal import poll
from harness.postern import BINARY, check

SOURCE = os.environ["SOURCE_DIR"]
CONTROL = os.environ.get("POSTERNCTL", "posternctl")
PAGES = ["README.md", "docs/exchange.md", "docs/operating.md"]


def page(name):
    with open(os.path.join(SOURCE, name), encoding="utf-8") as text:
        return text.read()


def blocks(name, kind):
    return re.findall(rf"^[ ]*```{kind}\n(.*?)^[ ]*```$", page(name), re.M | re.S)


@pytest.mark.parametrize("name", PAGES)
def test_settings(name, directory):
    """Every block of settings is read; only what stands outside of it may be missing."""
    for block in blocks(name, "ini"):
        done, path = check(block, directory)
        faults = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        for fault in faults:
            assert re.search(r": (no \[domain|.*(No such file|cannot be made|there is no user))", fault), fault


def test_names_of_settings(directory):
    """`key = value` and `[section] key = value` in the text name settings that there are."""
    known = page("conf/postern.ini")
    keys = set(re.findall(r"^(\w+) =", known, re.M))
    sections = set(re.findall(r"^\[(\w+)", known, re.M))
    for name in PAGES:
        for section, key in re.findall(r"`(?:\[(\w+)[^\]`]*\] )?(\w+) = [^`]*`", page(name)):
            assert key in keys and (not section or section in sections), (name, section, key)


@pytest.mark.parametrize("name", PAGES + ["docs/examples/alerts.yml"])
def test_control_commands(name):
    listed = subprocess.run([CONTROL, "--help"], capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"posternctl ([a-z][a-z-]+)", page(name)):
        assert re.search(rf"^\s+{command}\b", listed, re.M), command


def test_init(directory):
    """The line of exchange.md makes a configuration that passes once its files are there."""
    line = next(re.search(r"postern --init.*?(?= > )", block, re.S)[0]
                for block in blocks("docs/exchange.md", "sh") if "--init" in block)
    argv = [BINARY, *shlex.split(line.replace("\\\n", " "))[1:]]
    made = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for name in set(re.findall(r"/etc/postern/(\S+)", made)):
        servers.write(directory, name, "secret\n")
        os.chmod(os.path.join(directory, name), 0o640)
    certificate, key = (f"{directory}/mx1.example.com.{end}" for end in ("crt", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx1.example.com",
                    "-days", "90", "-keyout", key, "-out", certificate], capture_output=True, check=True)
    shutil.copy(certificate, directory + "/ad-ca.crt")
    made = made.replace("/etc/postern", directory).replace("user = postern\n", "")  # where the package is installed
    done, path = check(made.replace("[server]", f"[server]\nstate_dir = {directory}/state"), directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: ok\n", "")


def haproxy_conf(front, mx):
    conf = next(block for block in blocks("docs/operating.md", "") if "send-proxy-v2" in block)
    conf = conf.replace("bind :25", f"bind 127.0.0.1:{front}").replace("check port 9125", f"check port {mx.http[1]}")
    conf = conf.replace("10.0.0.11:25", "%s:%d" % mx.address)
    return "".join(line for line in conf.splitlines(True) if "10.0.0.12" not in line)


def test_haproxy(exchange, postern, directory):
    """The example's HAProxy asks /readyz, and tells the client's address."""
    mx = postern(exchange(), settings={"server": {"proxy_protocol": "127.0.0.1"}})
    front = servers.free_port()
    conf = servers.write(directory, "haproxy.cfg", haproxy_conf(front, mx))
    proxy = servers.Server(directory, [servers.program("haproxy"), "-f", conf], port=front)
    try:
        def served():
            try:
                return Client(("127.0.0.1", front), source="127.0.0.77")
            except (OSError, ConnectionError):
                return None
        client = poll(served, "a greeting through HAProxy")
        client.ehlo()
        assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
        assert mx.wait_log("message", client="127.0.0.77")
        client.quit()
    finally:
        proxy.stop()


def test_build_depends():
    """docs/debian/control and tests/packages/build name the same libraries and tools."""
    named = re.search(r"^Build-Depends:(.*?)^\S", page("docs/debian/control"), re.M | re.S)[1]
    debian = {item.split("(")[0].strip() for item in named.split(",")} - {"debhelper-compat"}
    ours = {line for line in page("tests/packages/build").splitlines() if line and line[0] != "#"}
    assert debian == ours - {"gcc", "libc6-dev"}  # build-essential
