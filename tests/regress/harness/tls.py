"""Certificates made anew for a run, and the contexts of both ends."""

import hashlib
import os
import ssl
import subprocess


class Certificate:
    def __init__(self, path):
        self.certificate = path + ".crt"
        self.key = path + ".key"

    @property
    def fingerprint(self):
        """SHA-256 of the certificate in DER, as hex."""
        with open(self.certificate, encoding="ascii") as pem:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.read())).hexdigest()


class Certificates:
    """ca: signs the others but the last.  mx: Postern's own.  other: its second, for SNI.
    exchange: the downstream's, for ex1 and ex2.example.test and 127.0.0.1.  client: Postern's
    towards the downstream.  stranger: signs itself, for the right names."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = self.make("ca", "Test CA", authority=True)
        self.mx = self.make("mx", "mx.example.test", ["mx.example.test"], issuer=self.ca)
        self.other = self.make("other", "mx.example.org", ["mx.example.org"], issuer=self.ca)
        names = ["ex1.example.test", "ex2.example.test", "localhost", "127.0.0.1"]
        self.exchange = self.make("exchange", "ex1.example.test", names, issuer=self.ca)
        self.client = self.make("client", "postern.example.test", issuer=self.ca)
        self.stranger = self.make("stranger", "ex1.example.test", names)

    def make(self, name, common_name, names=(), issuer=None, authority=False):
        made = Certificate(os.path.join(self.directory, name))
        argv = ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", f"/CN={common_name}",
                "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-keyout", made.key, "-out", made.certificate,
                "-addext", f"basicConstraints=critical,CA:{'TRUE' if authority else 'FALSE'}"]
        if issuer:
            argv += ["-CA", issuer.certificate, "-CAkey", issuer.key]
        if names:
            kinds = (("IP:" if name[0].isdigit() else "DNS:") + name for name in names)
            argv += ["-addext", "subjectAltName=" + ",".join(kinds)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        os.chmod(made.key, 0o600)
        return made

    def server_context(self, certificate=None, ask_client=False, require_client=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = certificate or self.exchange
        context.load_cert_chain(certificate.certificate, certificate.key)
        if ask_client or require_client:
            context.load_verify_locations(self.ca.certificate)
            context.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
        return context

    def client_context(self):
        return ssl.create_default_context(cafile=self.ca.certificate)
