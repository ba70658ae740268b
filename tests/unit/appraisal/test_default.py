"""The default policy: debug, revoked and simulated claims are no good, strictly also what stricter verifiers ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.appraisal.default import default_policy
from strongroom.appraisal.wording.sentences import explain
from tests.unit.evidence import gcp_evidence as scene

CLAIMS = replace(scene.verified(scene.GOOD), simulated=False)


def failed(claims, **kwargs) -> list[str]:
    checks = default_policy(claims, **kwargs)
    assert all(explain(check).hint for check in checks if not check.ok)
    return [check.name for check in checks if not check.ok]


def test_plain_claims_are_good():
    assert failed(CLAIMS) == []
    assert failed(CLAIMS, strict=True) == []
    assert (
        failed(replace(CLAIMS, status="OutOfDate")) == []
    )  # whoever minds names the statuses that it accepts


@pytest.mark.parametrize(
    ("change", "check"),
    [({"debug": True}, "debug"), ({"status": "Revoked"}, "status"), ({"simulated": True}, "simulated")],
)
def test_each_check_fails_alone_and_for_a_device_too(change, check):
    assert failed(replace(CLAIMS, **change)) == [check]
    with_devices = replace(CLAIMS, devices=(CLAIMS, replace(CLAIMS, **change)))
    assert failed(with_devices) == [f"device-1.{check}"]


def test_software_counts_where_it_is_expected():
    assert failed(replace(CLAIMS, simulated=True), simulated=True) == []


def test_stricter_verifiers_ask_more_of_a_trust_domain():
    registers = CLAIMS.registers | {"mr_service_td": "00" * 47 + "01"}
    bound = replace(CLAIMS, registers=registers, facts={"td_attributes.sept_ve_disable": False})
    assert failed(bound) == []
    assert failed(bound, strict=True) == ["mr_service_td", "td_attributes.sept_ve_disable"]
    fine = replace(
        CLAIMS,
        registers=CLAIMS.registers | {"mr_service_td": "00" * 48},
        facts={"td_attributes.sept_ve_disable": True},
    )
    assert failed(fine, strict=True) == []
