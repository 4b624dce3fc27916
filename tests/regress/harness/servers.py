"""Real servers from Debian's packages, each in a directory of its own on loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess

from .journal import DEADLINE_S, poll
from .postern import free_port


def program(name):
    """Where NAME is, also where a user's PATH does not look."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    return path


class Server:
    """A process in the foreground that is ready once its port (or what `is_ready` asks) answers."""

    def __init__(self, directory, argv, host="127.0.0.1", port=None, cwd=None):
        self.directory = directory
        self.host = host
        self.port = port
        self.output = os.path.join(directory, "output")
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            cwd=cwd, start_new_session=True)
        poll(self._answers, f"{argv[0]} ready")

    def _answers(self):
        if self.process.poll() is not None:
            with open(self.output, encoding="utf-8", errors="replace") as output:
                raise AssertionError(f"{self.process.args[0]} has ended: {output.read()[-2000:]}")
        return self.is_ready()

    def is_ready(self):
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True

    def freeze(self):
        """SIGSTOP, and wait until each of its threads has stopped: one may run on for a moment."""
        def is_frozen():
            states = []
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                with open(f"/proc/{self.process.pid}/task/{task}/stat", encoding="ascii") as stat:
                    states.append(stat.read().rpartition(")")[2].split()[0])
            return set(states) == {"T"}
        self.process.send_signal(signal.SIGSTOP)
        poll(is_frozen, f"{self.process.args[0]} frozen")

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(DEADLINE_S)


# Directory

# The attributes of Active Directory that recipients are looked up by, and that say who may write to them.
AD_SCHEMA = """
attributetype ( 1.2.840.113556.1.2.210 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch
  SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.2.840.113556.1.4.5062 NAME 'msExchRequireAuthToSendTo' EQUALITY booleanMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.2.129 NAME 'authOrig' EQUALITY distinguishedNameMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.2.840.113556.1.2.221 NAME 'unauthOrig' EQUALITY distinguishedNameMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.2.840.113556.1.2.144 NAME 'dLMemSubmitPerms' EQUALITY distinguishedNameMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.2.840.113556.1.2.47 NAME 'dLMemRejectPerms' EQUALITY distinguishedNameMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.2.840.113556.1.2.138 NAME 'delivContLength' EQUALITY integerMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.99999.1.1 NAME 'adRecipient' SUP top STRUCTURAL MUST cn
  MAY ( mail $ userPassword $ proxyAddresses $ member $ msExchRequireAuthToSendTo $ authOrig $ unauthOrig $
  dLMemSubmitPerms $ dLMemRejectPerms $ delivContLength ) )
"""

SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include {directory}/ad.schema
pidfile {directory}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
sizelimit size.soft=1000 size.hard=1000 size.prtotal=unlimited
TLSCACertificateFile {ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
{globals}
database mdb
suffix "dc=example,dc=test"
rootdn "cn=admin,dc=example,dc=test"
rootpw secret
directory {directory}/db
maxsize 1073741824
dbnosync
index objectClass,proxyAddresses,mail,entryUUID,entryCSN eq
"""

# RFC 4533.
SYNCPROV = """
overlay syncprov
syncprov-sessionlog 10000
"""

SLAPD_ROOT = """dn: dc=example,dc=test
objectClass: dcObject
objectClass: organization
dc: example
o: example

"""


def recipient_dn(name):
    return f"cn={name},dc=example,dc=test"


def recipient_entry(name, addresses, **attributes):
    """LDIF of a recipient; the first address is its primary one.  ATTRIBUTES are lists of values."""
    lines = [f"dn: {recipient_dn(name)}", "objectClass: adRecipient", f"cn: {name}", "userPassword: secret",
             f"mail: {addresses[0]}"]
    lines += [f"proxyAddresses: {'smtp' if index else 'SMTP'}:{address}"
              for index, address in enumerate(addresses)]
    lines += [f"{key}: {value}" for key, values in attributes.items() for value in values]
    return "\n".join(lines) + "\n\n"


class Slapd(Server):
    """RECIPIENTS: name -> list of addresses, or LDIF; each can bind with PASSWORD.  SYNCPROV: it tells changes by RFC
    4533.  CONFIG: more of slapd.conf, for the database; GLOBALS: for the whole."""

    ROOT_DN = "cn=admin,dc=example,dc=test"
    PASSWORD = "secret"
    BASE = "dc=example,dc=test"

    def __init__(self, directory, certificates, recipients, syncprov=False, config="", globals_=""):
        os.mkdir(os.path.join(directory, "db"))
        write(directory, "ad.schema", AD_SCHEMA)
        tls = certificates.exchange
        conf = write(directory, "slapd.conf", SLAPD.format(
            directory=directory, ca=certificates.ca.certificate, certificate=tls.certificate,
            key=tls.key, globals=globals_) + config + (SYNCPROV if syncprov else ""))
        ldif = SLAPD_ROOT + (recipients if isinstance(recipients, str) else
                             "".join(recipient_entry(*item) for item in recipients.items()))
        subprocess.run([program("slapadd"), "-q", "-f", conf], input=ldif.encode(), check=True,
                       capture_output=True)
        port, tls_port = free_port(), free_port()
        self.uri = f"ldap://127.0.0.1:{port}"
        self.tls_uri = f"ldaps://127.0.0.1:{tls_port}"
        super().__init__(directory, [program("slapd"), "-f", conf, "-d", "0", "-h",
                                     f"{self.uri} {self.tls_uri}"], port=port)

    def change(self, ldif):
        subprocess.run([program("ldapmodify"), "-x", "-H", self.uri, "-D", self.ROOT_DN, "-w", self.PASSWORD],
                       input=ldif.encode(), check=True, capture_output=True)

    def add(self, name, addresses, **attributes):
        entry = recipient_entry(name, addresses, **attributes)
        self.change(entry.replace("objectClass:", "changetype: add\nobjectClass:", 1))

    def delete(self, *names):
        self.change("".join(f"dn: {recipient_dn(name)}\nchangetype: delete\n\n" for name in names))

    def replace(self, name, attribute, *values):
        lines = "".join(f"{attribute}: {value}\n" for value in values)
        self.change(f"dn: {recipient_dn(name)}\nchangetype: modify\nreplace: {attribute}\n{lines}")


# Mail

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = ex1.corp.example.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_relay_restrictions = reject_unauth_destination
default_transport = error:nothing leaves this machine
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:box/
virtual_minimum_uid = 1
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
smtpd_tls_security_level = {level}
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_loglevel = 1
smtpd_peername_lookup = no
local_header_rewrite_clients =
message_size_limit = 104857600
mailbox_size_limit = 0
virtual_mailbox_limit = 0
transport_maps = inline:{{ {{{failing}=failing:}} }}
"""

POSTFIX_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
failing unix - n n - - pipe user=nobody argv=/bin/sh -c {{exit 67}}
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """An instance of its own, beside a system's; to be started by root.  It takes mail for DOMAINS, any
    local part, into one Maildir that belongs to OWNER (a number; nobody).  Mail for FAILING is taken, too,
    and then cannot be delivered: no such user."""

    def __init__(self, directory, certificate, domains=("example.test",), level="may", owner=65534,
                 failing="failing@example.test"):
        for name in ("conf", "queue", "data", "mail"):
            os.mkdir(os.path.join(directory, name))
        user = pwd.getpwnam("postfix")
        # Postfix's users must get through to their directories.
        os.chmod(directory, 0o755)
        os.chown(os.path.join(directory, "data"), user.pw_uid, user.pw_gid)
        os.chown(os.path.join(directory, "mail"), owner, owner)
        port = free_port()
        self.conf = os.path.join(directory, "conf")
        self.box = os.path.join(directory, "mail", "box", "new")
        write(self.conf, "main.cf", POSTFIX_MAIN.format(
            directory=directory, domains=", ".join(domains), owner=owner, level=level, failing=failing,
            certificate=certificate.certificate, key=certificate.key))
        write(self.conf, "master.cf", POSTFIX_MASTER.format(port=port))
        super().__init__(directory, [program("postfix"), "-c", self.conf, "start-fg"], port=port)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def mails(self):
        """The messages delivered so far, oldest first, as they lie in the mailbox (lines end with LF)."""
        if not os.path.isdir(self.box):
            return []
        paths = [os.path.join(self.box, name) for name in os.listdir(self.box)]
        mails = []
        for path in sorted(paths, key=lambda path: os.stat(path).st_mtime_ns):
            with open(path, "rb") as mail:
                mails.append(mail.read())
        return mails

    def wait_mails(self, count):
        return poll(lambda: (found := self.mails()) and len(found) >= count and found,
                    f"{count} delivered messages")

    def log(self):
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self, number=signal.SIGTERM):
        subprocess.run([program("postfix"), "-c", self.conf, "stop"], stdin=subprocess.DEVNULL,
                       capture_output=True, check=False)
        super().stop(number)


# Others

RSYSLOGD = """
global(workDirectory="{directory}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{directory}/log.sock" CreatePath="off" UseSpecialParser="off"
      ParseHostname="on" RateLimit.Interval="0")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="{port}")
module(load="imptcp")
input(type="imptcp" address="127.0.0.1" port="{port}")
template(name="line" type="string"
         string="<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% %APP-NAME% %PROCID% %MSGID% %STRUCTURED-DATA% %msg%\\n")
action(type="omfile" file="{directory}/lines" template="line" asyncWriting="off")
"""


class Rsyslogd(Server):
    """Takes RFC 5424 over a unix socket, UDP and TCP; what came is in `lines`."""

    def __init__(self, directory):
        port = free_port()
        conf = write(directory, "rsyslog.conf", RSYSLOGD.format(directory=directory, port=port))
        self.socket_path = os.path.join(directory, "log.sock")
        self.lines_path = os.path.join(directory, "lines")
        super().__init__(directory, [program("rsyslogd"), "-n", "-f", conf, "-i",
                                     os.path.join(directory, "pid")], port=port)

    def lines(self):
        if not os.path.exists(self.lines_path):
            return []
        with open(self.lines_path, encoding="utf-8", errors="replace") as lines:
            return lines.read().splitlines()


class Redis(Server):
    """PORT: of one that was there before."""

    def __init__(self, directory, password="", port=None):
        self.socket_path = os.path.join(directory, "redis.sock")
        self.password = password
        port = port or free_port()
        text = (f"bind 127.0.0.1\nport {port}\nunixsocket {self.socket_path}\nunixsocketperm 700\n"
                f"save \"\"\nappendonly no\ndir {directory}\n")
        if password:
            text += f"requirepass {password}\n"
        conf = write(directory, "redis.conf", text)
        super().__init__(directory, [program("redis-server"), conf], port=port)

    def ask(self, *words):
        """A command's answer, as redis-cli writes it."""
        done = subprocess.run([program("redis-cli"), "-s", self.socket_path, *words],
                              env=os.environ | {"REDISCLI_AUTH": self.password}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=DEADLINE_S, check=True)
        return done.stdout.strip()


class Nsd(Server):
    """ZONES: name -> text of the zone."""

    def __init__(self, directory, zones):
        port = free_port()
        text = (f'server:\n  ip-address: 127.0.0.1@{port}\n  username: ""\n  chroot: ""\n'
                f'  zonesdir: "{directory}"\n  pidfile: "{directory}/pid"\n  database: ""\n'
                f'  zonelistfile: "{directory}/zone.list"\n  xfrdfile: "{directory}/xfrd.state"\n'
                '  server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n')
        for name, zone in zones.items():
            write(directory, name + ".zone", zone)
            text += f'zone:\n  name: "{name}"\n  zonefile: "{name}.zone"\n'
        conf = write(directory, "nsd.conf", text)
        super().__init__(directory, [program("nsd"), "-d", "-c", conf], port=port)
