"""The Workload API against a client that nobody here wrote, and against programs that misuse it."""

import socket
import struct
import threading
from datetime import UTC, datetime, timedelta

import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from strongroom.errors import Malformed
from strongroom.spiffe import svid as svid_model
from strongroom.spiffe import workload_api

DOMAIN = "spiffe://flights.strongroom"
ID = f"{DOMAIN}/room/web/run/run-1"
WAIT = 20.0


def certificate(uri, key, issuer_key, *, serial, authority=False):
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    usage = dict.fromkeys(names, False)
    usage |= {"key_cert_sign": True, "crl_sign": True} if authority else {"digital_signature": True}
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .sign(issuer_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


AUTHORITY = ec.generate_private_key(ec.SECP256R1())
ROOT = certificate(DOMAIN, AUTHORITY, AUTHORITY, serial=1, authority=True)


def made(serial):
    """An SVID with that serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return svid_model.X509Svid(
        id=ID, chain=(certificate(ID, key, AUTHORITY, serial=serial),), key=private, bundle=(ROOT,)
    )


@pytest.fixture
def served(tmp_path):
    """(The socket's path, a function that hands out an SVID.)"""
    path = tmp_path / "spiffe.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=workload_api.serve, args=(listener, theirs))
    thread.start()
    yield path, lambda svid: ours.sendall(svid.encode() + b"\n")
    ours.close()
    thread.join(WAIT)
    assert not thread.is_alive()
    listener.close()
    theirs.close()


class RawClient:
    """HTTP/2 by hand."""

    def __init__(self, path):
        self.plug = socket.socket(socket.AF_UNIX)
        self.plug.settimeout(WAIT)
        self.plug.connect(str(path))
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.http.initiate_connection()
        self.flush()

    def flush(self):
        self.plug.sendall(self.http.data_to_send())

    def ask(self, path, *, metadata="true", end=True):
        stream = self.http.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        if metadata is not None:
            headers.append(("workload.spiffe.io", metadata))
        self.http.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def events(self):
        """Events as they come, until the server hangs up."""
        while data := self.plug.recv(65536):
            yield from self.http.receive_data(data)
            self.flush()

    def first(self, kind):
        return next(event for event in self.events() if isinstance(event, kind))


def test_a_stock_client_gets_the_svid_and_each_that_follows(served):
    spiffe = pytest.importorskip("spiffe")
    path, hand_out = served
    hand_out(made(1001))
    with spiffe.X509Source(socket_path=f"unix:{path}", timeout_in_seconds=WAIT) as source:
        assert str(source.get_x509_context().default_svid.spiffe_id) == ID
        assert source.get_x509_context().default_svid.leaf.serial_number == 1001
        come = threading.Event()
        source.subscribe_for_updates(come.set)
        hand_out(made(1002))
        assert come.wait(WAIT)
        assert source.get_x509_context().default_svid.leaf.serial_number == 1002
    with spiffe.WorkloadApiClient(socket_path=f"unix:{path}") as client:
        bundle = client.fetch_x509_bundles().get_bundle_for_trust_domain(
            spiffe.TrustDomain("flights.strongroom")
        )
        assert [found.public_bytes(serialization.Encoding.DER) for found in bundle.x509_authorities] == [ROOT]


@pytest.mark.parametrize(
    ("path", "metadata", "status"),
    [
        ("/SpiffeWorkloadAPI/FetchX509SVID", None, "3"),
        ("/SpiffeWorkloadAPI/FetchX509SVID", "True", "3"),
        ("/SpiffeWorkloadAPI/FetchJWTSVID", "true", "12"),
        ("/elsewhere", "true", "12"),
    ],
)
def test_other_requests_are_refused_with_a_status(served, path, metadata, status):
    where, hand_out = served
    hand_out(made(1001))
    client = RawClient(where)
    client.ask(path, metadata=metadata)
    answer = client.first(h2.events.ResponseReceived)
    assert dict(answer.headers)["grpc-status"] == status
    client.plug.close()


def test_who_asks_before_there_is_one_is_told(served):
    client = RawClient(served[0])
    client.ask("/SpiffeWorkloadAPI/FetchX509SVID")
    assert dict(client.first(h2.events.ResponseReceived).headers)["grpc-status"] == "7"
    client.plug.close()


def test_whoever_floods_is_cut_off_and_nobody_else_notices(served):
    path, hand_out = served
    hand_out(made(1001))
    honest = RawClient(path)
    stream = honest.ask("/SpiffeWorkloadAPI/FetchX509SVID")
    assert honest.first(h2.events.DataReceived).stream_id == stream
    garbage = socket.socket(socket.AF_UNIX)
    garbage.settimeout(WAIT)
    garbage.connect(str(path))
    garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    while garbage.recv(65536):
        pass  # until it hangs up
    wordy = RawClient(path)
    long = wordy.ask("/SpiffeWorkloadAPI/FetchX509SVID", end=False)
    wordy.http.send_data(long, bytes(8192))
    wordy.flush()
    assert wordy.first(h2.events.StreamReset).stream_id == long
    deaf = RawClient(path)  # whose window has no room for a second SVID
    deaf.plug.sendall(struct.pack(">IBIHI", 6 << 8 | 4, 0, 0, 4, 64))  # SETTINGS: INITIAL_WINDOW_SIZE 64
    silent = deaf.ask("/SpiffeWorkloadAPI/FetchX509SVID")
    assert deaf.first(h2.events.StreamReset).stream_id == silent
    hand_out(made(1002))
    assert honest.first(h2.events.DataReceived).stream_id == stream
    for client in (honest, wordy, deaf):
        client.plug.close()
    garbage.close()


def test_more_connections_than_a_program_needs_are_not_taken(served):
    path, _ = served
    clients = [RawClient(path) for _ in range(workload_api.MAX_CONNECTIONS)]
    for client in clients:
        client.first(h2.events.RemoteSettingsChanged)
    late = socket.socket(socket.AF_UNIX)
    late.settimeout(WAIT)
    late.connect(str(path))
    assert late.recv(1) == b""
    late.close()
    for client in clients:
        client.plug.close()


@pytest.mark.parametrize(
    "change",
    [{"id": "https://flights.strongroom/x"}, {"id": "spiffe://flights"}, {"chain": ()}, {"bundle": ()}],
)
def test_what_is_no_svid_is_malformed(change):
    good = {"id": ID, "chain": (b"leaf",), "key": b"key", "bundle": (b"root",)}
    assert svid_model.parse(svid_model.X509Svid(**good).encode()) == svid_model.X509Svid(**good)
    with pytest.raises(Malformed, match="SVID"):
        svid_model.parse(svid_model.X509Svid(**{**good, **change}).encode())


def test_the_key_is_in_no_representation():
    assert "secret" not in repr(svid_model.X509Svid(id=ID, chain=(), key=b"secret", bundle=()))


def test_a_client_that_an_update_has_cut_off_ends_nothing_when_its_socket_is_looked_at():
    """The client goes in the moment of a renewal: its own event stands behind the update's in the same turn, and ended the process."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        server = workload_api._Server(listener, theirs)
        client = workload_api._Client(server, ours)
        server._clients.add(client)
        server._selector.register(ours, 1, client.act)
        server.drop(client)
        client.act(1)
        server.drop(client)
        assert not server._clients
        server._selector.close()
