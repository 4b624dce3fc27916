"""What TLS is spoken by default: versions, ciphers, groups, and the tickets of sessions."""

import ssl
import subprocess

import pytest

from conftest import CONTENT
from harness.journal import DEADLINE_S


@pytest.fixture
def mx(exchange, postern, certificates):
    return postern(exchange(), settings={
        "server": {"workers": 2},
        "tls": {"certificate": certificates.mx.certificate, "key": certificates.mx.key}})


def ask(mx, *options, words="QUIT\r\n"):
    """What OpenSSL's own client says of the connection."""
    done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", "%s:%d" % mx.address,
                           *options], input=words, capture_output=True, text=True,
                          timeout=DEADLINE_S, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_key_exchange_is_x25519_where_both_can(mx, version):
    status, text = ask(mx, version)
    assert status == 0 and "Server Temp Key: X25519" in text, text


@pytest.mark.parametrize("ciphers, agreed", [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
    ("ECDHE-ECDSA-AES256-SHA384", True),  # Windows before 2016
    ("ECDHE-ECDSA-AES128-SHA", False), ("ALL:!ECDHE:!DHE:@SECLEVEL=0", False), ("aNULL:@SECLEVEL=0", False),
    ("PSK:@SECLEVEL=0", False)])
def test_ciphers_of_tls_1_2(mx, ciphers, agreed):
    status, text = ask(mx, "-tls1_2", "-cipher", ciphers)
    assert (status == 0 and "Cipher is (NONE)" not in text) == agreed, text


def test_renegotiation_is_refused(mx):
    status, text = ask(mx, "-tls1_2", words="R\n")
    assert status != 0 and "RENEGOTIATING" in text, text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tickets_serve_all_workers_and_outlive_a_reload(mx, certificates, version):
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    session = None
    for turn in range(8):
        client = mx.client()
        assert client.command("STARTTLS").code == 220
        client.socket = context.wrap_socket(client.socket, server_hostname="mx.example.test", session=session)
        client.ehlo()  # in TLS 1.3 the ticket comes behind the handshake
        assert client.socket.session_reused == (session is not None), turn
        session = client.socket.session
        if turn == 4:
            mx.reload()
        assert client.deliver(CONTENT, "anna@example.test").code == 250
        client.quit()


def test_half_a_handshake_takes_nobody_elses_turn(mx, certificates):
    waiting = [mx.client() for _ in range(20)]
    for client in waiting:
        assert client.command("STARTTLS").code == 220
        client.send(b"\x16\x03\x01\x02\x00\x01")  # a record that does not go on
    client = mx.client()
    client.starttls(certificates.client_context())
    client.ehlo()
    assert client.deliver(CONTENT, "ben@example.test").status == "250 2.6.0"
