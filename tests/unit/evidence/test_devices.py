"""Devices beside a CPU's evidence: all of them, each once, each for this very binding, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.appraisal.default import default_policy
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import attached, verify
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_aws, fake_nvidia
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND

NOW = samples.NOW
CPU = fake_aws.FakeAws(now=NOW)
VENDOR = fake_nvidia.Authority(now=NOW)
GPUS = tuple(fake_nvidia.FakeGpu(now=NOW, authority=VENDOR) for _ in range(3))
ROOTS = frozenset({CPU.root, VENDOR.root})
OTHER = replace(BOUND, keys=replace(BOUND.keys, signing=b"x" * 32))


def verified(shown, *, expected, cpu=None, binding=BOUND, roots=ROOTS, endorsements=NONE):
    counts = expected if isinstance(expected, set) else {expected}
    evidence = replace(cpu or CPU.evidence(BOUND), devices=tuple(shown))
    return attached.verify_with_devices(
        evidence, endorsements, expected=counts, binding=binding, roots=roots, now=NOW
    )


def refusal(*args, **kwargs) -> str:
    with pytest.raises(EvidenceRefused) as caught:
        verified(*args, **kwargs)
    return caught.value.check


def test_all_devices_stand_beside_the_cpu_in_their_order():
    claims = verified([one.evidence(BOUND) for one in GPUS], expected=3)
    assert claims.tee == "nitro"
    assert [one.machine for one in claims.devices] == [one.machine for one in GPUS]
    assert verified([], expected=0).devices == ()
    assert len(verified([one.evidence(BOUND) for one in GPUS[:2]], expected={0, 2, 8}).devices) == 2


def test_what_stands_in_for_a_device_stands_in_for_the_room():
    claims = verified([GPUS[0].evidence(BOUND)], expected=1)
    assert claims.simulated
    assert claims.devices[0].simulated


def test_devices_are_never_passed_over():
    """`evidence.verify` verifies one TEE; whoever hands it a room's evidence with devices gets no claims."""
    with pytest.raises(EvidenceRefused) as caught:
        verify.verify(
            replace(CPU.evidence(BOUND), devices=(GPUS[0].evidence(BOUND),)),
            NONE,
            binding=BOUND,
            roots=ROOTS,
            now=NOW,
        )
    assert caught.value.check == "devices"


def test_each_devices_endorsements_are_its_own():
    shown = [one.evidence(BOUND) for one in GPUS[:2]]
    words = [one.endorsements(evidence).parts for one, evidence in zip(GPUS, shown, strict=False)]

    def named(*places):
        return Endorsements(
            parts={f"device-{at}.{name}": data for at, own in places for name, data in words[own].items()}
        )

    both = verified(shown, expected=2, endorsements=named((0, 0), (1, 1)))
    assert [one.facts["ocsp"] for one in both.devices] == ["good", "good"]
    one = verified(shown, expected=2, endorsements=named((1, 1)))
    assert [device.facts["ocsp"] for device in one.devices] == ["not compared", "good"]
    swapped = named((0, 1), (1, 0))
    assert refusal(shown, expected=2, endorsements=swapped) == "devices.0.chain.revocation"
    assert refusal(shown, expected=2, endorsements=named((2, 0))) == "devices.endorsements"
    for name in ("device-00.ocsp-1", "device-x.ocsp-1", "device-0", "ocsp-1"):
        assert refusal(shown, expected=2, endorsements=Endorsements(parts={name: b"x"})) == "parts"


def test_rule_14_as_many_are_attested_as_are_there():
    shown = [one.evidence(BOUND) for one in GPUS]
    for expected in (0, 1, 2, 4, -1, 65):
        assert refusal(shown, expected=expected) == "devices.count"
    assert refusal([], expected=1) == "devices.count"
    assert refusal([shown[0]] * 65, expected=65) == "devices.count"


def test_rule_14_a_device_that_is_shown_twice_is_not_two():
    first = GPUS[0].evidence(BOUND)
    assert refusal([first, GPUS[1].evidence(BOUND), first], expected=3) == "devices.distinct"
    assert refusal([first, GPUS[0].evidence(BOUND)], expected=2) == "devices.distinct"


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("fault", list(fake_nvidia.Fault))
def test_rule_14_one_failing_device_fails_all(place, fault):
    shown = [one.evidence(BOUND, fault=fault if index == place else None) for index, one in enumerate(GPUS)]
    wanted = fake_nvidia.REFUSED_BY[fault]
    if wanted == "format":
        with pytest.raises(Malformed, match=f"device {place}"):
            verified(shown, expected=3)
    else:
        assert refusal(shown, expected=3) == f"devices.{place}.{wanted}"


def test_rule_14_each_devices_nonce_is_bound_to_the_cpus_evidence():
    """The same nonce of the broker in another room, with other keys, is another binding."""
    assert OTHER.nonce == BOUND.nonce
    shown = [GPUS[0].evidence(BOUND), GPUS[1].evidence(OTHER)]
    assert refusal(shown, expected=2) == "devices.1.binding"


def test_rule_14_a_device_in_debug_is_debug_for_the_default_policy():
    claims = verified([GPUS[0].evidence(BOUND)], expected=1)
    debugged = replace(claims, devices=(replace(claims.devices[0], debug=True),))
    good = [check for check in default_policy(claims, simulated=True) if not check.ok]
    bad = [check.name for check in default_policy(debugged, simulated=True) if not check.ok]
    assert good == []
    assert bad == ["device-0.debug"]


def test_rule_25_cpu_and_devices_of_two_rooms_do_not_mix():
    ours, theirs = CPU.evidence(BOUND), CPU.evidence(OTHER)
    mine, other = GPUS[0].evidence(BOUND), GPUS[0].evidence(OTHER)
    assert verified([mine], expected=1, cpu=ours).devices
    assert verified([other], expected=1, cpu=theirs, binding=OTHER).devices
    assert refusal([other], expected=1, cpu=ours) == "devices.0.binding"
    assert refusal([mine], expected=1, cpu=theirs) == "binding"
    assert refusal([mine], expected=1, cpu=theirs, binding=OTHER) == "devices.0.binding"


def test_a_device_alone_is_no_room_and_a_cpu_is_no_device():
    gpu = GPUS[0].evidence(BOUND)
    assert refusal([gpu], expected=1, cpu=gpu) == "tee"
    assert refusal([CPU.evidence(BOUND)], expected=1) == "devices.0.tee"
    assert refusal([Evidence(tee="other", parts={"x": b"x"})], expected=1) == "devices.0.tee"


def test_each_vendors_root_has_to_be_trusted():
    shown = [GPUS[0].evidence(BOUND)]
    assert refusal(shown, expected=1, roots=frozenset({CPU.root})) == "devices.0.chain.root"
    assert refusal(shown, expected=1, roots=frozenset({VENDOR.root})) == "chain.root"
