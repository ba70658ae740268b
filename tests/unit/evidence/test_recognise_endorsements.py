"""Endorsements as vendors and their tools give them: any name, DER or PEM, one file or many; judged right from each."""

from __future__ import annotations

import json
import struct
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence import verify
from strongroom.evidence.wrappings import recognise_endorsements as recognising
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.evidence_folder import BINDING, NOW
from strongroom_testing.vendors.fake_amd import FakeAmd, Fault
from strongroom_testing.vendors.fake_intel import FakeIntel
from tests.effort import examples

AMD = FakeAmd(now=NOW)
SNP = AMD.evidence(BINDING)
OF_AMD = AMD.endorsements().parts
VEK, CRL = OF_AMD["vek"], OF_AMD["crl"]
ASK, ARK = x509.split(OF_AMD["issuers"])
INTEL = FakeIntel(now=NOW)
TDX = INTEL.evidence(BINDING)
OF_INTEL = INTEL.endorsements().parts
OF_SGX = INTEL.endorsements(tee="sgx").parts


def certificate(*ders):
    return b"".join(pem.encode(der, b"CERTIFICATE") for der in ders)


def listed(der):
    return pem.encode(der, b"X509 CRL")


def quoted(chain):
    return urllib.parse.quote(chain.decode()).encode()


def http(body, **headers):
    told = "".join(f"{name.replace('_', '-')}: {value.decode()}\r\n" for name, value in headers.items())
    return b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n" + told.encode() + b"\r\n" + body


def table(*entries):
    """The driver's table: kind, where, how long, and the contents behind."""
    at, head, rest = 24 * (len(entries) + 1), b"", b""
    for kind, one in entries:
        head += struct.pack("<16sII", bytes.fromhex(kind), at + len(rest), len(one))
        rest += one
    return head + bytes(24) + rest


AMD_FILES = {
    "our own names": {"vek.der": VEK, "issuers.der": ASK + ARK, "crl.der": CRL},
    "our own names, PEM": {"vek.pem": certificate(VEK), "issuers.pem": certificate(ASK, ARK), "crl.pem": listed(CRL)},
    "snpguest, PEM": {
        "vcek.pem": certificate(VEK),
        "ask.pem": certificate(ASK),
        "ark.pem": certificate(ARK),
        "crl.der": CRL,
    },
    "snpguest, DER": {"vcek.der": VEK, "ask.der": ASK, "ark.der": ARK, "crl.pem": listed(CRL)},
    "AMD's service": {"vcek.crt": VEK, "cert_chain": certificate(ASK, ARK), "Milan.crl": CRL},
    "other names": {"a": ARK, "b.txt": b"chip:\n" + certificate(VEK), "c.cer": listed(CRL), "d.p7": certificate(ASK)},
    "Azure's THIM": {
        "thim.json": json.dumps(
            {
                "vcekCert": certificate(VEK).decode(),
                "tcbm": "DB18000000000004",
                "certificateChain": certificate(ASK, ARK).decode(),
                "cacheControl": "86400",
            }
        ).encode(),
        "crl": CRL,
    },
    "the driver's table": {
        "auxblob": table(
            ("63da758de6644564adc5f4b93be8accd", VEK),
            ("4ab7b379bbac4fe4a02f05aef327c782", ASK),
            ("c0b406a4a803495297433fb6014cd0ae", ARK),
            ("92f81bc358114d3d97ffd19f88dc67ea", CRL),
        )
    },
    "one JSON of ours": {"x.json": Endorsements(parts=OF_AMD).encode()},
    "other lines beside": {
        "vcek.pem": certificate(VEK),
        "cert_chain": certificate(ASK, ARK),
        "genoa_chain": certificate(*x509.split(FakeAmd(now=NOW, line="Genoa").endorsements().parts["issuers"])),
        "crl": CRL,
    },
}  # fmt: skip


@pytest.mark.parametrize("form", AMD_FILES)
def test_amds_files_are_read_as_they_come(form):
    parts = recognising.parts(AMD_FILES[form], evidence=SNP)
    assert parts == {"vek": VEK, "issuers": ASK + ARK, "crl": CRL}
    verify.verify(SNP, Endorsements(parts=parts), binding=BINDING, roots=frozenset({AMD.root}), now=NOW)


def collateral(**changes):
    tcb, qe = (json.loads(OF_INTEL[name]) for name in ("tcb-info", "qe-identity"))
    texts = {name: OF_INTEL[name].decode() for name in ("tcb-info-issuer-chain", "qe-identity-issuer-chain", "pck-crl-issuer-chain")}  # fmt: skip
    value = {
        **{name.replace("-", "_"): text for name, text in texts.items()},
        "root_ca_crl": OF_INTEL["root-ca-crl"].hex(),
        "pck_crl": OF_INTEL["pck-crl"].hex(),
        "tcb_info": OF_INTEL["tcb-info"].decode(),
        "qe_identity": OF_INTEL["qe-identity"].decode(),
        "tcb_info_signature": tcb["signature"],
        "qe_identity_signature": qe["signature"],
    }
    return {"collateral.json": json.dumps({**value, **changes}).encode()}


def inner(name, key):
    text = OF_INTEL[name].decode()
    return text[len(f'{{"{key}":') : text.rindex(',"signature"')]


SIGNER = OF_INTEL["tcb-info-issuer-chain"]
CA = OF_INTEL["pck-crl-issuer-chain"]
ROOT = pem.find_blocks(CA, b"CERTIFICATE")[1]
INTEL_FILES = {
    "our own names": {f"{name}.bin": part for name, part in OF_INTEL.items()},
    "Intel's service": {
        "tcb": http(OF_INTEL["tcb-info"], TCB_Info_Issuer_Chain=quoted(SIGNER)),
        "qe": http(OF_INTEL["qe-identity"], SGX_Enclave_Identity_Issuer_Chain=quoted(SIGNER)),
        "pckcrl": http(OF_INTEL["pck-crl"], SGX_PCK_CRL_Issuer_Chain=quoted(CA)),
        "rootcacrl": OF_INTEL["root-ca-crl"].hex().encode(),
    },
    "bodies, and heads beside": {
        "tcb.json": OF_INTEL["tcb-info"],
        "tcb.headers": b"TCB-Info-Issuer-Chain: " + quoted(SIGNER) + b"\r\nRequest-ID: x\r\n",
        "qe.json": OF_INTEL["qe-identity"] + b"\n",
        "crl.pem": listed(OF_INTEL["pck-crl"]),
        "crl.headers": b"SGX-PCK-CRL-Issuer-Chain: " + quoted(CA) + b"\r\n",
        "root.der": OF_INTEL["root-ca-crl"],
    },
    "certificates alone": {
        "tcbSignCert.pem": certificate(pem.find_blocks(SIGNER, b"CERTIFICATE")[0]),
        "intermediate.der": pem.find_blocks(CA, b"CERTIFICATE")[0],
        "rootCaCert.pem": certificate(ROOT),
        "tcbInfo.json": OF_INTEL["tcb-info"],
        "qeIdentity.json": OF_INTEL["qe-identity"],
        "rootCaCrl.der": OF_INTEL["root-ca-crl"],
        "intermediateCaCrl.der": OF_INTEL["pck-crl"],
    },
    "documents of SGX beside": {
        **{f"{name}.bin": part for name, part in OF_INTEL.items() if not name.endswith(("info", "identity"))},
        "a.json": OF_INTEL["tcb-info"],
        "b.json": OF_INTEL["qe-identity"],
        "c.json": OF_SGX["tcb-info"],
        "d.json": OF_SGX["qe-identity"],
    },
    "collateral, whole answers": collateral(),
    "collateral, signatures beside": collateral(
        tcb_info=inner("tcb-info", "tcbInfo"), qe_identity=inner("qe-identity", "enclaveIdentity")
    ),
    "collateral with a quote's certificates": collateral(pck_certificate_chain=INTEL.pck.chain.decode()),
}


@pytest.mark.parametrize("form", INTEL_FILES)
def test_intels_files_are_read_as_they_come(form):
    parts = recognising.parts(INTEL_FILES[form], evidence=TDX)
    assert parts.keys() == OF_INTEL.keys()
    verify.verify(
        TDX, Endorsements(parts=parts), binding=BINDING, roots=frozenset({INTEL.root_digest}), now=NOW
    )


def test_names_of_parts_and_of_devices_are_kept():
    files = {
        "device-0.ocsp-1.der": b"0",
        "ocsp-2.der": b"1",
        "platform-key.pem": pem.encode(b"key", b"PUBLIC KEY"),
    }
    assert recognising.parts(files, evidence=SNP) == {
        "device-0.ocsp-1": b"0",
        "ocsp-2": b"1",
        "platform-key": b"key",
    }
    # What is not known keeps its name, and the verifier refuses it by that.
    assert recognising.parts({"README.md": b"hello"}, evidence=SNP) == {"README": b"hello"}


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"vcek.pem": certificate(VEK), "b": FakeAmd(now=NOW).endorsements().parts["vek"]}, "vek"),
        ({"vek.der": b"a", "vek.pem": b"b"}, "vek"),
        ({"a": AMD.crl(), "b": AMD.crl(Fault.ISSUER_REVOKED)}, "crl"),
        ({"a": OF_INTEL["tcb-info"], "b": OF_INTEL["tcb-info"].replace(b"UpToDate", b"Revoked!")}, "tcb-info"),
        ({"a": OF_INTEL["root-ca-crl"], "b": INTEL.endorsements().parts["root-ca-crl"]}, "root-ca-crl"),
    ],
)  # fmt: skip
def test_two_files_for_one_part_are_refused(files, part):
    evidence = TDX if part.startswith(("tcb", "root")) else SNP
    with pytest.raises(Malformed, match=f"two files for the part '{part}'"):
        recognising.parts(files, evidence=evidence)


@pytest.mark.parametrize("name", ["pck_crl", "tcb_info", "tcb_info_issuer_chain"])
def test_collateral_that_lacks_anything_is_refused_by_its_name(name):
    value = json.loads(collateral()["collateral.json"])
    with pytest.raises(Malformed, match=f"{name} is missing, or no text|of no"):
        recognising.parts({"c.json": json.dumps({**value, name: None}).encode()}, evidence=TDX)
    value["tcb_info"] = inner("tcb-info", "tcbInfo")
    del value["tcb_info_signature"]
    with pytest.raises(Malformed, match="tcb_info_signature is missing, or no text"):
        recognising.parts({"c.json": json.dumps(value).encode()}, evidence=TDX)


def test_there_are_not_too_many_files():
    with pytest.raises(Malformed, match="more than 256 files"):
        recognising.parts({str(index): b"x" for index in range(257)}, evidence=SNP)


@examples(200)
@given(
    st.dictionaries(
        st.sampled_from(["a", "vcek.pem", "crl", "b.json", "vek.der"]),
        st.binary(max_size=100)
        | st.sampled_from([VEK, ASK + ARK, CRL, certificate(VEK)]).flatmap(
            lambda good: st.integers(0, len(good)).map(lambda at: good[:at] + b"\0" + good[at + 1 :])
        )
        | st.recursive(
            st.none() | st.text(max_size=5),
            lambda inner: st.dictionaries(
                st.sampled_from(["tcb_info", "qe_identity", "parts", "tcbInfo", "signature"]),
                inner,
                max_size=4,
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        max_size=3,
    )
)
def test_rule_15_any_files_are_parts_or_refused_in_words(files):
    try:
        found = recognising.parts(files, evidence=Evidence(tee="snp", parts={"report": b"x"}))
    except Malformed:
        return
    assert all(isinstance(part, bytes) for part in found.values())
