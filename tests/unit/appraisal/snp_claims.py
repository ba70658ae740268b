"""Claims of an SNP machine, for policies."""

from __future__ import annotations

from strongroom.model.claims import Claims

ROOT = "sha256:" + "11" * 32
CONTRACT = "sha256:" + "ab" * 32

SNP = Claims(
    tee="snp",
    simulated=False,
    root=ROOT,
    machine="c0ffee",
    contract_digest=CONTRACT,
    registers={"measurement": "aa" * 48},
    debug=False,
    memory_guard=False,
    facts={
        "vmpl": 0,
        "product": "Genoa",
        "policy.migrate_ma": False,
        "policy.smt": True,
        "mask_chip_key": False,
        "platform.alias_check_complete": True,
        "platform.ecc_en": True,
    },
    not_checked=("revocation of one chip's VCEK: for minimums",),
    tcb={"committed.snp": 22, "launch.snp": 21, "reported.snp": 20, "committed.microcode": 72},
)
