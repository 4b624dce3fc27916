"""What is measured, each configured for its part and in a directory of its own: Postern and its peers."""

import os
import pwd
import struct
import subprocess

from harness.postern import free_port
from harness.servers import Server, Slapd, program, write

TICKS = os.sysconf("SC_CLK_TCK")
KNOWN = 100000
DOMAIN = "example.test"


def addresses(count):
    return (f"user{number}@{DOMAIN}" for number in range(count))


def process_tree(pid):
    """PID and its descendants, with their CPU seconds, those of children that have ended among them."""
    children, seconds = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
            seconds[int(name)] = sum(int(field) for field in fields[11:15]) / TICKS
    found, left = {}, [pid]
    while left:
        one = left.pop()
        found[one] = seconds.get(one, 0)
        left += children.get(one, ())
    return found


def pss_kib(pid):
    total = 0
    for one in process_tree(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as rollup:
                total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            continue
    return total


class Peer(Server):
    """`cpu()` and `pss()` are of all its processes."""

    def cpu(self):
        return sum(process_tree(self.process.pid).values())

    def pss(self):
        return pss_kib(self.process.pid)


class Sink(Peer):
    COUNTERS = ("connections", "messages", "octets", "refused", "bad", "twice")

    def __init__(self, directory, binary, certificate=None, has_tickets=True):
        self.smtp_port, self.auth_port = free_port(), free_port()
        self.counters_path = os.path.join(directory, "counters")
        argv = [binary, str(self.smtp_port), str(self.auth_port), self.counters_path]
        if certificate:
            argv += [certificate.certificate, certificate.key] + ([] if has_tickets else ["no-tickets"])
        super().__init__(directory, argv, port=self.smtp_port)

    def counters(self):
        with open(self.counters_path, "rb") as counters:
            return dict(zip(self.COUNTERS, struct.unpack("6Q", counters.read(48))))


class HAProxy(Peer):
    CONF = """
global
    maxconn 9000
defaults
    mode tcp
    timeout connect 10s
    timeout client 5m
    timeout server 5m
listen smtp
    bind 127.0.0.1:{port}
    server sink 127.0.0.1:{sink}
"""

    def __init__(self, directory, sink):
        port = free_port()
        conf = write(directory, "haproxy.cfg", self.CONF.format(port=port, sink=sink.smtp_port))
        super().__init__(directory, [program("haproxy"), "-db", "-f", conf], port=port)


class Nginx(Peer):
    CONF = """
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
user root;
worker_processes auto;
pid {directory}/pid;
error_log {directory}/log error;
events {{
    worker_connections 9000;
}}
mail {{
    server_name mx.example.test;
    auth_http 127.0.0.1:{auth}/;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        protocol smtp;
        smtp_auth none;
        xclient off;
        starttls on;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {tls.certificate};
        ssl_certificate_key {tls.key};
    }}
}}
"""

    def __init__(self, directory, sink, certificates):
        port = free_port()
        conf = write(directory, "nginx.conf", self.CONF.format(
            directory=directory, port=port, auth=sink.auth_port, tls=certificates.mx))
        super().__init__(directory, [program("nginx"), "-p", directory, "-e", os.path.join(directory, "log"),
                                     "-c", conf], port=port)


class Postfix(Peer):
    """With a filter it proxies before its queue, in the clear; without, it delivers from its queue, in TLS where
    the sink offers it."""

    MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.test
mydestination =
mynetworks =
alias_maps =
local_recipient_maps =
relay_domains = example.test
relay_recipient_maps = {recipients}
relay_transport = smtp:[127.0.0.1]:{sink}
default_transport = error:nothing leaves this machine
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000000
smtpd_hard_error_limit = 1000000
smtpd_junk_command_limit = 1000000
smtpd_recipient_limit = 1000000
smtpd_client_connection_count_limit = 0
default_process_limit = 1000
smtpd_tls_security_level = may
smtpd_tls_cert_file = {tls.certificate}
smtpd_tls_key_file = {tls.key}
smtp_tls_security_level = may
message_size_limit = 104857600
"""
    MASTER = """
127.0.0.1:{port} inet n - n - - smtpd {options}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - 20 smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

    def __init__(self, directory, sink, certificates, recipients, has_filter=True):
        for name in ("conf", "queue", "data"):
            os.mkdir(os.path.join(directory, name))
        os.chmod(directory, 0o755)
        user = pwd.getpwnam("postfix")
        os.chown(os.path.join(directory, "data"), user.pw_uid, user.pw_gid)
        port = free_port()
        conf = os.path.join(directory, "conf")
        write(conf, "main.cf", self.MAIN.format(directory=directory, recipients=recipients, sink=sink.smtp_port,
                                                tls=certificates.mx))
        options = f"-o smtpd_proxy_filter=127.0.0.1:{sink.smtp_port}" if has_filter else ""
        write(conf, "master.cf", self.MASTER.format(port=port, options=options))
        self.conf = conf
        super().__init__(directory, [program("postfix"), "-c", conf, "start-fg"], port=port)

    def stop(self, number=15):
        subprocess.run([program("postfix"), "-c", self.conf, "stop"], stdin=subprocess.DEVNULL,
                       capture_output=True, check=False)
        super().stop(number)


def postfix_table(directory):
    """The recipients in LMDB."""
    path = write(directory, "recipients", "".join(f"{address} x\n" for address in addresses(KNOWN)))
    write(directory, "main.cf", "compatibility_level = 3.6\nlmdb_map_size = 134217728\n")
    subprocess.run([program("postmap"), "-c", directory, "lmdb:" + path], check=True, capture_output=True)
    return "lmdb:" + path


def postfix_ldap(directory, slapd):
    path = write(directory, "ldap.cf", f"server_host = {slapd.uri}\nsearch_base = {slapd.BASE}\nbind = no\n"
                 "version = 3\nquery_filter = (mail=%s)\nresult_attribute = mail\n")
    return "ldap:" + path


class Postern(Peer):
    """Every stranger is counted, as on the internet; but none is held up, or there would be nothing to
    measure: for `ratio` a client must not have sent a single good message, and ours has."""

    CONF = """
[server]
hostname = mx.example.test
listen = 127.0.0.1:{port}
state_dir = {directory}/state
max_connections_per_client = 1000000
max_errors = 1000000
max_recipients = 1000
max_connections = 20000
{server}

[tls]
certificate = {tls.certificate}
key = {tls.key}

[log]
target = stderr

[control]
socket = {directory}/control.sock

[http]
listen =

[domain example.test]
downstream = sink

[downstream sink]
hosts = 127.0.0.1:{sink}
tls = {out}
{downstream}

[directory]
{recipients}

[harvest]
allow =
message_threshold = 0
threshold = 10000
threshold_wide = 0
ratio = 1
tarpit = 0s
{harvest}

{more}
"""

    def __init__(self, directory, binary, sink, certificates, recipients, out="off", server="", harvest="",
                 downstream="", more=""):
        port = free_port()
        conf = write(directory, "postern.ini", self.CONF.format(
            directory=directory, port=port, sink=sink.smtp_port, tls=certificates.mx, recipients=recipients,
            out=out, server=server, harvest=harvest, downstream=downstream, more=more))
        super().__init__(directory, [binary, "-c", conf], port=port)


def postern_file(directory):
    path = write(directory, "recipients.txt", "".join(address + "\n" for address in addresses(KNOWN)))
    return f"type = file\nfile = {path}"


def postern_ldap(slapd):
    return f"type = ldap\nuri = {slapd.uri}\nbind = anonymous\nbase = {slapd.BASE}\nfilter = (mail=%u)\nattributes = mail"


def start_slapd(directory, certificates, count=KNOWN):
    return Slapd(directory, certificates,
                 {f"user{number}": [address] for number, address in enumerate(addresses(count))})
