"""An authority of a host outside, and servers with its certificates, for tests."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """der: its certificate. served: what its servers' programs were given, once each handshake was over."""

    def __init__(self):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self._certificate = self._signed(self._name, self._key, is_authority=True)
        self.der = self._certificate.public_bytes(serialization.Encoding.DER)
        self.served = []

    def _signed(self, name, key, *, is_authority=False, host="", days=1):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if host:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def context(self, host, *, days=1, most=ssl.TLSVersion.TLSv1_3):
        """Of a server for `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._signed(x509.Name([]), key, host=host, days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = most
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "server.pem"
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                + leaf.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(path)
        return context

    def serving(self, host, serve, **settings):
        """What does that with a connection: TLS, and then `serve`."""
        context = self.context(host, **settings)

        def act(connection):
            with contextlib.suppress(OSError, ValueError), connection:
                connection.settimeout(30)
                with context.wrap_socket(connection, server_side=True) as secured:
                    self.served.append(host)
                    serve(secured)
                    secured.unwrap()

        return act
