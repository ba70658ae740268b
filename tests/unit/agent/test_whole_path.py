"""Every TEE's whole path: the agent's own devices code, a channel, a broker process, vendors' services, keys.

Devices and vendors are fakes that sign for real; the TPMs of the clouds are swtpm; all else is the product.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count

import pytest

from strongroom.agent import attest
from strongroom.agent.devices import detect
from strongroom.appraisal.judge import judge
from strongroom.crypto import digest
from strongroom.encoding import fields
from strongroom.errors import PolicyDenied, Refused, Unavailable
from strongroom.model import verdict
from strongroom.model.contracts.contract import Platform
from strongroom.model.endorsements import NONE
from strongroom.model.room.channel import Start
from strongroom_testing import broker_process, brokers
from strongroom_testing.vendors import fake_amd, fake_aws, vendor_services
from strongroom_testing.vendors import fake_devices as fakes
from strongroom_testing.vendors.fake_amd import FakeAmd, Guest
from strongroom_testing.vendors.fake_aws import FakeAws
from strongroom_testing.vendors.fake_azure import FakeAzure
from strongroom_testing.vendors.fake_google import FakeGoogle
from strongroom_testing.vendors.fake_intel import FakeIntel
from tests.unit.agent import cloud_tpms
from tests.unit.agent.node_end import NodeEnd
from tests.unit.evidence.swtpm import needs_swtpm

_NUMBERS = count()


@dataclass(frozen=True, kw_only=True)
class World:
    prepared: broker_process.Prepared
    services: vendor_services.VendorServices
    milan: FakeAmd
    turin: FakeAmd
    vlek: FakeAmd
    intel: FakeIntel
    aws: FakeAws
    google: FakeGoogle

    def agreement(self, tee, root, reference, **changes):
        platform = Platform(
            tee=tee,
            simulated=True,
            memory_guard=False,
            roots=(root,),
            machines=("any",),
            references=(reference,),
        )
        return self.prepared.contract(f"path-{next(_NUMBERS)}", replace(platform, **changes))

    def attest(self, kernel, agreement, *, issuers=b"", bind=True):
        """The room's acts 2 and 5."""
        hardware = detect.hardware(kernel)
        contract = agreement.contract
        if bind:
            hardware.bind_contract(contract.digest)
        settings = self.prepared.settings
        node = NodeEnd({"alice": (settings.host, settings.port)})
        try:
            start = Start(
                agreement=agreement.encode(), room="main", launch_record=b"", issuers=issuers, manifests={}
            )
            keys = attest.make_keys()
            disk = brokers.manifest_digest(brokers.manifest(self.prepared.scene.alice))
            own = contract.rooms[0]
            return attest.attest(node.channel, hardware, start, contract, own, keys, "alice", {disk})
        finally:
            node.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    prepared = broker_process.prepare(folder / "broker")
    now = prepared.scene.now
    milan, turin, vlek = FakeAmd(now=now), FakeAmd(now=now, line="Turin"), FakeAmd(now=now, vlek=True)
    intel = FakeIntel(now=now)
    with vendor_services.serve(folder, now=now, amd=(milan, turin, vlek), intel=intel) as services:
        roots = [milan.root, intel.root_digest]
        options = ["--kds", services.base, "--pccs", services.base, "--ca", str(services.ca)]
        with broker_process.served(prepared, *options, *(word for one in roots for word in ("--root", one))):
            yield World(
                prepared=prepared,
                services=services,
                milan=milan,
                turin=turin,
                vlek=vlek,
                intel=intel,
                aws=FakeAws(now=now),
                google=FakeGoogle(now=now),
            )


def released(world, got, tee):
    assert set(got.disk_keys.values()) == {brokers.DISK_KEY}
    assert got.evidence.tee == tee
    return got


def denied(world, kernel, agreement, **options):
    """The names of the checks by which the broker denies it."""
    with pytest.raises(PolicyDenied) as caught:
        world.attest(kernel, agreement, **options)
    return {check.name for check in caught.value.verdict if not check.ok}


def judged_again(agreement, got, record, endorsements):
    gates = record["body"]["judged"]["gates"]
    told = record["body"]["verdict"]
    return judge(
        agreement,
        got.evidence,
        endorsements,
        binding=got.binding,
        gates=verdict.read_checks(fields.Fields(dict(told), "verdict"))[:gates],
        runs_used=record["body"]["judged"]["runs_used"],
        now=fields.Fields({"decided": told["decided"]}, "verdict").time("decided"),
        lifetime=timedelta(seconds=record["body"]["judged"]["lifetime_seconds"]),
    ).to_json()


def raw(agreement):
    return digest.raw(agreement.contract.digest)


# SEV-SNP

SNP = {"measurement": fake_amd.MEASUREMENT.hex()}


@pytest.mark.parametrize("configfs", [True, False], ids=["configfs-tsm", "sev-guest"])
@pytest.mark.parametrize("line", ["milan", "turin"])
def test_snp(world, configfs, line):
    chip = getattr(world, line)
    agreement = world.agreement("snp", chip.root, SNP)
    guest = Guest(host_data=raw(agreement))
    kernel = fakes.snp_kernel(fakes.FakeSevGuest(chip=chip, guest=guest), configfs=configfs)
    got = released(world, world.attest(kernel, agreement), "snp")
    assert set(got.answer.endorsements.parts) == {"vek", "issuers", "crl"}
    record = json.loads(base64.b64decode(json.loads(got.record())["ledger"]["entry"]))
    assert record["body"]["endorsements"] == digest.sha256(got.answer.endorsements.encode())
    # Anybody can judge again with what was handed out, and nobody with less.
    assert judged_again(agreement, got, record, got.answer.endorsements) == record["body"]["verdict"]
    assert judged_again(agreement, got, record, NONE)["result"] == "denied"


@pytest.mark.parametrize("configfs", [True, False], ids=["configfs-tsm", "sev-guest"])
def test_a_vlek_comes_with_the_report_since_amd_does_not_publish_it(world, configfs):
    agreement = world.agreement("snp", world.vlek.root, SNP)
    made = fakes.FakeSevGuest(
        chip=world.vlek, guest=Guest(host_data=raw(agreement)), table=fakes.certificates(world.vlek)
    )
    released(world, world.attest(fakes.snp_kernel(made, configfs=configfs), agreement), "snp")
    without = fakes.FakeSevGuest(chip=world.vlek, guest=Guest(host_data=raw(agreement)))
    assert "endorsements.found" in denied(world, fakes.snp_kernel(without, configfs=configfs), agreement)


@pytest.mark.parametrize("table", [b"\xff" * 64, bytes(48), b"", b"\x01" * 24])
def test_a_damaged_table_of_certificates_brings_nothing_and_amd_is_asked(world, table):
    agreement = world.agreement("snp", world.milan.root, SNP)
    made = fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=raw(agreement)), table=table)
    released(world, world.attest(fakes.snp_kernel(made), agreement), "snp")


def test_a_certificate_of_another_chip_is_denied(world):
    agreement = world.agreement("snp", world.milan.root, SNP)
    made = fakes.FakeSevGuest(
        chip=world.milan,
        guest=Guest(host_data=raw(agreement)),
        table=fakes.certificates(FakeAmd(now=world.prepared.scene.now)),
    )
    assert denied(world, fakes.snp_kernel(made), agreement) == {"evidence.signature"}


def test_a_guest_launched_for_another_contract_is_refused_by_the_agent_and_denied_by_the_broker(world):
    agreement = world.agreement("snp", world.milan.root, SNP)
    for host_data in (bytes(32), raw(world.agreement("snp", world.milan.root, SNP))):
        kernel = fakes.snp_kernel(fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=host_data)))
        with pytest.raises(Refused) as caught:
            world.attest(kernel, agreement)
        assert caught.value.code == "contract-mismatch"
        # An agent that did not look would get nothing either.
        assert denied(world, kernel, agreement, bind=False) == {"platform.contract"}


@pytest.mark.parametrize(
    ("guest", "check"),
    [
        ({"policy": 0xB0000}, "platform.debug"),
        ({"vmpl": 2}, "platform.vmpl"),
        ({"measurement": bytes(48)}, "platform.reference.measurement"),
        ({"policy": 0x70000}, "platform.default.policy.migrate_ma"),
    ],
)
def test_snp_guests_that_no_contract_accepts(world, guest, check):
    agreement = world.agreement("snp", world.milan.root, SNP)
    made = fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=raw(agreement), **guest))
    assert check in denied(world, fakes.snp_kernel(made), agreement)


def test_a_replayed_report_is_denied(world):
    agreement = world.agreement("snp", world.milan.root, SNP)

    class Replaying(fakes.FakeSevGuest):
        def report(self, data, level):
            return super().report(b"\x07" * 64, level)

    made = Replaying(chip=world.milan, guest=Guest(host_data=raw(agreement)))
    assert denied(world, fakes.snp_kernel(made), agreement) == {"evidence.binding"}


def test_under_a_paravisor_the_report_says_its_level(world):
    agreement = world.agreement("snp", world.milan.root, SNP)
    made = fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=raw(agreement)), floor=2)
    for configfs in (True, False):
        assert denied(world, fakes.snp_kernel(made, configfs=configfs), agreement) == {"platform.vmpl"}


def test_two_who_ask_at_once_get_nothing(world):
    agreement = world.agreement("snp", world.milan.root, SNP)
    made = fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=raw(agreement)))
    with pytest.raises(Refused) as caught:
        world.attest(fakes.snp_kernel(made, race=True), agreement)
    assert caught.value.code == "report-raced"


# Intel TDX


def td_reference():
    return {
        "mr_td": hashlib.sha384(b"firmware").hexdigest(),
        **{name: hashlib.sha384(name.encode()).hexdigest() for name in ("rtmr0", "rtmr1", "rtmr2")},
        "rtmr3": "0" * 96,
        "mr_seam": hashlib.sha384(b"module").hexdigest(),
        "mr_signer_seam": "0" * 96,
        "mr_owner": "0" * 96,
        "mr_owner_config": "0" * 96,
    }


def td(world, agreement, **options):
    body = {"mr_config_id": raw(agreement).ljust(48, b"\0"), **options.pop("body", {})}
    return fakes.tdx_kernel(fakes.FakeTdxGuest(platform=world.intel, body=body, **options))


@pytest.mark.parametrize(
    ("version", "padded", "more"),
    [(4, False, {}), (4, True, {}), (5, True, {"mr_service_td": "0" * 96})],
)
def test_tdx(world, version, padded, more):
    agreement = world.agreement("tdx", world.intel.root_digest, td_reference() | more)
    got = released(
        world, world.attest(td(world, agreement, version=version, padded=padded), agreement), "tdx"
    )
    assert "tcb-info" in got.answer.endorsements.parts


def test_a_trust_domain_for_another_contract_is_refused_by_the_agent_and_denied_by_the_broker(world):
    agreement = world.agreement("tdx", world.intel.root_digest, td_reference())
    for config_id in (bytes(48), raw(agreement) + b"\1" * 16):
        kernel = td(world, agreement, body={"mr_config_id": config_id})
        with pytest.raises(Refused) as caught:
            world.attest(kernel, agreement)
        assert caught.value.code == "contract-mismatch"
        assert "platform.contract" in denied(world, kernel, agreement, bind=False)


def test_a_trust_domain_under_debug_is_denied(world):
    agreement = world.agreement("tdx", world.intel.root_digest, td_reference())
    attributes = (1 << 28 | 1).to_bytes(8, "little")
    assert "platform.debug" in denied(
        world, td(world, agreement, body={"td_attributes": attributes}), agreement
    )


def test_without_a_quote_a_trust_domain_proves_nothing(world):
    made = fakes.FakeTdxGuest(platform=world.intel)
    with pytest.raises(Unavailable) as caught:
        detect.hardware(fakes.FakeKernel(devices={detect.TDX: made}))
    assert caught.value.code == "no-quote"


# AWS Nitro

NITRO = {f"pcr{index}": fake_aws.PCRS[index].hex() for index in range(3)}


def test_nitro(world):
    agreement = world.agreement("nitro", world.aws.root, NITRO)
    enclave = fakes.FakeNsm(region=world.aws)
    released(world, world.attest(fakes.nitro_kernel(enclave), agreement), "nitro")
    assert 16 in enclave.locked
    # One contract in an enclave's life.
    with pytest.raises(Refused) as caught:
        world.attest(fakes.nitro_kernel(enclave), agreement)
    assert caught.value.code == "pcr-in-use"


def test_an_enclave_bound_to_another_contract_is_denied(world):
    agreement, other = (world.agreement("nitro", world.aws.root, NITRO) for _ in range(2))
    enclave = fakes.FakeNsm(region=world.aws)
    detect.hardware(fakes.nitro_kernel(enclave)).bind_contract(other.contract.digest)
    assert "platform.contract" in denied(world, fakes.nitro_kernel(enclave), agreement, bind=False)
    never = fakes.FakeNsm(region=world.aws)
    assert "platform.contract" in denied(world, fakes.nitro_kernel(never), agreement, bind=False)


def test_an_nsm_that_does_not_lock_is_found_out(world):
    agreement = world.agreement("nitro", world.aws.root, NITRO)
    with pytest.raises(Refused) as caught:
        world.attest(fakes.nitro_kernel(fakes.FakeNsm(region=world.aws, lies=True)), agreement)
    assert caught.value.code == "pcr-wrong"


def test_an_enclave_in_debug_mode_is_denied(world):
    agreement = world.agreement("nitro", world.aws.root, dict.fromkeys(NITRO, "0" * 96))
    zeros = dict.fromkeys(range(16), bytes(48))
    enclave = fakes.FakeNsm(region=world.aws, pcrs=zeros)
    assert "platform.debug" in denied(world, fakes.nitro_kernel(enclave), agreement)


# Azure, over SEV-SNP


@needs_swtpm
def test_azure(world):
    vm = FakeAzure(hardware=world.milan)
    with cloud_tpms.of_azure(vm) as (transport, registers):
        agreement = world.agreement("azure", vm.root, SNP | registers)
        kernel = fakes.FakeKernel(transport=transport)
        released(world, world.attest(kernel, agreement), "azure")
        with pytest.raises(Refused) as caught:
            world.attest(kernel, agreement)
        assert caught.value.code == "pcr-in-use"
        other = world.agreement("azure", vm.root, SNP | registers)
        assert "platform.contract" in denied(world, kernel, other, bind=False)


@needs_swtpm
def test_an_azure_vm_in_debug_mode_is_denied(world):
    vm = FakeAzure(hardware=world.milan)
    with cloud_tpms.of_azure(vm, guest=Guest(policy=0xB0000)) as (transport, registers):
        agreement = world.agreement("azure", vm.root, SNP | registers)
        assert "platform.debug" in denied(world, fakes.FakeKernel(transport=transport), agreement)


# Google


@needs_swtpm
def test_google_vtpm(world):
    with cloud_tpms.of_google(world.google) as (transport, registers):
        agreement = world.agreement("gcp", world.google.root, registers)
        kernel = fakes.FakeKernel(transport=transport)
        released(world, world.attest(kernel, agreement, issuers=world.google.issuers), "gcp")
        assert denied(world, kernel, agreement, bind=False) == {"evidence.format"}  # without the issuers
        other = world.agreement("gcp", world.google.root, registers)
        options = {"bind": False, "issuers": world.google.issuers}
        assert "platform.contract" in denied(world, kernel, other, **options)


@needs_swtpm
@pytest.mark.parametrize("host_data", [False, True])
def test_google_confidential_vm_over_snp(world, host_data):
    with cloud_tpms.of_google(world.google) as (transport, registers):
        roots = (world.milan.root, world.google.root)
        agreement = world.agreement("gcp", roots[0], SNP | registers, roots=roots)
        guest = Guest(host_data=raw(agreement)) if host_data else Guest()
        made = fakes.FakeSevGuest(chip=world.milan, guest=guest)
        kernel = fakes.FakeKernel(devices={detect.SEV: made}, files=made.files(), transport=transport)
        got = released(world, world.attest(kernel, agreement, issuers=world.google.issuers), "gcp")
        assert "snp-report" in got.evidence.parts


@needs_swtpm
def test_a_google_vm_launched_for_another_contract_is_refused(world):
    with cloud_tpms.of_google(world.google) as (transport, registers):
        agreement = world.agreement("gcp", world.google.root, registers)
        made = fakes.FakeSevGuest(chip=world.milan, guest=Guest(host_data=b"\1" * 32))
        kernel = fakes.FakeKernel(devices={detect.SEV: made}, transport=transport)
        with pytest.raises(Refused) as caught:
            world.attest(kernel, agreement)
        assert caught.value.code == "contract-mismatch"


# What vendors say


def test_amd_is_not_asked_for_a_room_of_strangers(world):
    chip = FakeAmd(now=world.prepared.scene.now)
    strangers = world.prepared.scene.agreement(
        lambda one: replace(
            world.prepared.agreement.contract,
            id="strange",
            platforms=world.agreement("snp", chip.root, SNP).contract.platforms,
            raw=one.raw,
        ),
        signers=("bob",),
    )
    before = len(world.services.asked)
    made = fakes.FakeSevGuest(chip=chip, guest=Guest(host_data=raw(strangers)))
    assert denied(world, fakes.snp_kernel(made), strangers) == {"own.signature"}
    assert len(world.services.asked) == before


def test_amd_away_is_no_decision_and_what_is_kept_serves(world):
    agreement = world.agreement("snp", world.turin.root, SNP)
    made = fakes.FakeSevGuest(chip=world.turin, guest=Guest(host_data=raw(agreement)))
    released(world, world.attest(fakes.snp_kernel(made), agreement), "snp")
    world.services.spoil("/", lambda reply: replace(reply, status=500))
    try:
        released(world, world.attest(fakes.snp_kernel(made), agreement), "snp")
        fresh = FakeAmd(now=world.prepared.scene.now, line="Genoa")
        agreement = world.agreement("snp", fresh.root, SNP)
        other = fakes.FakeSevGuest(chip=fresh, guest=Guest(host_data=raw(agreement)))
        with pytest.raises(Unavailable, match="vcek/v1/Genoa/cert_chain: HTTP 500"):
            world.attest(fakes.snp_kernel(other), agreement)
    finally:
        world.services.heal()
