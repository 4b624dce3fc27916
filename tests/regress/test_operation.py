"""What monitoring and the administrator ask: HTTP, the control socket, and whether the counts add up."""

import json
import os
import stat

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness import servers
from harness.postern import free_port


def test_health(mx):
    assert mx.get("/healthz")[0] == 200
    status, text = mx.get("/readyz")
    assert status == 200
    json.loads(text)
    assert mx.get("/nosuch")[0] == 404


def test_not_ready_without_a_downstream(exchange, postern):
    downstream = exchange()
    downstream.stop_listening()
    mx = postern(downstream, wait_downstream=False)
    assert mx.wait_log("downstream", state="down")["error"] == "cannot connect: Connection refused"
    status, text = mx.get("/readyz")
    assert status == 503
    assert downstream.host in text
    assert mx.get("/healthz")[0] == 200


def test_metrics_add_up(mx):
    client = mx.client()
    assert client.deliver(CONTENT, "anna@example.test", "ben@example.test").code == 250
    client.ok("MAIL FROM:<a@example.org>")
    for address in ("x@example.test", "y@example.test", "anna@example.org"):
        assert client.command(f"RCPT TO:<{address}>").code == 550
    client.ok("RSET")
    for given in ("550 5.7.1 no", "450 4.2.1 later"):
        mx.exchange.on("EOD", faults.reply(given))
        client.deliver(CONTENT + given.encode(), "anna@example.test")
    client.quit()
    mx.wait_log("close")
    metrics = mx.metrics()
    assert metrics["postern_connections"] == 0
    assert metrics["postern_connections_total"] == 1
    assert metrics['postern_messages_total{status="delivered"}'] == 1
    assert metrics['postern_messages_total{status="refused"}'] == 1
    assert metrics['postern_messages_total{status="deferred"}'] == 1
    verdicts = {"accept": 0, "reject": 0, "defer": 0}
    for name, value in metrics.items():
        if name.startswith("postern_recipients_total{"):
            for verdict in verdicts:
                if f'verdict="{verdict}"' in name:
                    verdicts[verdict] += value
    assert verdicts == {"accept": 4, "reject": 3, "defer": 0}
    assert metrics[f'postern_downstream_up{{downstream="exchange",host="{mx.exchange.host}"}}'] == 1
    assert metrics["postern_delivery_seconds_count"] >= 1
    assert metrics["postern_log_dropped_total"] == 0
    assert any(name.startswith("postern_build_info{version=") for name in metrics)


def test_control_socket(mx):
    assert stat.S_IMODE(os.stat(mx.socket_path).st_mode) == 0o600
    assert mx.control("status")["ok"] is True
    answer = mx.control("nosuch")
    assert answer["ok"] is False and answer["error"]
    assert mx.control("lookup", "anna@example.test")["ok"] is True


def test_lookup_says_what_rcpt_would(mx):
    for address, status in [("anna@example.test", "250 2.1.5"), ("x@example.test", "550 5.1.1"),
                            ("a@example.org", "550 5.7.1")]:
        assert status in json.dumps(mx.control("lookup", address)), address
    assert not mx.exchange.transactions()
    assert mx.metrics()["postern_connections_total"] == 0


def test_block_and_unblock(exchange, postern):
    mx = postern(exchange(), settings={"harvest": {"allow": ""}})
    assert mx.control("block", "127.0.0.10", "1h")["ok"] is True
    mx.wait_log("block", client="127.0.0.10", by="control")
    assert mx.client(source="127.0.0.10", ehlo=False).greeting.status == "421 4.7.0"
    assert "127.0.0.10" in json.dumps(mx.control("blocks"))
    assert mx.control("unblock", "127.0.0.10")["ok"] is True
    mx.wait_log("unblock", client="127.0.0.10", by="control")
    assert mx.client(source="127.0.0.10").greeting.code == 220


def test_reload_and_drain_by_control(mx):
    assert mx.control("reload")["ok"] is True
    mx.write_config({"server": {"nosuch": "1"}})
    answer = mx.control("reload")
    assert answer["ok"] is False and "nosuch" in answer["error"]
    assert mx.control("drain")["ok"] is True
    assert mx.wait_exit() == 0


def test_log_level(mx):
    assert mx.control("log-level", "error")["ok"] is True
    since = len(mx.log)
    mx.client().deliver(CONTENT, "anna@example.test")
    assert mx.control("log-level", "info")["ok"] is True
    mx.client().deliver(CONTENT, "ben@example.test")
    mx.wait_log("rcpt", to="<ben@example.test>", since=since)
    assert not [e for e in list(mx.log)[since:] if e.get("to") == "<anna@example.test>"]
    assert mx.control("log-level", "loud")["ok"] is False


@pytest.fixture
def unprivileged(exchange, postern, directory):
    """One that was root until all was bound: it may write neither beside the control socket nor to ports below 1024."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.chmod(directory, 0o711)
    downstream = exchange()
    mx = postern(downstream, run=False, settings={
        "server": {"user": "nobody"}, "http": {"listen": "127.0.0.88:825"},
        "downstream exchange": {"health_interval": "100ms"}})
    mx.exchange = downstream
    mx.http = ("127.0.0.88", 825)
    os.chmod(mx.directory, 0o711)
    os.chmod(mx.recipients_path, 0o644)
    return mx.start()


def test_what_only_root_could_bind(unprivileged):
    mx = unprivileged
    assert mx.get("/healthz")[0] == 200
    with open(f"/proc/{mx.process.pid}/status", encoding="ascii") as file:
        assert "Uid:\t65534\t65534\t65534\t65534\n" in file.readlines()
    found = os.stat(mx.socket_path)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 65534)
    assert mx.control("status")["ok"] is True
    assert mx.client().deliver(CONTENT, "anna@example.test").code == 250


def test_rejected_reload_takes_nothing_away_that_only_root_could_bind(unprivileged, exchange):
    """Neither of its HTTP, nor, as the way back ends there, of the probes."""
    mx, before = unprivileged, unprivileged.settings
    broken = servers.write(mx.directory, "broken", "a b\n")
    os.chmod(broken, 0o644)
    mx.write_config({"http": {"listen": f"127.0.0.1:{free_port()}"}, "directory": {"file": broken},
                     "downstream exchange": {"hosts": exchange().host}})
    assert "broken" in mx.reload(state="rejected")["error"]
    assert mx.get("/healthz")[0] == 200
    mx.settings = before
    mx.write_config({"http": {"listen": "0.0.0.0:825"}})
    assert "Permission denied" in mx.reload(state="rejected")["error"]
    assert mx.get("/healthz")[0] == 200
    mx.exchange.stop_listening()
    mx.exchange.drop_all()
    mx.wait_log("downstream", state="down", host=mx.exchange.host)
    since = len(mx.log)
    mx.exchange.listen_again()
    mx.wait_log("downstream", state="up", host=mx.exchange.host, since=since)
    assert mx.client().deliver(CONTENT, "anna@example.test").code == 250
