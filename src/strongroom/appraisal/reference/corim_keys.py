"""What the keys of a CoRIM's measurements name in the claims of each TEE: a register, or a fact.

Profiles: CCA realm and platform (draft-ydb-rats-cca-endorsements), AMD SEV-SNP (draft-deeglaze-amd-sev-snp-corim-profile:
its published keys from 640 on, and its later ones 0 and 2), Intel's names of TDX's and SGX's registers. A key that names
nothing in the claims of its TEE is refused: no evidence could ever fit it, and nobody would learn why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from strongroom.encoding import cbor

COMPONENT = "cca.software-component"
REALM_ZERO = re.compile(r"rem[0-3]")
"""Registers that claims leave out where nothing extended them."""

_PCR = r"pcr(?:[0-9]|[1-5][0-9]|6[0-3])"
_TDX = r"mr_td|rtmr[0-3]|mr_seam|mr_signer_seam|mr_config_id|mr_owner|mr_owner_config|mr_service_td"
_REGISTERS = {
    "snp": r"measurement",
    "tdx": _TDX,
    "sgx": r"mr_enclave|signed_product|config_id|isv_ext_prod_id|isv_family_id",
    "cca": r"rim|rem[0-3]|component[0-9]{1,2}",
    "nitro": _PCR,
    "azure": rf"{_PCR}|measurement|{_TDX}",
    "gcp": rf"{_PCR}|measurement|{_TDX}",
    "nvgpu": r"m[0-9]{1,3}",
}
_FACTS = {
    "snp": frozenset({"host_data", "id_key_digest", "author_key_digest", "family_id", "image_id"}),
    "cca": frozenset({"personalization", "config"}),
}
_NAMES: dict[str, dict[int | str, str]] = {
    "snp": {
        0: "measurement",
        2: "host_data",
        641: "measurement",
        642: "host_data",
        643: "id_key_digest",
        644: "author_key_digest",
    },
    "cca": {
        "cca.rim": "rim",
        **{f"cca.rem{index}": f"rem{index}" for index in range(4)},
        "cca.rpv": "personalization",
        "cca.platform-config": "config",
    },
    "tdx": {
        "mrtd": "mr_td",
        "mrseam": "mr_seam",
        "mrsignerseam": "mr_signer_seam",
        "mrconfigid": "mr_config_id",
        "mrowner": "mr_owner",
        "mrownerconfig": "mr_owner_config",
        "mrservicetd": "mr_service_td",
        **{f"rtmr{index}": f"rtmr{index}" for index in range(4)},
    },
    "sgx": {"mrenclave": "mr_enclave", "configid": "config_id"},
}
_NUMBERED = {"tdx": "rtmr", "nvgpu": "m", "nitro": "pcr", "azure": "pcr", "gcp": "pcr", "tpm": "pcr"}


def register(key: cbor.Value, tee: str) -> str | None:
    """The register that a measurement's key names, None where it names a fact. Raises `Malformed`: neither."""
    name = _name(key, tee)
    if name in _FACTS.get(tee, ()):
        return None
    known = _REGISTERS.get(tee)
    if name is None or (known is not None and re.fullmatch(known, name) is None):
        raise _nothing(key, tee)
    return name


def fact(key: cbor.Value, tee: str) -> str:
    """The fact that it names. Raises `Malformed`."""
    name = _name(key, tee)
    if name is None or name not in _FACTS.get(tee, ()):
        raise _nothing(key, tee)
    return name


def numbered(index: cbor.Value, tee: str) -> str:
    """The register with a number, as integrity registers have. Raises `Malformed`."""
    name = register(index, tee)
    if name is None:
        raise _nothing(index, tee)
    return name


def _name(key: cbor.Value, tee: str) -> str | None:
    if isinstance(key, bool) or not isinstance(key, int | str):
        return None
    known = _NAMES.get(tee, {})
    if key in known:
        return known[key]
    if isinstance(key, int):
        prefix = _NUMBERED.get(tee)
        return None if prefix is None or not 0 <= key < 256 else f"{prefix}{key}"
    return known.get(re.sub(r"[^a-z0-9]", "", key.lower()), key)


def _nothing(key: cbor.Value, tee: str) -> Malformed:
    shown = repr(key)[:60] if isinstance(key, int | str) else "of another kind"
    return Malformed(
        f"CoMID: a measurement's key that names no register: {shown}, for {tee}",
        code="unknown-register",
        hint=f"claims of {tee} have {_REGISTERS.get(tee, 'registers of their own').replace('|', ', ')}",
    )
