"""posternctl against the running daemon: what is shown, what is said to scripts, exit codes."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest

from conftest import CONTENT
from harness import servers
from harness.journal import DEADLINE_S, Journal
from harness.postern import BINARY

POSTERNCTL = os.environ.get("POSTERNCTL", os.path.join(os.path.dirname(BINARY), "posternctl"))
NETWORK = "192.0.2.0/24"


def ctl(mx, *words):
    command = [POSTERNCTL, "-s", mx.socket_path] if mx else [POSTERNCTL]
    return subprocess.run([*command, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=DEADLINE_S, text=True, check=False)


def ctl_json(mx, *words):
    done = ctl(mx, "--json", *words)
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["ok"] else 1)
    return answer


# Without a daemon

def test_explain_needs_no_daemon():
    done = ctl(None, "explain", "550 5.1.1 <a@b>: User unknown")
    assert done.returncode == 0
    assert "User unknown" in done.stdout and "remedy" in done.stdout
    for words in ("--json", "explain", "5.7.133"), ("explain", "5.7.133", "--json"), ("explain", "5.7.133", "-j"):
        assert json.loads(ctl(None, *words).stdout)["code"] == "5.7.133"
    done = ctl(None, "explain", "nothing")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("posternctl: ")


@pytest.mark.parametrize("words", [[], ["nosuch"], ["lookup"], ["status", "x"], ["--nosuch"],
                                   ["block", "a", "b", "c"], ["-s"]])
def test_usage(words):
    done = ctl(None, *words)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr


def test_help_and_version():
    done = ctl(None, "--help")
    assert done.returncode == 0 and "log-level LEVEL" in done.stdout
    assert re.fullmatch(r"posternctl \d+\.\d+\.\d+\n", ctl(None, "--version").stdout)


COMMANDS = {
    "status": [], "top": [], "lookup": ["anna@example.test"], "forget": ["anna@example.test"], "blocks": [],
    "block": [NETWORK, "1h"], "unblock": [NETWORK], "explain": ["5.1.1"], "remote-domains": [], "directory": [],
    "downstreams": [], "reload": [], "log-level": ["info"], "drain": []}


def test_every_command(mx):
    """For people and for programs."""
    listed = re.findall(r"^  ([a-z][a-z-]*)", ctl(None, "--help").stdout.partition("\ncommands:")[2], re.M)
    assert set(listed) == set(COMMANDS)
    for command, words in COMMANDS.items():
        for form in ([], ["--json"])[command == "drain":]:  # there is no second time for it
            done = ctl(mx, command, *words, *form)
            assert (done.returncode, done.stderr) == (0, ""), command
            if form:
                assert done.stdout.count("\n") == 1 and json.loads(done.stdout)["ok"] is True, command
            else:
                assert done.stdout.endswith("\n") and done.stdout[0] not in "{[", command
    mx.process.wait(DEADLINE_S)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_without_a_daemon(directory, command):
    done = ctl(None, "-s", directory + "/none", command, *COMMANDS[command])
    if command == "explain":
        assert done.returncode == 0
    else:
        assert (done.returncode, done.stdout) == (3, "")
        assert "is postern running" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_with_too_much(command):
    done = ctl(None, command, *COMMANDS[command], "x", "y", "z")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: posternctl {command}" in done.stderr


def test_no_daemon(directory):
    done = ctl(None, "-s", os.path.join(directory, "nosuch"), "status")
    assert done.returncode == 3 and "is postern running" in done.stderr
    path = os.path.join(directory, "dead")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert ctl(None, "-s", path, "status").returncode == 3


def test_a_daemon_that_goes_away(directory):
    path = os.path.join(directory, "mute")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen(1)
        asking = subprocess.Popen([POSTERNCTL, "-s", path, "status"], stderr=subprocess.PIPE)
        conn, _ = mute.accept()
        assert conn.recv(100) == b'{"command":"status","args":[]}\n'
        conn.close()
        assert asking.wait(DEADLINE_S) == 3
        asking.stderr.close()


def test_completion(directory):
    path = os.path.join(directory, "completion")
    with open(path, "w", encoding="utf-8") as out:
        out.write(ctl(None, "--completion").stdout)
    script = (f'. {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _posternctl; '
              'echo "${COMPREPLY[*]}"')

    def complete(*words):
        return subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True,
                              text=True, check=True).stdout.split()
    assert {"status", "lookup", "remote-domains"} <= set(complete("posternctl", ""))
    assert complete("posternctl", "blo") == ["blocks", "block"]
    assert complete("posternctl", "-s", "/x", "log-level", "w") == ["warning"]
    assert complete("posternctl", "lookup", "") == []


# With one

def test_status(mx):
    mx.client().deliver(CONTENT, "anna@example.test")
    status = ctl_json(mx, "status")
    assert status["hostname"] == "mx.example.test"
    assert status["ready"] is True and status["problems"] == []
    assert status["recipients"]["accept"] == {"total": 1, "reasons": {"ok": 1}}
    assert status["messages"]["delivered"] == 1
    assert status["connections"]["open"] == 1
    assert [h["host"] for h in status["downstreams"]] == [mx.exchange.host]
    assert "PIPELINING" in status["downstreams"][0]["capabilities"]
    assert status["directories"][0]["entries"] == 3
    shown = ctl(mx, "status").stdout
    assert "1 accepted, 0 refused" in shown and mx.exchange.host in shown
    for command in ("directory", "downstreams"):
        done = ctl(mx, command)
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done


@pytest.mark.parametrize("address, verdict, reason, status", [
    ("anna@example.test", "accept", "ok", "250 2.1.5"),
    ("ANNA@Example.Test", "accept", "ok", "250 2.1.5"),
    ("<anna@example.test>", "accept", "ok", "250 2.1.5"),
    ("nobody@example.test", "reject", "unknown", "550 5.1.1"),
    ("NoBody@Example.Test", "reject", "unknown", "550 5.1.1"),
    ("blocked@example.test", "reject", "blocked", "550 5.7.1"),
    ("a@elsewhere.test", "reject", "relay", "550 5.7.1"),
    ("postmaster@example.test", "accept", "postmaster", "250 2.1.5"),
    ("no address", "reject", "syntax", "501 5.1.3"),
])
def test_lookup_judges_as_rcpt_does(exchange, postern, address, verdict, reason, status):
    mx = postern(exchange(), recipients=["anna@example.test", "blocked@example.test"],
                 settings={"blocked": {"recipients": "blocked@example.test"},
                           "harvest": {"allow": ""}})
    answer = ctl_json(mx, "lookup", address)
    assert answer["reply"].startswith(status + " ")
    assert (answer["verdict"], answer["reason"]) == (verdict, reason)
    client = mx.client()
    client.ok("MAIL FROM:<s@example.org>")
    reply = client.command(f"RCPT TO:<{address.strip('<>')}>")
    assert (reply.status, str(reply)) == (status, answer["reply"])
    event = mx.wait_log("rcpt")
    assert (event["verdict"], event["reason"]) == (verdict, reason)
    shown = ctl(mx, "lookup", address).stdout
    assert answer["reply"] in " ".join(shown.split())


def test_lookup_says_what_data_would(exchange, postern, directory, start_slapd):
    """With stage = data a recipient for insiders has another code than at RCPT."""
    slapd = start_slapd(servers.recipient_entry("staff", ["staff@example.test"], msExchRequireAuthToSendTo=["TRUE"]))
    mx = postern(exchange(), settings={"harvest": {"stage": "data"}, **ldap_settings(directory, slapd)})
    answer = ctl_json(mx, "lookup", "Staff@example.test")
    client = mx.client()
    client.ok("MAIL FROM:<s@example.org>")
    assert str(client.command("RCPT TO:<Staff@example.test>")) == answer["reply"]
    assert str(client.command("DATA")) == answer["reply_at_data"]
    assert answer["reply_at_data"].startswith("550 5.1.1 <Staff@example.test>")


def test_lookup_of_postmaster_follows_its_mail(exchange, postern):
    away = exchange()
    away.stop_listening()
    mx = postern(exchange(), settings={
        "server": {"postmaster": "boss@second.test"}, "domain second.test": {"downstream": "second"},
        "downstream second": {"hosts": away.host, "tls": "off", "health_interval": "1h"}})
    mx.wait_log("downstream", state="down", host=away.host)
    for address in ("postmaster", "postmaster@example.test"):
        answer = ctl_json(mx, "lookup", address)
        assert (answer["downstream"], answer["canonical"]) == ("second", "boss@second.test")
        client = mx.client()
        client.ok("MAIL FROM:<s@example.org>")
        assert str(client.command(f"RCPT TO:<{address}>")) == answer["reply"]
        assert answer["reply"].startswith("451 4.4.1 ")


def test_lookup_shows_the_way(mx):
    answer = ctl_json(mx, "lookup", "anna@example.test", "s@example.org")
    assert answer["domain"] == "example.test"
    assert answer["downstream"] == "exchange" and answer["downstream_up"] is True
    assert answer["directory"] == "found" and answer["source"] == "file"
    assert answer["sender"] == "s@example.org" and answer["marked"] is False
    assert ctl_json(mx, "lookup", "anna@example.test", "no sender")["ok"] is False


def test_lookup_asks_the_directory_even_without_a_downstream(mx):
    mx.exchange.stop_listening()
    mx.exchange.drop_all()
    assert mx.client().attempt(CONTENT, "anna@example.test").status == "451 4.4.1"
    mx.wait_log("downstream", state="down")
    for name, result in ("anna", "found"), ("nobody", "absent"):
        answer = ctl_json(mx, "lookup", f"{name}@example.test")
        assert (answer["verdict"], answer["reason"]) == ("defer", "route")
        assert answer["reply"].startswith("451 4.4.1 ")
        assert answer["live"]["result"] == result


def test_lookup_where_the_downstream_is_asked(exchange, postern):
    mx = postern(exchange(), settings={"domain example.test": {"recipients": "downstream"}})
    answer = ctl_json(mx, "lookup", "anna@example.test")
    assert answer["verdict"] == "ask-downstream"
    client = mx.client()
    client.ok("MAIL FROM:<s@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    answer = ctl_json(mx, "lookup", "anna@example.test")
    assert (answer["verdict"], answer["source"]) == ("accept", "downstream")
    assert answer["reply"].startswith("250 2.1.5 ")


def test_lookup_of_a_trap(exchange, postern):
    """It says why an address that the directory has is refused."""
    mx = postern(exchange(), settings={"harvest": {"traps": "ben@example.test"}})
    answer = ctl_json(mx, "lookup", "Ben@example.test")
    assert (answer["trap"], answer["verdict"], answer["reason"]) == (True, "reject", "unknown")
    assert "trap" in ctl(mx, "lookup", "ben@example.test").stdout
    assert "trap" not in ctl_json(mx, "lookup", "anna@example.test")


def test_lookup_of_a_blocked_sender(exchange, postern):
    mx = postern(exchange(), settings={"blocked": {"senders": "@bad.example"}})
    answer = ctl_json(mx, "lookup", "anna@example.test", "x@bad.example")
    assert answer["reason"] == "blocked-sender" and answer["reply"].startswith("550 5.7.1 <x@bad")


def test_lookup_under_monitor_and_at_data(exchange, postern):
    mx = postern(exchange(), settings={"server": {"monitor": "yes"}})
    answer = ctl_json(mx, "lookup", "nobody@example.test")
    assert answer["verdict"] == "would-reject" and answer["reply"].startswith("250 ")
    mx = postern(exchange(), settings={"harvest": {"stage": "data"}})
    answer = ctl_json(mx, "lookup", "nobody@example.test")
    assert answer["reply"].startswith("250 ")
    assert answer["reply_at_data"].startswith("550 5.1.1 ")


def test_blocks(exchange, postern):
    mx = postern(exchange(), settings={"harvest": {"block_time": "1h"}})
    assert ctl(mx, "blocks").stdout == "No network is blocked.\n"
    made = ctl_json(mx, "block", NETWORK, "2h")
    assert made["remaining_s"] == 7200
    assert ctl_json(mx, "block", "2001:db8::1")["remaining_s"] == 3600
    listed = ctl_json(mx, "blocks", "list")["blocks"]
    assert [b["network"] for b in listed] == ["2001:db8::1", NETWORK]
    assert all(b["by"] == "control" and b["action"] == "block" for b in listed)
    assert 7190 <= listed[1]["remaining_s"] <= 7201
    assert listed[1]["until"] == made["until"]
    assert NETWORK in ctl(mx, "blocks").stdout
    assert mx.metrics()["postern_blocks"] == 2
    assert ctl_json(mx, "unblock", NETWORK)["ended"] == 1
    assert ctl_json(mx, "unblock", NETWORK)["ended"] == 0
    assert len(ctl_json(mx, "blocks")["blocks"]) == 1


@pytest.mark.parametrize("words", [["block", "192.0.2.1/24"], ["block", "nonsense"],
                                   ["block", NETWORK, "soon"], ["block", NETWORK, "0s"], ["block", NETWORK, "10001d"],
                                   ["unblock", "x"], ["forget", "no address"], ["blocks", "all"],
                                   ["log-level", "loud"], ["directory", "nosuch"],
                                   ["directory", "sync", "nosuch"], ["directory", "duplicates", "--force"]])
def test_the_daemon_says_no(mx, words):
    done = ctl(mx, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("posternctl: ")
    assert ctl_json(mx, *words)["ok"] is False


@pytest.fixture
def slapd(directory, certificates):
    path = os.path.join(directory, "slapd")
    os.mkdir(path)
    server = servers.Slapd(path, certificates, {"anna": ["anna@example.test", "a@example.test"]})
    yield server
    server.stop()


def ldap_settings(directory, slapd, **more):
    password = os.path.join(directory, "password")
    with open(os.open(password, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
        out.write(slapd.PASSWORD)
    return {"directory": {"type": "ad", "file": None, "uri": slapd.uri, "base": slapd.BASE,
                          "bind_dn": slapd.ROOT_DN, "bind_password_file": password,
                          "timeout": "1s", **more}}


def test_lookup_shows_the_directorys_own_words(exchange, postern, directory, slapd):
    mx = postern(exchange(), settings=ldap_settings(directory, slapd))
    mx.wait_log("directory", state="up")
    answer = ctl_json(mx, "lookup", "a@example.test")
    assert (answer["verdict"], answer["source"]) == ("accept", "ldap")
    live = answer["live"]
    assert live["result"] == "found" and live["server"] == slapd.uri
    assert live["dn"] == "cn=anna,dc=example,dc=test"
    assert "proxyAddresses: smtp:a@example.test" in live["attributes"]
    assert live["dn"] in ctl(mx, "lookup", "a@example.test").stdout
    assert ctl_json(mx, "lookup", "a@example.test")["source"] == "cache"
    assert mx.metrics()[f'postern_directory_up{{server="{slapd.uri}"}}'] == 1
    assert slapd.uri in ctl(mx, "directory").stdout


def test_i_have_just_made_the_mailbox(exchange, postern, directory, slapd):
    mx = postern(exchange(), settings=ldap_settings(directory, slapd))
    mx.wait_log("directory", state="up")
    client = mx.client()
    client.ok("MAIL FROM:<s@example.org>")
    assert client.command("RCPT TO:<new@example.test>").status == "550 5.1.1"
    slapd.add("new", ["new@example.test"])
    assert client.command("RCPT TO:<new@example.test>").status == "550 5.1.1"  # remembered
    assert ctl_json(mx, "forget", "new@example.test")["was_cached"] is True
    assert client.command("RCPT TO:<new@example.test>").status == "250 2.1.5"


def test_lookup_without_a_server(exchange, postern, directory, slapd):
    mx = postern(exchange(), settings=ldap_settings(directory, slapd))
    mx.wait_log("directory", state="up")
    slapd.stop()
    mx.wait_log("directory", state="down")
    answer = ctl_json(mx, "lookup", "a@example.test")
    assert (answer["verdict"], answer["reason"]) == ("defer", "directory")
    assert answer["reply"].startswith("451 4.4.3 ")
    assert answer["live"]["result"] == "unavailable"
    status, text = mx.get("/readyz")
    assert slapd.uri in text
    problems = json.loads(text)["problems"]
    assert {"directory"} == {p["part"] for p in problems}
    assert slapd.uri in ctl(mx, "status").stdout


def test_forget(mx):
    answer = ctl_json(mx, "forget", "Anna@example.test")
    assert answer == {"ok": True, "address": "anna@example.test", "was_cached": False,
                      "was_marked": False}


def test_remote_domains(exchange, postern):
    mx = postern(exchange(), settings={"remote_domain default": {"ndr": "unproven"},
                                       "remote_domain *.example.net": {"auto_replies": "no"}})
    rules = {d["domain"]: d for d in ctl_json(mx, "remote-domains")["remote_domains"]}
    assert rules["default"]["ndr"] == "unproven"
    assert rules["*.example.net"]["auto_replies"] == "no"
    assert "*.example.net" in ctl(mx, "remote-domains").stdout


def test_remote_domains_has_the_default_rule(mx):
    assert ctl_json(mx, "remote-domains")["remote_domains"] == [
        {"domain": "default", "ndr": "yes", "delivery_reports": "yes", "read_receipts": "yes",
         "auto_replies": "yes"}]


def test_drain(mx):
    assert ctl(mx, "drain").returncode == 0
    assert mx.wait_exit() == 0
    assert not os.path.exists(mx.socket_path)


def test_a_killed_daemons_socket_is_no_hindrance(mx):
    mx.kill(signal.SIGKILL)
    assert os.path.exists(mx.socket_path)
    mx.log = Journal("log of the second run")
    mx.start()
    assert ctl(mx, "status").returncode == 0


# top

def test_top_without_a_terminal(mx):
    done = ctl(mx, "top")
    assert done.returncode == 0 and "sessions" in done.stdout and "\033" not in done.stdout
    assert ctl_json(mx, "top")["connections"]["open"] == 0


def read_until(fd, text, so_far=b""):
    deadline = time.monotonic() + DEADLINE_S
    while text not in so_far:
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, so_far
        try:
            so_far += os.read(fd, 65536)
        except OSError as error:  # the other end is closed
            raise AssertionError(so_far) from error
    return so_far


def test_top_on_a_terminal(mx):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(POSTERNCTL, [POSTERNCTL, "-s", mx.socket_path, "top"])
    drawn = read_until(fd, b"sessions")
    assert drawn.startswith(b"\033[?1049h\033[?25l")
    client = mx.client()
    drawn = read_until(fd, b"sessions      1 of")
    os.kill(pid, signal.SIGINT)
    read_until(fd, b"\033[?25h\033[?1049l", drawn[-1:])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)
    client.quit()


def test_top_ends_with_the_daemon(mx):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(POSTERNCTL, [POSTERNCTL, "-s", mx.socket_path, "top"])
    drawn = read_until(fd, b"sessions")
    mx.stop()
    drawn = read_until(fd, b"without an answer", drawn)
    assert drawn.index(b"\033[?1049l") < drawn.index(b"without an answer")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(fd)


# The socket itself

def test_the_socket_bears_nonsense(mx):
    for octets in (b"\0\xff\n", b"{}\n", b"[1]\n", b"x" * 9000, b"{\"command\":\"\\ud800\"}\n"):
        with socket.socket(socket.AF_UNIX) as conn:
            conn.settimeout(DEADLINE_S)
            conn.connect(mx.socket_path)
            conn.sendall(octets)
            with conn.makefile("rb") as answer:
                assert json.loads(answer.readline())["ok"] is False
    assert mx.control("status")["ok"] is True


@pytest.mark.parametrize("command, args, error", [
    ("nosuch", [], "no such command: nosuch"), ("status", ["x"], "usage: status "),
    ("lookup", [], "usage: lookup ADDRESS [SENDER]"),
    ("block", [NETWORK, "1h", "x"], "usage: block NETWORK [DURATION]"),
    ("directory", ["sync", "--force", "x"], "usage: directory [status | sync [--force] | duplicates]")])
def test_the_socket_takes_what_posternctl_would(mx, command, args, error):
    assert mx.control(command, *args) == {"ok": False, "error": error}
    assert mx.control("blocks")["blocks"] == []
