"""SIGHUP: configuration, certificates and file directories anew, and no session is dropped."""

import os
import shutil
import socket
import ssl

import pytest

from conftest import CONTENT
from harness import servers
from harness.postern import free_port


def test_file_directory(mx):
    client = mx.client()
    client.ok("MAIL FROM:<a@example.org>")
    client.ok("RCPT TO:<anna@example.test>")
    assert client.command("RCPT TO:<zoe@example.test>").code == 550
    mx.write_recipients(["zoe@example.test"])
    assert client.command("RCPT TO:<zoe@example.test>").code == 550  # not before it is told
    mx.reload()
    # The session, and its transaction, go on.
    assert client.data(CONTENT).status == "250 2.6.0"
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<zoe@example.test>").status == "250 2.1.5"
    assert client.command("RCPT TO:<ben@example.test>").status == "550 5.1.1"
    assert client.data(CONTENT).status == "250 2.6.0"
    assert [m.addresses for m in mx.exchange.delivered] == [["anna@example.test"], ["zoe@example.test"]]


def test_settings(mx, exchange):
    second = exchange()
    client = mx.client()
    mx.write_config({"domain example.org": {"downstream": "exchange", "recipients": "any"},
                     "downstream exchange": {"hosts": second.host}})
    mx.reload()
    mx.wait_log("downstream", state="up", host=second.host)
    client.ok("MAIL FROM:<a@example.org>")
    assert client.command("RCPT TO:<new@example.org>").status == "250 2.1.5"
    assert client.data(CONTENT).status == "250 2.6.0"
    assert len(second.delivered) == 1 and not mx.exchange.delivered


def test_a_host_more_and_what_is_known_of_the_others(mx, exchange):
    """Also when none of them can be asked again."""
    offered, spare = mx.client().offered, exchange()
    for host in mx.exchange, spare:
        host.stop_listening()
    mx.write_config({"downstream exchange": {"hosts": f"{mx.exchange.host} weight=2, {spare.host} weight=0"}})
    mx.reload()
    assert mx.client().offered == offered
    mx.wait_log("downstream", state="down", host=mx.exchange.host)
    mx.write_config({"downstream exchange": {"hosts": mx.exchange.host, "health_interval": "50ms"}})
    mx.reload()
    client = mx.client()
    assert client.offered == offered
    assert client.command("MAIL FROM:<a@example.org>").status == "451 4.4.1"
    since = len(mx.log)
    mx.exchange.listen_again()
    mx.wait_log("downstream", state="up", host=mx.exchange.host, since=since)
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


@pytest.mark.parametrize("change", [
    {"server": {"no_such_key": "1"}}, {"server": {"max_hops": "many"}}, {"directory": {"file": "/nonexistent/file"}},
    {"domain example.test": {"downstream": "nowhere"}}], ids=["key", "value", "file", "name"])
def test_fault_changes_nothing(mx, change):
    before = mx.settings
    mx.write_config(change)
    event = mx.reload(state="rejected")
    assert event["file"].startswith(mx.config_path) or event["error"]
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    mx.settings = before
    mx.write_config()
    mx.reload()
    assert mx.client().deliver(CONTENT, "ben@example.test").status == "250 2.6.0"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "device"])
@pytest.mark.parametrize("which", ["config_path", "recipients_path"])
def test_a_file_without_an_end_keeps_nobody_waiting(mx, which, make):
    path = getattr(mx, which)
    shutil.move(path, path + ".kept")
    make(path)
    mx.reload(state="rejected")
    assert mx.control("status")["ok"]
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    shutil.move(path + ".kept", path)
    mx.reload()


def test_part_that_fails_takes_the_others_back(mx):
    """Whatever of the new settings could be used is not, if some could not: here an address that is taken."""
    before, http = mx.settings, mx.http
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mx.write_config({"http": {"listen": "127.0.0.1:%d" % taken.getsockname()[1]},
                         "directory": {"file": servers.write(mx.directory, "others", "zoe@example.test\n")}})
        assert "in use" in mx.reload(state="rejected")["error"]
    assert mx.rcpt("anna@example.test").status == "250 2.1.5"
    assert mx.rcpt("zoe@example.test").status == "550 5.1.1"
    # The other way round: the new address is there, the file is none.
    mx.settings = before
    mx.write_config({"http": {"listen": "127.0.0.1:%d" % free_port()},
                     "directory": {"file": servers.write(mx.directory, "broken", "a b\n")}})
    mx.reload(state="rejected")
    assert mx.http == http and mx.get("/healthz")[0] == 200
    assert mx.rcpt("anna@example.test").status == "250 2.1.5"


def test_way_back_needs_no_file(exchange, postern, certificates, directory):
    """Not even one of the old settings that is gone meanwhile: what probes the hosts goes on."""
    downstream = exchange(tls=certificates.server_context(certificates.exchange))
    ca = shutil.copy(certificates.ca.certificate, directory + "/ca.crt")
    mx = postern(downstream, settings={"downstream exchange": {
        "tls": "verify", "ca_file": ca, "server_name": "localhost", "health_interval": "100ms"}})
    os.unlink(ca)
    mx.write_config({"downstream exchange": {"hosts": exchange().host, "ca_file": certificates.ca.certificate},
                     "directory": {"file": servers.write(mx.directory, "broken", "a b\n")}})
    assert "broken" in mx.reload(state="rejected")["error"]
    downstream.stop_listening()
    downstream.drop_all()
    mx.wait_log("downstream", state="down", host=downstream.host)
    since = len(mx.log)
    downstream.listen_again()
    mx.wait_log("downstream", state="up", host=downstream.host, since=since)
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_what_cannot_change_stays(mx):
    for key, value in [("listen", f"127.0.0.1:{free_port()}"), ("workers", 2), ("state_dir", mx.directory + "/other")]:
        since = len(mx.log)
        mx.write_config({"server": {key: value}})
        mx.reload()
        assert any(key in e.text for e in list(mx.log)[since:]), f"no word of {key}"
        assert mx.client().command("NOOP").code == 250


def test_snapshot_needs_a_state_dir_in_force(exchange, postern):
    """One that the file has only now comes with the next start."""
    mx = postern(exchange(), settings={"server": {"state_dir": ""}})
    mx.write_config({"server": {"state_dir": mx.directory + "/state"}, "directory": {
        "type": "ldap", "file": None, "uri": f"ldap://127.0.0.1:{free_port()}", "base": "dc=test", "mode": "snapshot"}})
    event = mx.reload(state="rejected")
    assert event["error"] == "mode = snapshot needs a state_dir, which needs a restart"
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_without_a_hostname_the_name_in_force_stays(mx):
    """The machine's own is not looked up, for which the loop that answers for health would stand still."""
    mx.write_config({"server": {"hostname": None}})
    for _ in range(2):
        assert mx.reload()["error"] == "stays as it was until a restart: server.hostname"
    assert str(mx.client().greeting) == "220 mx.example.test ESMTP Postern"


def subject(client):
    return dict(pair[0] for pair in client.socket.getpeercert()["subject"])["commonName"]


def test_certificates(exchange, postern, certificates, directory):
    shown = {key: directory + "/shown." + key for key in ("crt", "key")}

    def show(certificate):
        shutil.copy(certificate.certificate, shown["crt"])
        shutil.copy(certificate.key, shown["key"])
    show(certificates.mx)
    mx = postern(exchange(), settings={"tls": {"certificate": shown["crt"], "key": shown["key"]}})
    before = mx.client()
    before.starttls(certificates.client_context())
    show(certificates.other)
    mx.reload()
    after = mx.client()
    after.starttls(certificates.client_context(), "mx.example.org")
    assert subject(after) == "mx.example.org"
    before.ehlo()
    assert before.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_one_certificate_more(exchange, postern, certificates):
    """The first stays that of those who name none; the new one is chosen by its name."""
    mx = postern(exchange(), settings={"tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})
    mx.write_config({"tls": {"certificate": f"{certificates.mx.certificate}, {certificates.other.certificate}",
                             "key": f"{certificates.mx.key}, {certificates.other.key}"}})
    mx.reload()
    context = certificates.client_context()
    context.check_hostname = False
    for name, shown in (None, "mx.example.test"), ("mx.example.test",) * 2, ("mx.example.org",) * 2:
        client = mx.client()
        client.starttls(context, name)
        assert subject(client) == shown


def test_broken_certificate_changes_nothing(exchange, postern, certificates, directory):
    certificate = directory + "/mx.crt"
    shutil.copy(certificates.mx.certificate, certificate)
    mx = postern(exchange(), settings={"tls": {"certificate": certificate, "key": certificates.mx.key}})
    with open(certificate, "w", encoding="ascii") as out:
        out.write("none\n")
    mx.reload(state="rejected")
    client = mx.client()
    client.starttls(certificates.client_context())
    with open(certificates.mx.certificate, encoding="ascii") as pem:
        assert client.socket.getpeercert(True) == ssl.PEM_cert_to_DER_cert(pem.read())


@pytest.mark.parametrize("key", ["ca_file", "client_certificate", "client_key"])
def test_broken_file_for_a_downstream_is_named(mx, certificates, directory, key):
    with open(os.open(directory + "/broken", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
        out.write("none\n")
    mx.write_config({"downstream exchange": {
        "tls": "verify", "ca_file": certificates.ca.certificate, "client_certificate": certificates.client.certificate,
        "client_key": certificates.client.key, key: directory + "/broken"}})
    event = mx.reload(state="rejected")
    assert directory + "/broken" in event["error"] and "\n" not in event["error"], event
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_many_reloads_under_traffic(mx):
    client = mx.client()
    for n in range(10):
        client.ok(f"MAIL FROM:<a{n}@example.org>")
        mx.reload()
        client.ok("RCPT TO:<anna@example.test>")
        assert client.data(CONTENT).status == "250 2.6.0"
    assert len(mx.exchange.delivered) == 10
