"""A Samba domain controller with Exchange's attributes in its schema: an Active Directory to look at."""

import base64
import os
import signal
import socket
import subprocess

from .servers import Server, program, write

REALM = "AD.EXAMPLE.TEST"
BASE = "DC=ad,DC=example,DC=test"
SCHEMA = "CN=Schema,CN=Configuration," + BASE
ADMINISTRATOR = "CN=Administrator,CN=Users," + BASE
PASSWORD = "Passw0rd!Admin"

# Syntaxes: attributeSyntax, oMSyntax, and oMObjectClass of those that are names of objects.
TEXT, INTEGER, BOOLEAN = ("2.5.5.12", 64, None), ("2.5.5.9", 2, None), ("2.5.5.8", 1, None)
OR_NAME, NAME = ("2.5.5.7", 127, "VgYBAgULHQ=="), ("2.5.5.1", 127, "KwwCh3McAIVK")

# What Exchange adds that Postern reads: name, OID, syntax, is it single, linkID.  Back links have odd ones.
ATTRIBUTES = [
    ("targetAddress", "1.2.840.113556.1.2.352", TEXT, True, None),
    ("delivContLength", "1.2.840.113556.1.2.138", INTEGER, True, None),
    ("msExchRequireAuthToSendTo", "1.2.840.113556.1.4.5062", BOOLEAN, True, None),
    ("authOrig", "1.2.840.113556.1.2.129", OR_NAME, False, 110),
    ("authOrigBL", "1.2.840.113556.1.2.290", NAME, False, 111),
    ("dLMemSubmitPerms", "1.2.840.113556.1.2.144", OR_NAME, False, 112),
    ("dLMemSubmitPermsBL", "1.2.840.113556.1.2.291", NAME, False, 113),
    ("unauthOrig", "1.2.840.113556.1.2.221", OR_NAME, False, 114),
    ("unauthOrigBL", "1.2.840.113556.1.2.292", NAME, False, 115),
    ("dLMemRejectPerms", "1.2.840.113556.1.2.47", OR_NAME, False, 116),
    ("dLMemRejectPermsBL", "1.2.840.113556.1.2.293", NAME, False, 117),
]

SMB_CONF = """
[global]
netbios name = DC1
workgroup = ADTEST
realm = {realm}
server role = active directory domain controller
server services = ldap, cldap, kdc
dcerpc endpoint servers = epmapper
interfaces = {address}/8
bind interfaces only = yes
private dir = {directory}/private
state directory = {directory}/state
cache directory = {directory}/cache
lock directory = {directory}
pid directory = {directory}/run
ncalrpc dir = {directory}/ncalrpc
binddns dir = {directory}/bind-dns
log file = {directory}/log/log.samba
max log size = 0
tls enabled = yes
tls keyfile = {key}
tls certfile = {certificate}
tls cafile = {ca}
disable spoolss = yes
load printers = no
"""


def schema_ldif():
    for name, oid, (syntax, om_syntax, om_class), is_single, link in ATTRIBUTES:
        lines = [f"dn: CN={name},{SCHEMA}", "changetype: add", "objectClass: attributeSchema", f"cn: {name}",
                 f"lDAPDisplayName: {name}", f"attributeID: {oid}", f"attributeSyntax: {syntax}",
                 f"oMSyntax: {om_syntax}", f"isSingleValued: {'TRUE' if is_single else 'FALSE'}", "searchFlags: 0",
                 "isMemberOfPartialAttributeSet: TRUE", "showInAdvancedViewOnly: TRUE"]
        lines += [f"oMObjectClass:: {om_class}"] if om_class else []
        lines += [f"linkID: {link}"] if link else []
        yield "\n".join(lines) + "\n"


def class_ldif():
    names = "".join(f"mayContain: {row[0]}\n" for row in ATTRIBUTES)
    return f"dn: CN=Mail-Recipient,{SCHEMA}\nchangetype: modify\nadd: mayContain\n{names}"


RELOAD_SCHEMA = "dn:\nchangetype: modify\nadd: schemaUpdateNow\nschemaUpdateNow: 1\n"


def free_address():
    """One of this machine's own addresses on which nobody has the ports of a domain controller."""
    for last in range(20 + os.getpid() % 200, 250):
        address = f"127.0.1.{last}"
        with socket.socket() as probe:
            try:
                probe.bind((address, 389))
            except OSError:
                continue
        return address
    raise AssertionError("no address is free")


def user_ldif(name, *addresses, kind="user", **attributes):
    """An entry in CN=Users; the first address is its primary one.  ATTRIBUTES are lists of values."""
    lines = [f"dn: {user_dn(name)}", "changetype: add", f"objectClass: {kind}"]
    if kind != "contact":
        lines.append(f"sAMAccountName: {name}")
    lines += [f"proxyAddresses: {'smtp' if index else 'SMTP'}:{address}" for index, address in enumerate(addresses)]
    lines += [f"{key}: {value}" for key, values in attributes.items() for value in values]
    return "\n".join(lines) + "\n\n"


def user_dn(name):
    return f"CN={name},CN=Users,{BASE}"


SITE = f"CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,{BASE}"


class DomainController(Server):
    """Provisioned in DIRECTORY, with LDIF in its database, and running.  CERTIFICATES has the CA that vouches."""

    def __init__(self, directory, certificates, ldif):
        self.certificates = certificates
        self.authority = certificates.ca.certificate
        self.sam = os.path.join(directory, "private", "sam.ldb")
        self._provision(directory)
        self.edit("\n".join(schema_ldif()), "--option=dsdb:schema update allowed=true")
        self.edit(class_ldif(), "--option=dsdb:schema update allowed=true")
        self.edit(ldif)
        self._begin(directory, "dc1")

    def _begin(self, directory, name):
        self.address = free_address()
        self.host_name = f"{name}.ad.example.test"
        self.uri = f"ldap://{self.address}"
        self.tls_uri = f"ldaps://{self.address}"
        self.catalogue_uri = f"ldaps://{self.address}:3269"
        tls = self.certificates.make(name, self.host_name, [self.host_name, self.address], issuer=self.certificates.ca)
        conf = write(directory, "smb.conf", SMB_CONF.format(
            realm=REALM, address=self.address, directory=directory, key=tls.key, certificate=tls.certificate,
            ca=self.authority))
        self.argv = [program("samba"), "-s", conf, "--foreground", "--no-process-group", "--model=single"]
        super().__init__(directory, self.argv, host=self.address, port=636)

    def twin(self, directory):
        """Another controller with all that this one has now, for the same people, as if it had learnt it by
        replication: a name, a life and numbers of changes of its own.  What changes from now on each has for itself."""
        self.stop()
        subprocess.run(["cp", "-a", "--sparse=always", self.directory, directory], check=True)
        self.restart()
        other = object.__new__(DomainController)
        other.certificates, other.authority = self.certificates, self.authority
        other.sam = os.path.join(directory, "private", "sam.ldb")
        other.live_anew()
        for place in (f"CN=DC1,{SITE}", f"CN=DC1,OU=Domain Controllers,{BASE}"):
            other.edit(f"dn: {place}\nchangetype: modify\nreplace: dNSHostName\ndNSHostName: dc2.ad.example.test\n")
        other._begin(directory, "dc2")
        return other

    def live_anew(self):
        """As after it was restored from a backup."""
        identity = base64.b64encode(os.urandom(16)).decode()
        self.edit(f"dn: CN=NTDS Settings,CN=DC1,{SITE}\nchangetype: modify\nreplace: invocationId\n"
                  f"invocationId:: {identity}\n", "--controls=relax:0")

    @staticmethod
    def _provision(directory):
        for name in ("private", "state", "cache", "run", "log", "ncalrpc", "etc"):
            os.makedirs(os.path.join(directory, name))
        subprocess.run(
            [program("samba-tool"), "domain", "provision", f"--realm={REALM}", "--domain=ADTEST", "--host-name=dc1",
             "--host-ip=127.0.0.1", "--server-role=dc", "--dns-backend=NONE", f"--adminpass={PASSWORD}",
             f"--targetdir={directory}", f"--option=posix:eadb = {directory}/private/eadb.tdb",
             "--option=vfs objects = dfs_samba4 acl_xattr xattr_tdb"],
            stdin=subprocess.DEVNULL, check=True, capture_output=True)

    def edit(self, ldif, *options):
        """Its database, whether it runs or not."""
        done = subprocess.run([program("ldbmodify"), "-H", self.sam, *options], input=ldif.encode(),
                              capture_output=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def change(self, ldif):
        """The way an administrator does."""
        done = subprocess.run([program("ldapmodify"), "-x", "-H", self.tls_uri, "-D", ADMINISTRATOR, "-w", PASSWORD],
                              input=ldif.encode(), env={**os.environ, "LDAPTLS_CACERT": self.authority},
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def add(self, name, *addresses, **attributes):
        self.change(user_ldif(name, *addresses, **attributes))

    def delete(self, *names):
        self.change("".join(f"dn: {user_dn(name)}\nchangetype: delete\n\n" for name in names))

    def replace(self, name, attribute, *values):
        lines = "".join(f"{attribute}: {value}\n" for value in values)
        self.change(f"dn: {user_dn(name)}\nchangetype: modify\nreplace: {attribute}\n{lines}")

    def restart(self):
        super().__init__(self.directory, self.argv, host=self.address, port=636)

    def tool(self, *argv):
        done = subprocess.run([program("samba-tool"), *argv, "-s", os.path.join(self.directory, "smb.conf")],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        super().stop(number)
