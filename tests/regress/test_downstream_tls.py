"""TLS towards the downstream: what is configured is what happens, or the message waits with its sender."""

import socket
import ssl

import pytest

from conftest import CONTENT
from harness import exchange as faults
from harness.exchange import CAPABILITIES


@pytest.fixture
def pair(exchange, postern, certificates):
    """A Postern with MODE and further keys towards an Exchange with CERTIFICATE (None: no STARTTLS)."""
    def start(mode, certificate="exchange", up=True, server=None, fault=None, without=(), **keys):
        context = certificate and certificates.server_context(
            getattr(certificates, certificate), **(server or {}))
        downstream = exchange(capabilities=[c for c in CAPABILITIES if c not in without], tls=context)
        if fault:
            downstream.on("STARTTLS", fault)
        one = postern(downstream, settings={"downstream exchange": {"tls": mode, **keys}}, wait_downstream=up)
        one.exchange = downstream
        return one
    return start


def delivered_over(mx):
    reply = mx.client().deliver(CONTENT, "anna@example.test")
    assert reply.status == "250 2.6.0", reply
    return mx.exchange.delivered[0].connection.tls


def is_deferred(mx):
    """At the end of the message: a host whose TLS is not as configured is there, and not down."""
    reply = mx.client().deliver(CONTENT, "anna@example.test")
    assert reply.status == "451 4.7.5", reply
    assert not mx.exchange.received


def test_off(pair):
    assert delivered_over(pair("off")) is None


def test_opportunistic(pair):
    assert delivered_over(pair("opportunistic", "stranger"))


def test_opportunistic_without_starttls(pair):
    assert delivered_over(pair("opportunistic", None)) is None


@pytest.mark.parametrize("fault", [
    faults.reply("454 4.7.0 TLS not available"), faults.reply("500 5.3.3 Unrecognized command"),
    faults.drop(), faults.reply_and_drop("220 2.0.0 ready"),
    faults.reply_and_drop("220 2.0.0 ready\r\nthis is no handshake")],
    ids=["454", "500", "cut", "dropped", "garbage"])
def test_opportunistic_falls_back(pair, fault):
    mx = pair("opportunistic", fault=fault)
    assert delivered_over(mx) is None
    assert mx.wait_log("tls", leg="out")["error"]


def test_required(pair):
    mx = pair("required", "stranger")
    assert delivered_over(mx)
    event = mx.wait_log("tls", leg="out")
    assert event["version"].startswith("TLSv1.") and event["verified"] == "no"


def test_required_without_starttls(pair):
    mx = pair("required", None, up=False)
    is_deferred(mx)
    assert mx.wait_log("downstream", state="degraded")["error"].endswith(": STARTTLS is not offered")


def test_probes_do_not_fill_the_log(pair):
    """At the default level: TLS of a message is told, of the probe every few seconds it is not."""
    mx = pair("required")
    assert delivered_over(mx)
    assert mx.wait_log("tls", leg="out")["session"] != "-"


@pytest.mark.parametrize("fault", [
    faults.reply("454 4.7.0 TLS not available"), faults.reply_and_drop("220 2.0.0 ready")], ids=["454", "dropped"])
def test_required_never_falls_back(pair, fault):
    is_deferred(pair("required", up=False, fault=fault))


def test_tls_lost_while_running(pair):
    """A host that was good and now has no TLS: told at the end of the message."""
    mx = pair("required")
    mx.exchange.tls = None
    mx.exchange.drop_all()
    client = mx.client()
    reply = client.deliver(CONTENT, "anna@example.test")
    assert reply.status == "451 4.7.5"
    assert not mx.exchange.received


def test_verify(pair, certificates):
    mx = pair("verify", ca_file=certificates.ca.certificate)
    assert delivered_over(mx)  # 127.0.0.1 is among the names of the certificate
    assert mx.wait_log("tls", leg="out")["verified"] == "yes"


def test_verify_server_name(pair, certificates):
    assert delivered_over(pair("verify", ca_file=certificates.ca.certificate, server_name="ex2.example.test"))


@pytest.mark.parametrize("certificate, keys, why", [
    ("exchange", {"server_name": "ex3.example.test"}, "hostname mismatch"),
    ("stranger", {}, "self-signed certificate"),
    ("mx", {}, "IP address mismatch"),
], ids=["name", "authority", "name of another"])
def test_verify_fails(pair, certificates, certificate, keys, why):
    """And the administrator is told what is wrong with the certificate."""
    mx = pair("verify", certificate, up=False, ca_file=certificates.ca.certificate, **keys)
    is_deferred(mx)
    assert mx.wait_log("tls", leg="out")["error"] == why
    assert mx.wait_log("downstream", state="degraded")["error"] == f"TLS is not as configured: {why}"


def test_verify_by_the_system_s_authorities(pair):
    is_deferred(pair("verify", up=False))


@pytest.mark.parametrize("form", ["plain", "upper", "colons"])
def test_fingerprint(pair, certificates, form):
    value = certificates.stranger.fingerprint
    if form == "upper":
        value = value.upper()
    if form == "colons":
        value = ":".join(value[at:at + 2].upper() for at in range(0, 64, 2))
    assert delivered_over(pair("verify", "stranger", fingerprint=value))


def test_wrong_fingerprint(pair, certificates):
    is_deferred(pair("verify", up=False, ca_file=certificates.ca.certificate,
                     fingerprint=certificates.stranger.fingerprint))


def test_client_certificate(pair, certificates):
    own = certificates.client
    mx = pair("required", server={"require_client": True},
              client_certificate=own.certificate, client_key=own.key)
    _, peer = delivered_over(mx)
    assert peer is not None


def test_client_certificate_is_missing(pair):
    is_deferred(pair("required", up=False, server={"require_client": True}))


def test_octets_behind_the_220_are_not_believed(pair):
    """The reply to EHLO, smuggled in before the handshake by somebody in between."""
    is_deferred(pair("required", up=False, fault=faults.reply("220 2.0.0 ready\r\n250-evil\r\n250 SIZE 1")))


def test_ehlo_is_said_again(pair):
    mx = pair("required")
    assert delivered_over(mx)
    verbs = [c.verb for c in mx.exchange.delivered[0].connection.commands]
    assert verbs[:3] == ["EHLO", "STARTTLS", "EHLO"]
    assert not any(c.early for c in mx.exchange.connections)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("certificate, keys", [
    ("exchange", {"mode": "verify", "ca_file": True}), ("stranger", {"mode": "verify", "fingerprint": True}),
    ("stranger", {"mode": "required"})], ids=["verified", "fingerprint", "unverified"])
def test_a_session_is_resumed(pair, certificates, certificate, keys, version):
    """Each message needs a connection of its own; the handshakes after the first are short."""
    keys = dict(keys)
    mode = keys.pop("mode")
    if "ca_file" in keys:
        keys["ca_file"] = certificates.ca.certificate
    if "fingerprint" in keys:
        keys["fingerprint"] = certificates.stranger.fingerprint
    mx = pair(mode, certificate, connection_messages=1, **keys)
    mx.exchange.tls.maximum_version = version
    for number in range(4):
        assert mx.client().deliver(CONTENT + b"%d\r\n" % number, "anna@example.test").status == "250 2.6.0"
    used = [message.connection for message in mx.exchange.delivered]
    assert all(one.tls for one in used)
    assert [one.is_resumed for one in used] == [False, True, True, True]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("certificate, before, after", [
    ("stranger", {"tls": "required"}, {"tls": "verify", "ca_file": "ca"}),
    ("stranger", {"tls": "verify", "ca_file": "stranger"}, {"ca_file": "ca"}),
    ("exchange", {"tls": "verify", "fingerprint": "exchange"}, {"fingerprint": "stranger"}),
    ("exchange", {"tls": "verify", "ca_file": "ca"}, {"server_name": "ex3.example.test"}),
], ids=["verify", "authority", "fingerprint", "name"])
def test_no_session_spares_a_host_what_is_asked_of_it_now(pair, certificates, version, certificate, before, after):
    def keys(of):
        attributes = {"ca_file": "certificate", "fingerprint": "fingerprint"}
        return {key: getattr(getattr(certificates, value), attributes[key]) if key in attributes else value
                for key, value in of.items()}
    before = keys(before)
    mx = pair(before.pop("tls"), certificate, connection_messages=1, **before)
    mx.exchange.tls.maximum_version = version
    for number in range(2):
        assert mx.client().deliver(CONTENT + b"%d\r\n" % number, "anna@example.test").status == "250 2.6.0"
    assert mx.exchange.delivered[1].connection.is_resumed
    mx.write_config({"downstream exchange": keys(after)})
    mx.reload()
    assert mx.client().deliver(CONTENT, "anna@example.test").status == "451 4.7.5"
    assert len(mx.exchange.received) == 2


def client_hello_extensions(hello):
    """Of a ClientHello in one record: the octets of each, by its number (RFC 8446 4.1.2)."""
    at = 44 + hello[43]  # record, handshake, version, random; the session's id
    at += 2 + int.from_bytes(hello[at:at + 2], "big")  # ciphers
    at += 1 + hello[at]  # compressions
    at += 2
    found = {}
    while at < len(hello):
        number, length = (int.from_bytes(hello[n:n + 2], "big") for n in (at, at + 2))
        found[number] = hello[at + 4:at + 4 + length]
        at += 4 + length
    return found


class NoResumption:
    """A server's context that drops whoever comes with a session."""

    def __init__(self, context):
        self.context = context
        self.resumed = []

    def wrap_socket(self, sock, server_side):
        extensions = client_hello_extensions(sock.recv(65536, socket.MSG_PEEK))
        self.resumed.append(any(extensions.get(number) for number in (35, 41)))  # session_ticket, pre_shared_key
        if self.resumed[-1]:
            raise ConnectionError("a session")
        return self.context.wrap_socket(sock, server_side=server_side)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_that_fails_is_not_tried_again(pair, version):
    mx = pair("required", connection_messages=1)
    mx.exchange.tls.maximum_version = version
    mx.exchange.tls = server = NoResumption(mx.exchange.tls)
    replies = [mx.client().deliver(CONTENT + b"%d\r\n" % number, "anna@example.test").status for number in range(3)]
    assert replies == ["250 2.6.0", "451 4.7.5", "250 2.6.0"]
    assert server.resumed == [False, True, False]


@pytest.mark.parametrize("without", [(), ("CHUNKING", "BINARYMIME")], ids=["BDAT", "DATA"])
def test_a_host_that_lets_it_wait_gets_every_octet(pair, without):
    """More than the kernel takes: records stay behind, and follow in their order."""
    mx = pair("required", without=without)
    gate = faults.Gate()
    mx.exchange.on("CONTENT", gate)
    content = CONTENT + b"".join(b"%d %s\r\n" % (n, b"x" * (n % 50000)) for n in range(600))
    client = mx.client()
    client.envelope("a@example.org", "anna@example.test")
    client.ok("DATA")
    client.send(content + b".\r\n")
    gate.reached.wait()
    assert mx.client().command("NOOP").code == 250
    gate.open()
    assert client.reply().status == "250 2.6.0"
    assert mx.exchange.delivered[0].without_trace() == content
    assert mx.exchange.delivered[0].connection.tls


@pytest.mark.parametrize("reset", [False, True])
def test_another_host_if_it_ends_before_the_end_was_sent(exchange, postern, certificates, reset):
    context = certificates.server_context(certificates.exchange)
    bad, good = exchange(tls=context), exchange(tls=context)
    mx = postern(bad, good, settings={"downstream exchange": {"tls": "required"}}, wait_downstream=False)
    for host in (bad, good):
        mx.wait_log("downstream", state="up", host=host.host)
    bad.on("CONTENT", faults.drop_in_content(300000, reset=reset))
    content = CONTENT + b"0123456789\r\n" * 1000000
    for n in range(2):
        assert mx.client().deliver(content + b"%d\r\n" % n, "anna@example.test").status == "250 2.6.0"
    assert [m.without_trace() for m in good.delivered] == [content + b"0\r\n", content + b"1\r\n"]
