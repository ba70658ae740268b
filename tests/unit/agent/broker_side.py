"""A room's side and a real broker (its use cases and database) behind a real TLS server, for tests of the agent."""

from __future__ import annotations

import asyncio
import contextlib
import time

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from strongroom import errors
from strongroom.agent import attest
from strongroom.broker.challenge import challenge
from strongroom.broker.release import release
from strongroom.broker.running.receipt import receipt
from strongroom.broker.running.renewal import renewal
from strongroom.broker.running.watch import Watches
from strongroom.crypto import tls
from strongroom.encoding import canonical
from strongroom.errors import StrongroomError
from strongroom.model import messages
from strongroom.model import watch as watch_model
from strongroom.model.endorsements import NONE
from strongroom.model.room.channel import Start
from strongroom_testing import brokers
from tests.unit.agent.node_end import NodeEnd, TlsServer


class FakeHardware:
    """The scene's fake TPM in the place of the room's."""

    brought = NONE

    def __init__(self, tpm, **options) -> None:
        self.tpm, self.options = tpm, options

    def evidence(self, binding, start):
        return self.tpm.evidence(binding, **self.options)


class Side:
    def __init__(self, world, node, server) -> None:
        self.world, self.node, self.server = world, node, server
        self.agreement = world.agreement()
        self.contract = self.agreement.contract
        self.start = Start(
            agreement=self.agreement.encode(), room="main", launch_record=b"", issuers=b"", manifests={}
        )
        self.keys = attest.make_keys()
        self.disk = brokers.manifest_digest(world.disk)

    def attest(self, *, expected=None, **evidence):
        hardware = FakeHardware(self.world.scene.tpm, **evidence)
        return attest.attest(
            self.node.channel,
            hardware,
            self.start,
            self.contract,
            self.contract.rooms[0],
            self.keys,
            "alice",
            expected or {self.disk},
        )


STATUS = {errors.Malformed: 400, errors.Refused: 403, errors.Conflict: 409, errors.Unavailable: 503}


async def watching(broker, body):
    """A watch that does not wait: a server of these tests answers one connection after the other."""
    request = watch_model.parse_request(body)
    state = await Watches(broker).wait(request.run_id, seconds=0.01)
    return watch_model.WatchAnswer(state=state, time=broker.clock())


def serve(folder, broker, tls_key, twist=None):
    """A TLS server with the broker's own key; `twist(path, status, answer)` may answer in its place."""

    def handle(path, body):
        act = {
            "/v1/challenges": challenge,
            "/v1/releases": release,
            "/v1/renewals": renewal,
            "/v1/watches": watching,
            "/v1/receipts": receipt,
        }[path]
        try:
            answer = asyncio.run(act(broker, body))
        except StrongroomError as cause:
            told = {"code": cause.code, "message": cause.message, "hint": cause.hint}
            status = next(code for kind, code in STATUS.items() if isinstance(cause, kind))
            return status, canonical.dumps({"error": told})
        status = 403 if isinstance(answer, messages.DenialAnswer) else 200
        return twist(path, status, answer) if twist else (status, answer.encode())

    der = tls.self_signed(tls_key, name="broker", now=brokers.contracts.NOW, random=lambda n: bytes([7]) * n)
    pem = load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    return TlsServer(folder, handle, own=(pem, tls_key.pem(), tls_key.pin))


@contextlib.contextmanager
def side(tmp_path, twist=None):
    with brokers.world(tmp_path) as world:
        server = serve(tmp_path, world.broker, brokers.owner()[2].tls, twist)
        node = NodeEnd({"alice": server.address})
        try:
            yield Side(world, node, server)
        finally:
            node.close()
            server.close()


def settle(node, name):
    for _ in range(200):
        if node.files.get(name):
            return node.files[name]
        time.sleep(0.01)
    raise AssertionError(name)
