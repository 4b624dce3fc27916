"""HTTP as monitoring and browsers meet it."""

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess

import pytest

from conftest import CONTENT
from harness.journal import DEADLINE_S
from harness.postern import free_port

PATHS = ["/", "/metrics", "/healthz", "/readyz", "/api/status"]


def ask(mx, method, path, **headers):
    conn = http.client.HTTPConnection(*mx.http, timeout=DEADLINE_S)
    try:
        conn.request(method, path, headers=headers)
        answer = conn.getresponse()
        return answer, answer.read()
    finally:
        conn.close()


def raw(mx, octets):
    with socket.create_connection(mx.http, DEADLINE_S) as conn:
        conn.sendall(octets)
        conn.shutdown(socket.SHUT_WR)
        got = b""
        while data := conn.recv(65536):
            got += data
        return got


@pytest.mark.parametrize("path", PATHS)
def test_only_reading(mx, path):
    answer, body = ask(mx, "GET", path)
    assert answer.status == 200 and body
    answer, body = ask(mx, "HEAD", path)
    assert answer.status == 200 and body == b"" and int(answer.headers["Content-Length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"):
        answer, _ = ask(mx, method, path)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"


def test_types(mx):
    types = [ask(mx, "GET", path)[0].headers["Content-Type"] for path in PATHS]
    assert types == ["text/html; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8",
                     "text/plain; charset=utf-8", "application/json", "application/json"]


def test_not_found(mx):
    for path in ("/nosuch", "/metrics/", "//", "/../etc/passwd", "/%2e%2e", "/Metrics"):
        assert ask(mx, "GET", path)[0].status == 404


def test_bad_requests(mx):
    assert raw(mx, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(mx, b"EHLO x\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(mx, b"GET / HTTP/1.1\r\nX: " + b"a" * 9000).startswith(b"HTTP/1.1 431 ")
    assert raw(mx, b"GET / HTTP/3.0\r\n").startswith(b"HTTP/1.1 505 ")
    assert raw(mx, b"GET /healthz HTTP/1.0\n\n").endswith(b"\r\n\r\nok\n")


def test_many_idle_clients(mx):
    """More of them than are let in: those beyond are told so, and those inside go by themselves."""
    idle = [socket.create_connection(mx.http, DEADLINE_S) for _ in range(64)]
    try:
        with socket.create_connection(mx.http, DEADLINE_S) as conn:
            assert conn.recv(65536).startswith(b"HTTP/1.1 503 ")
        idle[0].close()
        client = mx.client()
        assert client.deliver(CONTENT, "anna@example.test").code == 250
    finally:
        for conn in idle:
            conn.close()


def ticks(mx):
    """Of the processor, that the program has used."""
    with open(f"/proc/{mx.process.pid}/stat", encoding="ascii") as stat:
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))


def test_what_is_asked_all_the_time_does_not_look_through_the_ledger(mx):
    """It may be full of those who want it to be: only what lists them pays for that."""
    mx.control("log-level", "error")
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(mx.socket_path)
        with conn.makefile("rb") as answers:
            for start in range(0, 40000, 100):
                conn.sendall(b"".join(json.dumps({"command": "block", "args": [f"2001:db8:0:{n:x}::/64"]}).encode() + b"\n"
                                      for n in range(start, start + 100)))
                assert all(json.loads(answers.readline())["ok"] for _ in range(100))
    used = {}
    for path in PATHS:
        before = ticks(mx)
        for _ in range(40):
            assert ask(mx, "GET", path)[0].status == 200
        used[path] = ticks(mx) - before
    assert 4 * sum(used[path] for path in ("/healthz", "/readyz", "/metrics")) < used["/api/status"], used
    assert json.loads(ask(mx, "GET", "/api/status")[1])["block_count"] == 40000


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not there")
def test_promtool(mx):
    mx.client().deliver(CONTENT, "anna@example.test")
    text = ask(mx, "GET", "/metrics")[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                          timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_family_is_there(mx):
    families = re.findall(r"^# TYPE (\S+) (\S+)$", ask(mx, "GET", "/metrics")[1].decode(), re.M)
    assert dict(families) == {
        "postern_connections": "gauge", "postern_connections_total": "counter",
        "postern_connections_refused_total": "counter", "postern_tls_sessions_total": "counter",
        "postern_recipients_total": "counter", "postern_messages_total": "counter",
        "postern_message_bytes_total": "counter", "postern_harvests_total": "counter",
        "postern_blocks": "gauge", "postern_tarpitted": "gauge", "postern_directory_up": "gauge",
        "postern_directory_lookups_total": "counter",
        "postern_directory_lookup_seconds": "histogram", "postern_snapshot_entries": "gauge",
        "postern_snapshot_age_seconds": "gauge", "postern_downstream_up": "gauge",
        "postern_downstream_connections": "gauge", "postern_delivery_seconds": "histogram",
        "postern_drift_total": "counter", "postern_ledger_up": "gauge",
        "postern_log_dropped_total": "counter", "postern_build_info": "gauge"}


def test_lookups_are_counted(mx):
    mx.client().deliver(CONTENT, "anna@example.test")
    metrics = mx.metrics()
    assert metrics['postern_directory_lookups_total{source="file",result="found"}'] == 1
    assert metrics["postern_directory_lookup_seconds_count"] == 1
    assert metrics['postern_connections_refused_total{reason="limit"}'] == 0


def test_tls_is_counted_on_both_legs(exchange, postern, certificates):
    downstream = exchange(tls=certificates.server_context(certificates.exchange))
    mx = postern(downstream, settings={
        "downstream exchange": {"tls": "required"},
        "tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    before = mx.metrics()
    client = mx.client()
    client.starttls(certificates.client_context())
    client.ehlo()
    assert client.deliver(CONTENT, "anna@example.test").code == 250
    after = mx.metrics()
    for leg in ("in", "out"):
        name = f'postern_tls_sessions_total{{leg="{leg}",version="TLSv1.3"}}'
        assert after[name] == before[name] + 1, leg


def test_harvests_are_counted(exchange, postern):
    mx = postern(exchange(), settings={"harvest": {"allow": "", "threshold": 3, "block_private": "yes",
                                                   "message_threshold": 0}})
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    for name in "xyz":
        client.command(f"RCPT TO:<{name}@example.test>")
    mx.wait_log("harvest", action="block")
    metrics = mx.metrics()
    assert metrics['postern_harvests_total{action="block"}'] == 1
    assert metrics["postern_blocks"] == 1
    clients = {c["network"]: c for c in json.loads(mx.get("/api/status")[1])["clients"]}
    assert clients["127.0.0.1"]["unknown"] == clients["127.0.0.0/24"]["unknown"] == 3
    assert clients["127.0.0.1"]["action"] == "block" and clients["127.0.0.1"]["until"]
    mx.client(ehlo=False)
    assert mx.metrics()['postern_connections_refused_total{reason="harvest"}'] == 1


def test_the_page_is_whole(mx):
    """Its policy lets nothing in but its own style sheet, and it needs nothing else."""
    answer, body = ask(mx, "GET", "/")
    text = body.decode()
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy and "script-src" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for word in ("<script", "src=", "@import", "url(", "style=", "http://", "https://", "<form"):
        assert word not in text, word
    assert "mx.example.test" in text and mx.exchange.host in text


def test_the_page_shows_what_came(exchange, postern):
    mx = postern(exchange(), settings={"harvest": {"allow": ""}})
    client = mx.client()
    client.deliver(CONTENT, "anna@example.test")
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<nobody@example.test>").code == 550
    assert mx.control("block", "192.0.2.0/24")["ok"]
    text = mx.get("/")[1]
    for shown in ("1 accepted", "1 refused", "0 deferred", "192.0.2.0/24", "127.0.0.1",
                  "User unknown"):
        assert shown in text, shown
    history = json.loads(mx.get("/api/status")[1])["history"]
    assert sum(history["hour"]["accepted"]) == 1 and sum(history["day"]["refused"]) == 1
    assert len(history["hour"]["deferred"]) == 60 and len(history["day"]["deferred"]) == 96


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not there")
@pytest.mark.parametrize("size", ["1200,1600", "390,2400"])
def test_a_browser_is_content(mx, directory, size):
    """It draws the page, and its console is silent: the page's own policy forbids nothing of it."""
    picture = f"{directory}/page.png"
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--enable-logging=stderr", f"--user-data-dir={directory}/browser",
         f"--window-size={size}", f"--screenshot={picture}", "http://%s:%d/" % mx.http],
        capture_output=True, timeout=60, text=True, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert os.path.getsize(picture) > 20000


def test_hostile_names_stay_text(mx):
    """What a stranger sent never becomes markup."""
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    client.command('RCPT TO:<"<script>alert(1)</script>"@example.test>')
    assert "<script" not in mx.get("/")[1]


def test_listen_changes_by_reload(mx):
    before = mx.http
    mx.http = (before[0], free_port())
    mx.write_config({"http": {"listen": "%s:%d, %s:%d" % (*before, *mx.http)}})
    mx.reload()
    assert mx.get("/healthz")[0] == 200
    mx.write_config({"http": {"listen": "%s:%d" % mx.http}})
    mx.reload()
    assert mx.get("/healthz")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(before, DEADLINE_S)


def test_listen_widens_by_reload(mx):
    """And what was in the way of it is there again if it comes to nothing."""
    port = mx.http[1]
    for host in ("0.0.0.0", "127.0.0.1"):
        mx.write_config({"http": {"listen": f"{host}:{port}"}})
        mx.reload()
        assert mx.get("/healthz")[0] == 200
    with socket.create_server(("127.0.0.2", port)):
        mx.write_config({"http": {"listen": f"0.0.0.0:{port}"}})
        assert "in use" in mx.reload(state="rejected")["error"]
        assert mx.get("/healthz")[0] == 200
    mx.write_recipients(["no address"])
    mx.reload(state="rejected")
    assert mx.get("/healthz")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), DEADLINE_S)
