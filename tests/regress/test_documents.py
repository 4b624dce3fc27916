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
            assert re.search(r": (no \[domain|.*(No such file|cannot be created|there is no user))", fault), fault


def test_names_of_settings(directory):
    """`key = value` and `[section] key = value` in the text name settings that there are."""
    known = page("conf/postern.ini")
    keys = set(re.findall(r"^(\w+) =", known, re.M))
    sections = set(re.findall(r"^\[(\w+)", known, re.M))
    for name in PAGES:
        for section, key in re.findall(r"`(?:\[(\w+)[^\]`]*\] )?(\w+) = [^`]*`", page(name)):
            assert key in keys and (not section or section in sections), (name, section, key)


def test_settings_that_need_a_restart():
    """The guide names all of them, and no other."""
    keys = re.findall(r"^SETTING\((\w+), (\w+),[^\"\n]*\"[^\"]*\"[^\"\n]*FIXED", page("conf/settings.def"), re.M)
    sentence = re.search(r"Settings need no restart, except (.*?)\.", page("docs/operating.md"), re.S)[1]
    assert sorted(re.findall(r"`([^`]*)`", sentence)) == sorted([key for _, key in keys] + ["[spool] dir"])


@pytest.mark.parametrize("name", PAGES + ["docs/examples/alerts.yml"])
def test_control_commands(name):
    listed = subprocess.run([CONTROL, "--help"], capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"posternctl ([a-z][a-z-]+)", page(name)):
        assert re.search(rf"^\s+{command}\b", listed, re.M), command


@pytest.mark.parametrize("name", ["docs/exchange.md", "docs/postern.8", "README.md"])
def test_init(name, directory):
    """The line that it shows makes a configuration which passes once its files are there."""
    text = page(name).replace("\\e\n", "\\\n")  # as a manual page escapes it
    line = re.search(r"postern --init --hostname.*?(?=\s*(?:\\\n\s*)?> )", text, re.S)[0]
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


def test_every_bound():
    """Each row of the table of bounds names tests, and they are there."""
    table = page("docs/SECURITY.md").partition("\n## Bounds\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20 and all(len(row) == 4 for row in rows)
    for row in rows:
        named = re.findall(r"`(\w+)::(\w+)`", row[3])
        assert named, row[0]
        for name, test in named:
            found = [path for path in (f"tests/regress/test_{name}.py", f"tests/unit/test_{name}.c")
                     if os.path.exists(os.path.join(SOURCE, path))
                     and re.search(rf"^(?:def )?(?:test_)?{test}\(", page(path), re.M)]
            assert len(found) == 1, (name, test, found)


def first_cells(name, heading):
    """The first column of the tables between a heading and the next one of its kind."""
    text = page(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.split(" | ")[0].lstrip("| ") for line in text.splitlines() if line.startswith("| ")]


def arguments(text):
    """Those of the call that begins with TEXT's first character, behind its parenthesis."""
    depth, start, found = 0, 0, []
    for at, octet in enumerate(text):
        if octet in ",)" and depth == 0:
            found.append(text[start:at])
            start = at + 1
        if octet == ")" and depth == 0:
            break
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(octet, 0)
    return found


def events_of_the_source():
    found = set()
    for layer in ("base", "conf", "ldap", "policy", "proxy"):
        for directory, _, names in os.walk(os.path.join(SOURCE, layer)):
            for name in names:
                text = page(os.path.join(directory, name)) if name.endswith(".c") else ""
                for call in re.finditer(r"\blog_(begin|event)\(", text):
                    words = arguments(text[call.end():])
                    found.update(re.findall(r'"([a-z]+)"', words[2 if call[1] == "begin" else 1]))
                found.update(re.findall(r'\.event = "([a-z]+)"', text))
    return found


def test_every_event():
    """What the program logs is in the operating guide and in the manual, and nothing else is."""
    logged = events_of_the_source()
    assert {"connect", "rcpt", "block", "start", "ledger"} <= logged
    guide = {word for cell in first_cells("docs/operating.md", "2. The log")
             for word in re.findall(r"`([a-z]+)`", cell) if not cell.startswith("`unknown")}
    assert logged <= guide, logged - guide
    manual = re.findall(r"^\.It Cm (.*)$", page("docs/postern.8"), re.M)
    assert {word for line in manual for word in re.split(r"[ ,]+", line)} == logged


def test_every_reason():
    told = set(re.findall(r'^POLICY_REASON\(\w+, "([a-z-]+)"', page("policy/reason.def"), re.M))
    assert told <= {cell.strip("`") for cell in first_cells("docs/operating.md", "2. The log")}


def test_every_metric(exchange, postern):
    """The running program's, each with its labels."""
    mx = postern(exchange(), settings={"directory second": {
        "type": "ldap", "uri": "ldap://127.0.0.1:1", "base": "dc=x", "filter": "(mail=%u)", "attributes": "mail"}})
    text = mx.get("/metrics")[1]
    told = {}
    for name in re.findall(r"^# TYPE (\S+)", text, re.M):
        labels = re.search(rf"^{name}(?:_bucket)?{{(.*?)}}", text, re.M)
        told[name] = [label for label in re.findall(r'(\w+)="', labels[1]) if label != "le"] if labels else []
    rows = [re.fullmatch(r"`(\w+)(?:{(.*)})?`", cell) for cell in first_cells("docs/operating.md",
                                                                           "3. Metrics and alerts")[2:]]
    assert {row[1]: row[2].split(",") if row[2] else [] for row in rows} == told


def test_every_reply():
    """Each code with its enhanced one."""
    replies = re.findall(r'^SMTP_REPLY\(\w+, (\d+), "([\d.]*)"', page("proxy/smtp/reply.def"), re.M)
    cells = " ".join(first_cells("docs/operating.md", "4. Replies"))
    for code, enhanced in replies:
        assert re.search(rf"`{code}{' ' + enhanced if enhanced else ''}\b", cells), (code, enhanced)


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


def test_unit_lets_postern_lock_itself_in():
    """What the sandbox asks of the kernel is not in @system-service."""
    allowed = " ".join(re.findall(r"^SystemCallFilter=(.*)$", page("docs/postern.service"), re.M)).split()
    named = set(re.findall(r"SYS_(landlock_\w+)", page("proxy/sandbox.c")))
    assert named and named | {"seccomp"} <= set(allowed)


def test_build_depends():
    """docs/debian/control and tests/packages/build name the same libraries and tools."""
    named = re.search(r"^Build-Depends:(.*?)^\S", page("docs/debian/control"), re.M | re.S)[1]
    debian = {item.split("(")[0].strip() for item in named.split(",")} - {"debhelper-compat"}
    ours = {line for line in page("tests/packages/build").splitlines() if line and line[0] != "#"}
    assert debian == ours - {"gcc", "libc6-dev"}  # build-essential


def test_service_is_shut_in():
    """The unit's exposure, as systemd counts it: from 0, nothing, to 10."""
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=19", os.path.join(SOURCE, "docs/postern.service")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr
