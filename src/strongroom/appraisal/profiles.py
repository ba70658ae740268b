"""Facts about TEEs that policies stand on: bits that are demanded, product lines, and what broke them.

`strict` and `physical-attacker` are the two profiles that a policy may switch on. Both only take acceptance away.

strict             UpToDate alone, no advisories whatever the policy allows, every register compared, nothing waived,
                   VMPL 0, and all bits of `STRICT_FACTS`.
physical-attacker  for those who fear hands on the machine: a machine allow list ("any" is refused), and no product
                   line of `BROKEN`. It does not make an interposer harmless: it makes sure that the machines are ones
                   whose place somebody answers for, and shuts out lines where even that is no help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy import Value

SNP_REPORT = "AMD 56860, ATTESTATION_REPORT"
TDX_ATTRIBUTES = "Intel TDX Module 1.5 ABI, ATTRIBUTES"

# Demanded of a TEE unless the policy waives the fact by its name.
DEFAULT_FACTS: dict[str, dict[str, Value]] = {
    "snp": {"policy.migrate_ma": False},
    "tdx": {"td_attributes.sept_ve_disable": True, "td_attributes.migratable": False},
}
# Demanded by `strict` besides.
STRICT_FACTS: dict[str, dict[str, Value]] = {
    "snp": {"platform.alias_check_complete": True, "platform.ecc_en": True, "mask_chip_key": False},
    "tdx": {"td_attributes.perfmon": False},
    "nitro": {"nitrotpm": False},
}
# Where these facts are specified.
FACT_SOURCES: dict[str, str] = {
    "policy.migrate_ma": SNP_REPORT,
    "platform.alias_check_complete": SNP_REPORT,
    "platform.ecc_en": SNP_REPORT,
    "mask_chip_key": SNP_REPORT,
    "td_attributes.sept_ve_disable": TDX_ATTRIBUTES,
    "td_attributes.migratable": TDX_ATTRIBUTES,
    "td_attributes.perfmon": TDX_ATTRIBUTES,
    "nitrotpm": "AWS Nitro Enclaves User Guide",
}

# Which TEEs' verifiers refuse without sound revocation lists; for the others the vendor publishes none that covers
# the evidence, or (nvgpu) they are not asked for. A TEE that is not named here counts as not checked.
CHECKED, NONE_PUBLISHED, NOT_ASKED = "checked", "none-published", "not-asked"
REVOCATION: dict[str, str] = {
    "sgx": CHECKED,
    "tdx": CHECKED,
    "snp": CHECKED,
    "azure": CHECKED,
    "cca": NONE_PUBLISHED,
    "gcp": NONE_PUBLISHED,
    "nitro": NONE_PUBLISHED,
    "tpm": NONE_PUBLISHED,
    "nvgpu": NOT_ASKED,
}

# Facts of devices that say "not compared" for want of the vendor's reference values, and are settled by those of the
# parties: they show in the registers alone.
SHOWN_IN_REGISTERS: dict[str, frozenset[str]] = {"nvgpu": frozenset({"rim", "debug_mode"})}

# TEEs whose vendor gives each platform a status: an empty one is then no pass.
WITH_STATUS = frozenset({"sgx", "tdx"})

# The first bytes of an FMSPC are the processor's CPUID signature.
_FMSPC_LINES = {
    "00906e": "Coffee Lake",
    "00a065": "Comet Lake",
    "00a067": "Rocket Lake",
    "00606a": "Ice Lake-SP",
    "00606c": "Ice Lake-D",
    "00806f": "Sapphire Rapids",
    "00c06f": "Emerald Rapids",
    "00a06d": "Granite Rapids",
    "00a06f": "Sierra Forest",
}

# Lines that `physical-attacker` denies, and why. Interposers on DDR5 (TEE.fail, 2025) read out keys of one machine at
# a time, in its place: the machine allow list answers that, and whoever thinks it does not adds the line to
# `products_denied`.
BROKEN: dict[str, str] = {
    "Milan": "root seeds were extracted (arXiv 2605.12990), and DDR4 interposers alias its memory (Battering RAM)",
    "Ice Lake-SP": "DDR4 interposers read out its attestation keys (WireTap) and alias its memory (Battering RAM)",
    "Ice Lake-D": "DDR4 interposers read out its attestation keys (WireTap) and alias its memory (Battering RAM)",
}


def demanded_facts(claims: Claims, *, strict: bool) -> tuple[tuple[str, Value], ...]:
    """The facts that hold by default, and by `strict` the further ones."""
    kinds = _kinds(claims)
    tables = (DEFAULT_FACTS, STRICT_FACTS) if strict else (DEFAULT_FACTS,)
    return tuple(demand for table in tables for kind in kinds for demand in table.get(kind, {}).items())


def has_status(claims: Claims) -> bool:
    """Whether the vendor of this TEE says how up to date a platform is."""
    return bool(claims.status) or not WITH_STATUS.isdisjoint(_kinds(claims))


def product_lines(claims: Claims) -> tuple[str, ...]:
    """The names by which policies know this product line; none when the claims do not tell.

    From the facts `product` and `model` (AMD's and NVIDIA's own names) and `fmspc` (the line's name where it is
    known, and always `fmspc:` with the whole of it), also where they stand below a prefix, as `snp.product`.
    """
    names: list[str] = []
    for fact, value in claims.facts.items():
        last = fact.rpartition(".")[2]
        if not isinstance(value, str) or not value:
            continue
        if last in {"product", "model"}:
            names.append(value)
        elif last == "fmspc":
            names += [_FMSPC_LINES[value[:6]]] if value[:6] in _FMSPC_LINES else []
            names.append(f"fmspc:{value}")
    return tuple(dict.fromkeys(names))


def _kinds(claims: Claims) -> tuple[str, ...]:
    """By whose bits the claims are judged: Azure's by those of the hardware beneath, and of both when the claims do not say which that is."""
    if claims.tee != "azure":
        return (claims.tee,)
    hardware = claims.facts.get("hardware")
    return (hardware,) if hardware in {"snp", "tdx"} and isinstance(hardware, str) else ("snp", "tdx")
