"""Good evidence of Azure's machines, by a fake Azure, and how tests verify it."""

from __future__ import annotations

from strongroom.crypto import digest
from strongroom.evidence import verify
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors.fake_azure import FakeAzure
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND

NOW = samples.NOW
CONTRACT = digest.raw(samples.DIGEST)
VMS = {kind: FakeAzure.over(kind, now=NOW, contract=CONTRACT) for kind in ("snp", "tdx")}
GOOD = {kind: vm.evidence(BOUND) for kind, vm in VMS.items()}
KINDS = sorted(VMS)


def with_part(kind, name, data) -> Evidence:
    return Evidence(tee="azure", parts={**GOOD[kind].parts, name: data})


# Nothing signs these bytes, and nothing is read from them but that they are what they are expected to be:
# the HCL report's version (1 or 2), and of the TDREPORT all but its report data, since the TD quote says the same
# signed, for every machine to check.
UNSIGNED = {"snp": {4}, "tdx": {4, *range(32, 32 + 128), *range(32 + 192, 32 + 1024)}}
ENDORSED = {kind: vm.endorsements() for kind, vm in VMS.items()}


def verified(kind, evidence=None, endorsements=None, *, binding=BOUND, roots=None, now=NOW):
    return verify.verify(
        evidence or GOOD[kind],
        endorsements or ENDORSED[kind],
        binding=binding,
        roots=frozenset({VMS[kind].root}) if roots is None else roots,
        now=now,
    )
