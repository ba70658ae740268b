"""TLS 1.3 as tunnels use it, by pyOpenSSL: Python's own `ssl` has no exporters.

Both sides show one certificate that they made by themselves, and believe nothing in the other's: whose key it is says the
statement that follows (`handshake`). No earlier version, no resumption, one protocol name.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from OpenSSL import SSL, crypto

from strongroom.crypto import tls as tls_keys
from strongroom.errors import Refused
from strongroom.model import tunnel
from strongroom.model.tunnel import TlsSide

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from datetime import datetime

FAILED = "tunnel-tls"
_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_PARTIAL_WRITE = 1  # SSL_MODE_ENABLE_PARTIAL_WRITE
_HINT = "the other end is no tunnel of this version, or somebody stands between: nothing was sent to it"


class Credentials:
    """A fresh key and its self-made certificate, in this process alone."""

    def __init__(self, *, now: datetime, random: Callable[[int], bytes]) -> None:
        self._key = tls_keys.generate()
        self._der = tls_keys.self_signed(self._key, name="strongroom tunnel", now=now, random=random)
        self._contexts = {side: self._context(side) for side in TlsSide}

    @property
    def leaf(self) -> bytes:
        """The digest of the certificate."""
        return hashlib.sha256(self._der).digest()

    def connection(self, side: TlsSide, link: socket.socket | None) -> SSL.Connection:
        """A TLS connection over `link`, which stays the caller's; over buffers in memory where it is None."""
        connection = SSL.Connection(self._contexts[side], link)
        if side is TlsSide.CLIENT:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        return connection

    def _context(self, side: TlsSide) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD if side is TlsSide.CLIENT else SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(_SUITES)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.clear_mode(_PARTIAL_WRITE)  # a whole buffer, of several records, in one call
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _shown)
        context.use_certificate(tls_keys.certificate(self._der))
        context.use_privatekey(tls_keys.load(self._key))
        if side is TlsSide.CLIENT:
            context.set_alpn_protos([tunnel.ALPN])
        else:
            context.set_alpn_select_callback(_select)
        return context


def channel(connection: SSL.Connection, side: TlsSide, own_leaf: bytes) -> tunnel.TlsFacts:
    """What both ends know of a connection whose handshake is done. Raises `Refused` for one that is not as tunnels are."""
    # By OpenSSL alone: what it takes for a certificate, others may refuse to parse, and nothing in it counts.
    leaf = connection.get_peer_certificate()
    others = len(connection.get_peer_cert_chain() or [])
    facts: dict[str, tuple[object, object]] = {
        "protocol": ("TLSv1.3", connection.get_protocol_version_name()),
        "ALPN": (tunnel.ALPN, connection.get_alpn_proto_negotiated()),
        "certificate": (True, leaf is not None),
        # What a server sees leaves the leaf out.
        "certificates": (1 if side is TlsSide.CLIENT else 0, others),
    }
    for what, (expected, got) in facts.items():
        if expected != got:
            raise Refused(f"tunnel: {what}: expected {expected!r}, got {got!r}", code=FAILED, hint=_HINT)
    theirs = hashlib.sha256(
        b"" if leaf is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, leaf)
    ).digest()
    leaves = {side: own_leaf, side.other: theirs}
    return tunnel.TlsFacts(
        exporter=connection.export_keying_material(tunnel.EXPORTER, tunnel.EXPORTER_BYTES, b""),
        client_leaf=leaves[TlsSide.CLIENT],
        server_leaf=leaves[TlsSide.SERVER],
    )


def failed(cause: SSL.Error) -> Refused:
    """The error that a failed handshake, or a record that does not decrypt, means."""
    reasons = cause.args[0] if cause.args and isinstance(cause.args[0], list) else []
    said = "; ".join(str(reason[-1]) for reason in reasons if reason) or "the connection ended"
    return Refused(f"tunnel: TLS: {said}", code=FAILED, hint=_HINT)


def _shown(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, depth: int, _ok: int) -> bool:
    """A certificate is shown; who shows it is for the statement to say. Chains have no place here."""
    return depth == 0


def _select(_connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return tunnel.ALPN if tunnel.ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
