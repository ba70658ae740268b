"""A room's program gets its SVIDs by the Workload API, from a process that the agent forked before it had a key."""

from __future__ import annotations

import os

import pytest

from strongroom.agent import owners
from strongroom.agent.certificates import workload_api
from strongroom.agent.certificates.delivery import CertificateFolder
from strongroom.model.contracts.certificate_terms import Delivery
from tests.unit.agent import tls_material

ID = "spiffe://flights.strongroom/room/main/run/x"
WAIT = 20.0


def test_a_stock_client_gets_each_generation_from_the_socket_beside_the_files(tmp_path, monkeypatch):
    spiffe = pytest.importorskip("spiffe")
    monkeypatch.setattr(owners, "FIRST", 0)
    served = workload_api.spawn()
    folder = CertificateFolder(str(tmp_path), Delivery(uid=os.getuid(), gid=os.getgid()))
    first, second = tls_material.generation("alice"), tls_material.generation("alice")
    served.hand_out(folder, first, ID)
    where = workload_api.path(str(tmp_path))
    with spiffe.WorkloadApiClient(socket_path=where.replace("unix://", "unix:")) as client:
        assert str(client.fetch_x509_svid().spiffe_id) == ID
        served.hand_out(folder, second, ID)
        with spiffe.X509Source(workload_api_client=client, timeout_in_seconds=WAIT) as source:
            leaf = source.get_x509_context().default_svid.leaf
            assert leaf.public_key().public_numbers() == second.key.key.public_key().public_numbers()
    assert (tmp_path / workload_api.SOCKET).stat().st_mode & 0o777 == 0o660
    served.close()
