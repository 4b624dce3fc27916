"""postern -t: every fault of a configuration in one run, each with its line."""

import os
import re
import socket
import subprocess

import pytest

from harness import servers
from harness.postern import BINARY, check, free_port, ini

EX_CONFIG = 78


@pytest.fixture
def base(directory):
    with open(directory + "/recipients", "w", encoding="ascii") as out:
        out.write("anna@example.test\n")
    return {
        "server": {"hostname": "mx.example.test", "listen": "127.0.0.1:2525", "state_dir": directory + "/state"},
        "tls": {"mode": "off"},
        "control": {"socket": directory + "/control.sock"},
        "domain example.test": {"downstream": "exchange"},
        "downstream exchange": {"hosts": "127.0.0.1:25"},
        "directory": {"type": "file", "file": directory + "/recipients"},
    }


def line_of(text, wanted):
    return next(number for number, line in enumerate(text.split("\n"), 1) if wanted in line)


def test_good(base, directory):
    done, path = check(ini(base), directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: ok\n", "")
    assert not os.path.exists(directory + "/state")  # nothing is made, either


def test_recipients(base, directory):
    """What a reload would refuse, -t refuses: the recommended `postern -t && posternctl reload` holds."""
    with open(directory + "/recipients", "a", encoding="ascii") as out:
        out.write("ben@example.test extra\n@\n")
    text = ini(base)
    done, path = check(text, directory)
    line = line_of(text, "file = ")
    assert done.returncode == EX_CONFIG
    assert done.stderr == (f"{path}:{line}: file: {directory}/recipients:2: neither an address nor @domain "
                           "(1 more such)\n")


def test_no_recipients(base, directory, postern, exchange):
    """Allowed, but more likely an export that went wrong."""
    with open(directory + "/recipients", "w", encoding="ascii"):
        pass
    text = ini(base)
    done, path = check(text, directory)
    warning = "no address in it: every recipient is unknown"
    assert (done.returncode, done.stderr) == (
        0, f"{path}:{line_of(text, 'file = ')}: warning: file: {directory}/recipients: {warning}\n")
    mx = postern(exchange())
    with open(mx.recipients_path, "w", encoding="ascii"):
        pass
    mx.reload()
    mx.wait_log("warning", file=mx.recipients_path, error=warning)


FAULTS = [
    "[nosuch]", "[server]\nnosuch = 1", "[server]\nmax_hops = many", "[server]\nmax_hops = -1",
    "[server]\nmax_connections = 99999999999", "[server]\ncommand_timeout = 5", "[server]\ncommand_timeout = 5 parsecs",
    "[server]\nbare_lf = maybe", "[server]\nheader_firewall = perhaps", "[server]\nproxy_protocol = 192.0.2.0/33",
    "[server]\nxclient = example.org", "[server]\nmax_message_size = 1X", "[spool]\nmemory = -1",
    "[spool]\ndir = /nonexistent/dir", "[tls]\nmode = sometimes", "[tls]\nmin_version = 0.9",
    "[tls]\ncertificate = /nonexistent/crt\nkey = /nonexistent/key", "[tls]\nmode = required", "[log]\nlevel = loud",
    "[log]\ntarget = carrier:pigeon", "[log]\nfacility = male", "[http]\nlisten = somewhere",
    "[domain example.org]\ndownstream = nowhere", "[domain example.org]\nrecipients = maybe\ndownstream = exchange",
    "[domain example.org]\ndownstream = exchange\ndirectory = nowhere", "[downstream second]\nhosts = a b c",
    "[downstream second]\nhosts = 127.0.0.1:99999", "[downstream second]\nhosts = 127.0.0.1:25\ntls = maybe",
    "[downstream second]\nhosts = 127.0.0.1:25\nfingerprint = 1234", "[directory second]\ntype = guess",
    "[directory second]\ntype = file\nfile = /nonexistent", "[directory second]\ntype = ldap\nuri = http://x",
    "[harvest]\nratio = 2", "[harvest]\nratio = x", "[harvest]\naction = scold", "[harvest]\nprefix4 = 33",
    "[harvest]\nstage = mail", "[harvest]\nledger = paper", "[harvest]\nallow = 10.0.0.1/8",
    "[blocked]\nclients = everybody", "[remote_domain example.net]\nndr = perhaps", "this is no line",
    "[server", "[server]\nmax_hops 5", "[server]\nhostname = " + "x" * 5000,
]


@pytest.mark.parametrize("fault", FAULTS, ids=[f.replace("\n", " ")[:60] for f in FAULTS])
def test_fault(base, directory, fault):
    head = ini(base)
    text = head + "\n" + fault + "\n"
    done, path = check(text, directory)
    assert done.returncode == EX_CONFIG
    assert done.stdout == ""
    first = head.count("\n") + 2
    lines = [line for line in done.stderr.splitlines() if ": warning: " not in line]
    assert lines
    numbers = []
    for line in lines:
        assert line.startswith(path + ":"), line
        number, _, message = line[len(path) + 1:].partition(": ")
        assert number.isdigit() and message, line
        numbers.append(int(number))
    assert all(first <= n <= first + fault.count("\n") + 1 for n in numbers), (lines, first)


def test_all_faults_in_one_run(base, directory):
    base["server"].update({"max_hops": "x", "bare_lf": "y", "nosuch": "z"})
    base["harvest"] = {"ratio": "7"}
    text = ini(base)
    done, path = check(text, directory)
    assert done.returncode == EX_CONFIG
    for wanted in ("max_hops", "bare_lf", "nosuch", "ratio"):
        assert f"{path}:{line_of(text, wanted)}: " in done.stderr, wanted


def expire(certificate, directory, name, days):
    """CERTIFICATE anew, with its key, but so that it ends in DAYS days."""
    made, request = f"{directory}/{name}.crt", f"{directory}/{name}.csr"
    subprocess.run(["openssl", "req", "-new", "-key", certificate.key, "-subj", "/CN=mx.example.test", "-out", request],
                   capture_output=True, check=True)
    subprocess.run(["openssl", "x509", "-req", "-in", request, "-signkey", certificate.key, "-days", str(days),
                    "-out", made], capture_output=True, check=True)
    return made


def test_faults_of_every_kind_in_one_run(base, directory, certificates):
    """What only OpenSSL, the directory's reader or the kernel can judge is told beside faults of the file itself."""
    def write(name, text, mode=0o640):
        with open(f"{directory}/{name}", "w", encoding="ascii") as out:
            out.write(text)
        os.chmod(f"{directory}/{name}", mode)
        return f"{directory}/{name}"

    nonsense, missing = write("nonsense", "no certificate\n"), directory + "/missing"
    base["server"].update({"max_hops": "x", "state_dir": directory + "/a/b"})
    base["control"]["socket"] = directory + "/c/d/socket"
    base["spool"] = {"dir": missing}
    base["tls"] = {"certificate": f"{nonsense}, {missing}.crt, {certificates.mx.certificate}",
                   "key": f"{nonsense}, {certificates.mx.key}, {certificates.other.key}", "ciphers": "NONE-SUCH"}
    base["downstream exchange"].update({"tls": "verify", "ca_file": nonsense,
                                        "client_certificate": certificates.client.certificate,
                                        "client_key": certificates.mx.key})
    base["downstream second"] = {"hosts": "127.0.0.1, 127.0.0.2:x, 127.0.0.3, 127.0.0.4:0", "tls": "verify",
                                 "ca_file": missing}
    base["directory second"] = {"type": "ldap", "uri": "ldaps://127.0.0.1", "base": "dc=x", "ca_file": nonsense,
                                "bind_dn": "cn=x", "bind_password_file": write("password", "\n")}
    base["directory third"] = {"type": "ldap", "uri": "ldaps://127.0.0.1", "base": "dc=x", "bind_dn": "cn=x",
                               "bind_password_file": missing}
    base["directory"]["file"] = write("recipients", "no address\n")
    base["harvest"] = {"redis_password_file": directory}
    done, path = check(ini(base), directory)
    assert (done.returncode, done.stdout) == (EX_CONFIG, "")
    told = [line[len(path) + 1:].partition(": ")[2] for line in done.stderr.splitlines()]
    gone = "No such file or directory"
    for fault in (
            "max_hops = x: not a whole number, 0 or more",
            f"state_dir: {directory}/a/b: cannot be created: its parent does not exist",
            f"socket: {directory}/c/d/socket: cannot be created: its parent does not exist", f"dir: {missing}: {gone}",
            f"certificate: {nonsense}: not in PEM form", f"certificate: {missing}.crt: {gone}",
            f"key: {nonsense}: no private key in PEM form",
            f"key: {certificates.other.key}: is not the key of {certificates.mx.certificate}",
            "ciphers: NONE-SUCH: no cipher match", f"ca_file: {nonsense}: no certificate in PEM form",
            f"ca_file: {missing}: {gone}",
            f"client_key: {certificates.mx.key}: is not the key of {certificates.client.certificate}",
            "hosts = 127.0.0.2:x: the port is not a number up to 65535 (an IPv6 address is written in brackets)",
            "hosts = 127.0.0.4:0: no port",
            f"bind_password_file: {directory}/password: there is no password on its first line",
            f"bind_password_file: {missing}: {gone}",
            f"file: {directory}/recipients:1: neither an address nor @domain",
            f"redis_password_file: {directory}: is a directory"):
        assert fault in told, (fault, told)
        told.remove(fault)
    assert told == [f"ca_file: {nonsense}: no certificate in PEM form"]  # that of the other section


@pytest.mark.parametrize("days, words", [(-1, "expired on "), (5, "expires on "), (20, "")])
def test_certificates_that_end(base, directory, certificates, days, words):
    base["tls"] = {"certificate": f"{certificates.mx.certificate}, {expire(certificates.other, directory, 'old', days)}",
                   "key": f"{certificates.mx.key}, {certificates.other.key}"}
    base["downstream exchange"].update({"tls": "verify", "ca_file": expire(certificates.ca, directory, "ca", days)})
    done, path = check(ini(base), directory)
    assert (done.returncode, done.stdout) == (0, f"{path}: ok\n")
    warnings = [line.partition(": warning: ")[2] for line in done.stderr.splitlines()]
    assert all(words in warning for warning in warnings), warnings
    keys = [warning.partition(" ")[0:3:2] for warning in warnings]
    assert [(key, rest.partition(":")[0]) for key, rest in keys] == (
        [("certificate:", f"{directory}/old.crt"), ("ca_file:", f"{directory}/ca.crt")] if words else [])


def test_an_intermediate_that_has_ended(base, directory, certificates):
    """Of a chain every certificate is looked at."""
    with open(directory + "/chain.crt", "w", encoding="ascii") as chain:
        for part in certificates.mx.certificate, expire(certificates.ca, directory, "ca", -1):
            with open(part, encoding="ascii") as pem:
                chain.write(pem.read())
    base["tls"] = {"certificate": directory + "/chain.crt", "key": certificates.mx.key}
    done, path = check(ini(base), directory)
    assert (done.returncode, done.stdout) == (0, f"{path}: ok\n")
    assert done.stderr.count("warning:") == 1 and "/chain.crt: expired on " in done.stderr


def test_a_certificate_of_the_future(base, directory, certificates):
    request, config = directory + "/mx.csr", servers.write(directory, "ca.ini", (
        f"[ca]\ndefault_ca = x\n[x]\ndatabase = {directory}/db\nnew_certs_dir = {directory}\n"
        "default_md = sha256\nrand_serial = yes\npolicy = p\n[p]\ncommonName = supplied\n"))
    servers.write(directory, "db", "")
    for argv in (["req", "-new", "-key", certificates.mx.key, "-subj", "/CN=mx.example.test", "-out", request],
                 ["ca", "-batch", "-selfsign", "-config", config, "-keyfile", certificates.mx.key, "-in", request,
                  "-startdate", "20980101000000Z", "-enddate", "20990101000000Z", "-out", directory + "/mx.crt"]):
        subprocess.run(["openssl", *argv], capture_output=True, check=True)
    base["tls"] = {"certificate": directory + "/mx.crt", "key": certificates.mx.key}
    done, _ = check(ini(base), directory)
    assert done.returncode == 0 and "/mx.crt: is not valid yet" in done.stderr, done.stderr


def test_a_key_with_a_passphrase(base, directory, certificates):
    """Nobody is asked for it, not even on a terminal."""
    subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", certificates.mx.key, "-out",
                    directory + "/locked"], capture_output=True, check=True)
    os.chmod(directory + "/locked", 0o600)
    base["tls"] = {"certificate": certificates.mx.certificate, "key": directory + "/locked"}
    done, _ = check(ini(base), directory)
    assert done.returncode == EX_CONFIG
    assert "locked: has a passphrase" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask in another's name")
def test_where_the_user_must_write(base, directory):
    base["server"]["user"] = "nobody"
    os.chmod(directory, 0o711)
    for name in ("spool", "state"):
        os.mkdir(f"{directory}/{name}", 0o711)
    base["server"]["state_dir"] = directory + "/state"
    base["spool"] = {"dir": directory + "/spool"}
    os.chmod(directory + "/recipients", 0o644)
    done, path = check(ini(base), directory)
    assert done.returncode == EX_CONFIG
    for name in ("spool", "state"):
        assert f"{directory}/{name}: user nobody cannot write to it" in done.stderr


def test_duplicate_key(base, directory):
    text = ini(base) + "[harvest]\nthreshold = 5\nwindow = 1h\nthreshold = 6\n"
    done, path = check(text, directory)
    assert done.returncode == EX_CONFIG
    assert done.stderr.startswith(f"{path}:{text.count(chr(10))}: ")


def test_line_of_200_octets_is_whole(base, directory):
    """inih by itself would cut it in two."""
    base["directory second"] = {"type": "ldap", "uri": "ldap://127.0.0.1", "base": "dc=example,dc=test",
                                "filter": "(|" + "(mail=%u)" * 60 + ")", "attributes": "mail"}
    done, path = check(ini(base), directory)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_file(directory):
    done = subprocess.run([BINARY, "-t", "-c", directory + "/none"], capture_output=True, text=True, check=False)
    assert done.returncode == EX_CONFIG
    assert directory + "/none" in done.stderr


@pytest.mark.parametrize("mode, good", [(0o600, True), (0o640, True), (0o644, False), (0o604, False)])
def test_key_that_others_may_read(base, directory, certificates, mode, good):
    key = directory + "/key"
    with open(certificates.mx.key, encoding="ascii") as source, open(key, "w", encoding="ascii") as out:
        out.write(source.read())
    os.chmod(key, mode)
    base["tls"] = {"certificate": certificates.mx.certificate, "key": key}
    text = ini(base)
    done, path = check(text, directory)
    assert done.returncode == (0 if good else EX_CONFIG), done.stderr
    if not good:
        assert f"{path}:{line_of(text, 'key = ')}: " in done.stderr


def test_key_of_another_certificate(base, directory, certificates):
    base["tls"] = {"certificate": certificates.mx.certificate, "key": certificates.other.key}
    assert check(ini(base), directory)[0].returncode == EX_CONFIG


@pytest.mark.parametrize("change", [
    ("server", "hostname", "mx"), ("domain example.test", "recipients", "any"), ("tls", "mode", "required")],
    ids=["hostname", "recipients", "tls"])
def test_warnings(base, directory, certificates, change):
    section, key, value = change
    if section == "tls":
        base["tls"] = {"certificate": certificates.mx.certificate, "key": certificates.mx.key}
    base[section][key] = value
    text = ini(base)
    done, path = check(text, directory)
    assert done.returncode == 0, done.stderr
    assert f"{path}:{line_of(text, f'{key} = {value}')}: warning: " in done.stderr
    assert done.stdout == f"{path}: ok\n"


def test_state_dir_without_a_parent(base, directory):
    base["server"]["state_dir"] = directory + "/a/b"
    text = ini(base)
    done, path = check(text, directory)
    assert done.returncode == EX_CONFIG
    assert f"{path}:{line_of(text, 'state_dir')}: " in done.stderr


def test_daemon_refuses_a_faulty_configuration(base, directory):
    base["server"]["nosuch"] = "1"
    path = directory + "/faulty.ini"
    with open(path, "w", encoding="ascii") as out:
        out.write(ini(base))
    done = subprocess.run([BINARY, "-c", path], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == EX_CONFIG
    assert f"{path}:{line_of(ini(base), 'nosuch')}: " in done.stderr


@pytest.mark.parametrize("trouble", ["server", "http", "recipients"])
def test_daemon_that_cannot_begin_leaves_nothing(base, directory, trouble):
    """One line says why; and what it had begun is gone, be it a socket's file or, as the sanitizers see it, memory."""
    listen = {key: f"127.0.0.1:{free_port()}" for key in ("server", "http")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if trouble in listen:
            listen[trouble] = f"127.0.0.1:{taken.getsockname()[1]}"
        else:
            with open(directory + "/recipients", "a", encoding="ascii") as out:
                out.write("ben@example.test extra\n")
        base["server"]["listen"] = listen["server"]
        base["http"] = {"listen": listen["http"]}
        base["log"] = {"target": "stderr", "level": "error"}
        path = directory + "/postern.ini"
        with open(path, "w", encoding="ascii") as out:
            out.write(ini(base))
        done = subprocess.run([BINARY, "-c", path], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode in (os.EX_OSERR, EX_CONFIG), done.stderr
    assert re.fullmatch(r"postern: [^\n]+\n", done.stderr), done.stderr
    assert not os.path.exists(directory + "/control.sock")


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help(argument):
    done = subprocess.run([BINARY, argument], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "postern" in done.stdout.lower()


@pytest.mark.parametrize("arguments", [["--nosuch"], ["-c"], []], ids=["option", "argument", "nothing"])
def test_usage(arguments, directory):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=30, check=False, cwd=directory)
    assert done.returncode not in (0, EX_CONFIG)
    assert done.stdout == "" and "postern" in done.stderr.lower()
