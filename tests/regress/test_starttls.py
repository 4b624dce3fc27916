"""TLS of the inbound leg (RFC 3207)."""

import socket
import ssl

import pytest

from conftest import CONTENT


def tls(*certificates, **changes):
    return {"tls": {"certificate": ", ".join(c.certificate for c in certificates),
                    "key": ", ".join(c.key for c in certificates), **changes}}


@pytest.fixture
def mx(exchange, postern, certificates):
    downstream = exchange()
    one = postern(downstream, settings=tls(certificates.mx, certificates.other))
    one.exchange = downstream
    return one


def test_session_over_tls(mx, certificates):
    client = mx.client()
    assert "STARTTLS" in client.offered
    client.starttls(certificates.client_context())
    assert "STARTTLS" not in client.ehlo()
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"
    client.quit()
    message = mx.exchange.delivered[0]
    assert message.without_trace() == CONTENT
    assert b"with ESMTPS" in message.content
    event = mx.wait_log("tls", leg="in")
    assert event["version"] == "TLSv1.3" and event["cipher"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(mx, certificates, version):
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    client = mx.client()
    client.starttls(context)
    client.ehlo()
    assert client.socket.version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(mx, certificates):
    context = certificates.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    client = mx.client()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.starttls(context)


def test_min_version(exchange, postern, certificates):
    mx = postern(exchange(), settings=tls(certificates.mx, min_version="1.3"))
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mx.client().starttls(context)
    client = mx.client()
    client.starttls(certificates.client_context())
    assert client.socket.version() == "TLSv1.3"


@pytest.mark.parametrize("name, chosen", [("mx.example.test", "mx"), ("mx.example.org", "other")])
def test_sni_chooses_the_certificate(mx, certificates, name, chosen):
    client = mx.client()
    client.starttls(certificates.client_context(), name)
    with open(getattr(certificates, chosen).certificate, encoding="ascii") as pem:
        assert client.socket.getpeercert(True) == ssl.PEM_cert_to_DER_cert(pem.read())


@pytest.mark.parametrize("name", [None, "unknown.example.net"])
def test_first_certificate_without_a_known_name(mx, certificates, name):
    context = certificates.client_context()
    context.check_hostname = False
    client = mx.client()
    client.starttls(context, name)
    with open(certificates.mx.certificate, encoding="ascii") as pem:
        assert client.socket.getpeercert(True) == ssl.PEM_cert_to_DER_cert(pem.read())


def test_required(exchange, postern, certificates):
    mx = postern(exchange(), settings=tls(certificates.mx, mode="required"))
    client = mx.client()
    for command in ("MAIL FROM:<a@example.org>", "RCPT TO:<anna@example.test>", "DATA", "VRFY anna", "RSET"):
        assert client.command(command).status == "530 5.7.0", command
    assert client.command("NOOP").status == "250 2.0.0"
    client.starttls(certificates.client_context())
    client.ehlo()
    assert client.deliver(CONTENT, "anna@example.test").status == "250 2.6.0"


def test_bdat_where_tls_is_required(exchange, postern, certificates):
    """In the clear it is refused, and its octets are no commands."""
    client = postern(exchange(), settings=tls(certificates.mx, mode="required")).client()
    client.send(b"BDAT 6 LAST\r\nQUIT\r\nBDAT 0\r\n")
    assert [client.reply().status for _ in range(2)] == ["530 5.7.0"] * 2
    assert client.command("NOOP").code == 250


def test_off(exchange, postern, certificates):
    client = postern(exchange(), settings=tls(certificates.mx, mode="off")).client()
    assert "STARTTLS" not in client.offered
    assert client.command("STARTTLS").code in (454, 500, 502, 503)
    assert client.command("NOOP").code == 250


def test_injection(mx):
    """What is pipelined behind STARTTLS would be taken for the protected session's: it ends the session."""
    client = mx.client()
    client.send("STARTTLS\r\nMAIL FROM:<a@example.org>\r\n")
    assert client.reply().status == "554 5.5.0"
    client.ended()


def test_tls_forgets_what_was_before(mx, certificates):
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    assert client.command("STARTTLS").status == "503 5.5.1"
    client.ok("RSET")
    client.starttls(certificates.client_context())
    assert client.command("MAIL FROM:<a@example.org>").status == "503 5.5.1"
    client.ehlo()
    assert client.command("STARTTLS").status == "503 5.5.1"


def test_starttls_takes_no_argument(mx):
    client = mx.client()
    assert client.command("STARTTLS now").status == "501 5.5.4"
    assert client.command("NOOP").code == 250


def test_failed_handshake_ends_the_session(mx):
    client = mx.client()
    assert client.command("STARTTLS").code == 220
    client.send("this is no handshake\r\n" * 10)
    while client.socket.recv(4096):  # an alert may come
        pass
    assert mx.wait_log("close")["reason"] == "tls-failed"
    assert mx.events("tls", leg="in", verified="no")[0]["error"] == "wrong version number"


def test_a_client_that_does_not_like_our_certificate_says_so(mx):
    client = mx.client()
    with pytest.raises(ssl.SSLError):
        client.starttls(ssl.create_default_context())
    assert "unknown ca" in mx.wait_log("tls", leg="in")["error"]


def test_truncated_tls_never_ends_a_message(mx, certificates):
    client = mx.client()
    client.starttls(certificates.client_context())
    client.ehlo()
    client.envelope("a@example.org", "anna@example.test")
    assert client.command("DATA").code == 354
    client.send(CONTENT)
    client.socket.shutdown(socket.SHUT_RDWR)  # without close_notify
    client.close()
    mx.wait_log("close")
    assert not mx.exchange.transactions()


def test_large_message_over_tls_in_small_pieces(mx, certificates):
    content = CONTENT + b"x" * 70 + b"\r\n"
    content += (b"0123456789" * 7 + b"\r\n") * 30000
    client = mx.client()
    client.starttls(certificates.client_context())
    client.ehlo()
    client.envelope("a@example.org", "anna@example.test")
    assert client.command("DATA").code == 354
    octets = content + b".\r\n"
    for at in range(0, len(octets), 5003):
        client.send(octets[at:at + 5003])
    assert client.reply().status == "250 2.6.0"
    assert mx.exchange.delivered[0].without_trace() == content


def test_pipelining_over_tls(mx, certificates):
    client = mx.client()
    client.starttls(certificates.client_context())
    client.ehlo()
    replies = client.pipeline("MAIL FROM:<>", "RCPT TO:<x@example.test>", "RCPT TO:<anna@example.test>", "RSET", "QUIT")
    assert [r.code for r in replies] == [250, 550, 250, 250, 221]
    client.ended()
