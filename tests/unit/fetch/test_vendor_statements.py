"""Endorsements from the fake vendors: what is asked, what verifiers make of it, and services that lie."""

from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import replace

import pytest

from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.evidence import verify
from strongroom.fetch.endorsements import intel as pcs
from strongroom.fetch.endorsements import issuers, nvidia
from strongroom.fetch.endorsements.resolve import Vendors
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors.fake_amd import FakeAmd, Guest
from strongroom_testing.vendors.fake_amd import Fault as AmdFault
from strongroom_testing.vendors.fake_azure import FakeAzure
from strongroom_testing.vendors.fake_google import FakeGoogle
from strongroom_testing.vendors.fake_intel import FakeIntel
from strongroom_testing.vendors.fake_nvidia import FakeGpu
from strongroom_testing.vendors.intel_faults import F
from strongroom_testing.vendors.intel_pki import FMSPC, PROCESSOR_CA, Entity
from strongroom_testing.vendors.vendor_services import (
    GOOGLE_HOST,
    RIM,
    RIM_ID,
    FakeIssuers,
    Reply,
    of_type,
    revocation_list,
    serve,
)
from tests.unit.fetch.vendors import BOUND, DAY, NOW, chip, fetcher, intel


@pytest.fixture
def services(tmp_path):
    with serve(tmp_path, now=NOW, amd=(chip(),), intel=intel()) as made:
        yield made


def verified(evidence, endorsements, root, binding=BOUND, now=NOW):
    return verify.verify(evidence, endorsements, binding=binding, roots=frozenset({root}), now=now)


# What is asked for which evidence


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
@pytest.mark.parametrize("version", [None, 4, 5])
def test_a_quote_gets_what_its_verifier_reads(tmp_path, services, tee, version):
    evidence = intel().evidence(BOUND, tee=tee, version=version)
    found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert verified(evidence, found, intel().root_digest).status == "UpToDate"
    assert services.asked == [
        f"/{tee}/certification/v4/tcb?fmspc={FMSPC.hex()}&update=standard",
        f"/{tee}/certification/v4/qe/identity?update=standard",
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "/IntelSGXRootCA.der",
    ]


def test_the_list_is_that_of_the_platform_s_own_ca(tmp_path):
    with serve(tmp_path, now=NOW, intel=intel(True)) as services:
        evidence = intel(True).evidence(BOUND)
        found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert "/sgx/certification/v4/pckcrl?ca=processor&encoding=der" in services.asked
    verified(evidence, found, intel(True).root_digest)


def test_early_updates_are_asked_for_as_such(tmp_path, services):
    fetcher(tmp_path, services, update="early").endorse(intel().evidence(BOUND), now=NOW)
    assert [path for path in services.asked if path.endswith("update=early")] == services.asked[:2]


def test_a_pccs_is_asked_for_the_root_s_list_too_and_sends_it_in_hexadecimal(tmp_path, services):
    vendors = Vendors(pcs=pcs.Pcs(api=services.service, lists=None))
    evidence = intel().evidence(BOUND)
    found = fetcher(tmp_path, services, vendors=vendors).endorse(evidence, now=NOW)
    assert services.asked[-1] == "/sgx/certification/v4/rootcacrl"
    verified(evidence, found, intel().root_digest)


def test_a_service_may_live_below_a_path(tmp_path, services):
    below = replace(services.service, base=services.base + "/pccs/")
    with pytest.raises(NotFound, match=r"/pccs/tdx/certification/v4/tcb.*: not found"):
        fetcher(tmp_path, services, vendors=Vendors(pcs=pcs.Pcs(api=below, lists=None))).endorse(
            intel().evidence(BOUND), now=NOW
        )
    assert services.asked[-1].startswith("/pccs/tdx/certification/v4/tcb?")


def test_a_quote_that_only_names_its_platform_gets_its_certificates(tmp_path, services):
    evidence = intel().evidence(BOUND, fault=F.PCK_ABSENT)
    found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert services.asked[0].startswith("/sgx/certification/v4/pckcert?encrypted_ppid=" + "00" * 384)
    assert "pck-certificate-chain" in found.parts
    verified(evidence, found, intel().root_digest)


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
def test_a_report_gets_its_chip_s_certificate_the_chain_and_the_list(tmp_path, line):
    one = chip(line)
    with serve(tmp_path, now=NOW, amd=(one,)) as services:
        evidence = one.evidence(BOUND)
        found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert verified(evidence, found, one.root).facts["product"] == line
    query = services.asked[1].partition("?")[2]
    assert services.asked[0] == f"/vcek/v1/{line}/cert_chain"
    assert services.asked[2] == f"/vcek/v1/{line}/crl"
    assert ("fmcSPL=01" in query) is (line == "Turin")


def test_the_certificate_is_that_of_the_reported_tcb(tmp_path, services):
    other = bytes([3, 0, 0, 0, 0, 0, 20, 200])
    evidence = chip().evidence(BOUND, guest=Guest(committed_tcb=other, launch_tcb=other, current_tcb=other))
    found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219" in services.asked[1]
    verified(evidence, found, chip().root)


def test_an_old_report_s_line_is_tried_out(tmp_path):
    one = chip("Genoa")
    with serve(tmp_path, now=NOW, amd=(one,)) as services:
        evidence = one.evidence(BOUND, guest=Guest(version=2))
        found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert [path.split("/")[3] for path in services.asked] == ["Milan", "Genoa", "Genoa", "Genoa"]
    verified(evidence, found, one.root)


def test_a_vlek_certificate_has_to_be_brought(tmp_path):
    one = chip("Milan", vlek=True)
    with serve(tmp_path, now=NOW, amd=(one,)) as services:
        evidence, vek = one.evidence(BOUND), one.endorsements().parts["vek"]
        made = fetcher(tmp_path, services)
        with pytest.raises(NotFound, match="does not publish"):
            made.endorse(evidence, now=NOW)
        assert services.asked == []
        found = made.endorse(evidence, now=NOW, vek=vek)
    assert services.asked == ["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"]
    verified(evidence, found, one.root)


def test_an_unknown_processor_is_not_asked_for(tmp_path, services):
    with pytest.raises(NotFound, match="model 0x1: not known to this version"):
        fetcher(tmp_path, services).endorse(chip().evidence(BOUND, fault=AmdFault.UNKNOWN_CPU), now=NOW)
    assert services.asked == []


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_azure_gets_its_hardware_s(tmp_path, services, kind):
    vm = FakeAzure(hardware=chip() if kind == "snp" else intel())
    binding = Preset(values={"extra_data": b"\x05" * 32})
    evidence = vm.evidence(binding)
    found = fetcher(tmp_path, services).endorse(evidence, now=NOW)
    verified(evidence, found, vm.root, binding=binding)


def test_google_gets_its_hardware_s_or_nothing(tmp_path, services):
    binding = Preset(values={"extra_data": b"\x05" * 32, **BOUND.values})
    instance = FakeGoogle(now=NOW)
    evidence = instance.evidence(binding)
    made = fetcher(tmp_path, services)
    assert made.endorse(evidence, now=NOW) == NONE
    assert services.asked == []
    for part, inner in (("td-quote", intel().evidence(BOUND)), ("snp-report", chip().evidence(BOUND))):
        (data,) = inner.parts.values()
        with_hardware = Evidence(tee="gcp", parts={**evidence.parts, part: data})
        found = made.endorse(with_hardware, now=NOW)
        roots = frozenset({instance.root, intel().root_digest, chip().root})
        verify.verify(with_hardware, found, binding=binding, roots=roots, now=NOW)


@pytest.mark.parametrize("tee", ["nitro", "tpm", "nvgpu"])
def test_evidence_that_carries_all_asks_nobody(tmp_path, services, tee):
    assert fetcher(tmp_path, services).endorse(Evidence(tee=tee, parts={"x": b"y"}), now=NOW) == NONE
    assert services.asked == []


@pytest.mark.parametrize("tee", ["cca", "unheard-of"])
def test_what_nobody_publishes_is_not_found(tmp_path, services, tee):
    with pytest.raises(NotFound, match="nobody publishes endorsements for it"):
        fetcher(tmp_path, services).endorse(Evidence(tee=tee, parts={"x": b"y"}), now=NOW)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (Evidence(tee="tdx", parts={"quote": b"junk"}), "quote: 4 bytes, expected 49 to 65536"),
        (Evidence(tee="tdx", parts={"report": b"junk"}), "tdx evidence: part 'quote' is missing"),
        (Evidence(tee="snp", parts={"report": b"junk"}), "SNP report: 4 bytes, expected 1184"),
        (Evidence(tee="azure", parts={"hcl-report": b"junk"}), "HCL report: 4 bytes, expected 1237 to 16384"),
        (Evidence(tee="gcp", parts={"td-quote": b"junk"}), "quote: 4 bytes, expected 49 to 65536"),
    ],
)
def test_junk_asks_nobody(tmp_path, services, evidence, why):
    with pytest.raises(Malformed, match=why):
        fetcher(tmp_path, services).endorse(evidence, now=NOW)
    assert services.asked == []


def test_rule_59_a_platform_that_intel_never_certified_asks_nobody(tmp_path, services):
    stranger = FakeIntel(now=NOW)
    with pytest.raises(EvidenceRefused) as refusal:
        fetcher(tmp_path, services).endorse(stranger.evidence(BOUND), now=NOW)
    assert refusal.value.check == "pck.root"
    assert services.asked == []


# Services that lie. What verification would say of the same is shown beside.


def refused(tmp_path, services, evidence, kind=Refused, code="not-the-vendors"):
    made = fetcher(tmp_path, services)
    with pytest.raises(kind) as failure:
        made.endorse(evidence, now=NOW)
    if code:
        assert failure.value.code == code
    return made


def test_tcb_info_of_another_fmspc_is_refused_and_leaves_no_trace(tmp_path, services):
    services.again(tcb={"fmspc": "aabbccddeeff"})
    evidence = intel().evidence(BOUND)
    made = refused(tmp_path, services, evidence)
    assert list(made.library.listed(now=NOW)) == []
    assert made.library.marks.seen() == {}
    with pytest.raises(EvidenceRefused) as refusal:
        verified(evidence, Endorsements(parts=services.intel_parts["tdx"]), intel().root_digest)
    assert refusal.value.check == "tcb.platform"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (F.QE_IDENTITY_FORGED, "qe-identity.signature"),
        (F.QE_IDENTITY_WRONG_ISSUER, "qe-identity.path"),
        (F.TCB_INFO_EDITED, "tcb-info.signature"),
        (F.QE_IDENTITY_OF_OTHER_TEE, "qe.identity"),
        (F.TCB_INFO_OF_OTHER_TEE, "tcb.platform"),
        (F.ROOT_CRL_FORGED, "root-ca-crl.signature"),
        (F.PCK_CRL_FORGED, "pck-crl.signature"),
        (F.PCK_CRL_OF_OTHER_CA, "pck-crl.signature"),
        (F.SIGNER_ENDED, "tcb-info.validity"),
    ],
)
def test_what_intel_did_not_sign_for_this_is_not_kept(tmp_path, services, fault, check):
    evidence = intel().evidence(BOUND)
    services.again(fault=fault)
    for parts in services.intel_parts.values():
        services.intel_parts["sgx"] |= {name: parts[name] for name in ("root-ca-crl", "pck-crl")}
    made = refused(tmp_path, services, evidence)
    with pytest.raises(EvidenceRefused) as refusal:
        verified(evidence, intel().endorsements(fault=fault), intel().root_digest)
    assert refusal.value.check == check
    kept = {one.statement.key for one in made.library.listed(now=NOW)}
    services.heal()
    services.again()
    verified(evidence, made.endorse(evidence, now=NOW), intel().root_digest)
    assert len(kept) < 4


@pytest.mark.parametrize("fault", [F.TCB_INFO_ENDED, F.QE_IDENTITY_ENDED, F.ROOT_CRL_ENDED, F.PCK_CRL_ENDED])
def test_what_is_past_its_end_is_unavailable(tmp_path, services, fault):
    services.again(fault=fault)
    refused(tmp_path, services, intel().evidence(BOUND), kind=Unavailable, code="stale")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[" * 5000,
        b'{"tcbInfo":{},"signature":""}',
        b"\xff\xfe",
        b'{"tcbInfo":{"a":1},"signature":"' + b"0" * 128 + b'"}',
    ],
)
@pytest.mark.parametrize("path", ["/tcb", "/qe/identity"])
def test_garbage_documents_are_refused(tmp_path, services, body, path):
    services.spoil(path, lambda good: replace(good, body=body))
    with pytest.raises((Malformed, Refused)) as failure:
        fetcher(tmp_path, services).endorse(intel().evidence(BOUND), now=NOW)
    assert services.base in failure.value.message


def test_a_truncated_document_is_refused(tmp_path, services):
    services.spoil("/tcb", lambda good: replace(good, body=good.body[:-1]))
    refused(tmp_path, services, intel().evidence(BOUND), kind=Malformed, code="vendor-answer")


CHAIN = "TCB-Info-Issuer-Chain"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "junk",
        "%",
        "%0d%0aX-Evil:%20yes",
        "-----BEGIN%20CERTIFICATE-----%0A-----END%20CERTIFICATE-----%0A",
        "{good}%0d%0aSet-Cookie:%20a",
        "{good}{good}",
        "{good}%00%00",
    ],
)
def test_issuers_in_headers_are_read_strictly(tmp_path, services, value):
    good = urllib.parse.quote(services.intel_parts["tdx"]["tcb-info-issuer-chain"])
    services.spoil("/tcb", lambda one: one.having(CHAIN, value.format(good=good)))
    why = "more than 2 blocks" if value == "{good}{good}" else "expected PEM: CERTIFICATE blocks"
    with pytest.raises(Malformed, match=f"tcb-info: {why}"):
        fetcher(tmp_path, services).endorse(intel().evidence(BOUND), now=NOW)


def test_a_header_given_twice_is_refused(tmp_path, services):
    services.spoil("/tcb", lambda one: replace(one, headers=(*one.headers, one.headers[-1])))
    refused(tmp_path, services, intel().evidence(BOUND), kind=Malformed, code="vendor-answer")


def test_a_header_that_is_missing_is_refused(tmp_path, services):
    services.spoil("/tcb", lambda one: replace(one, headers=one.headers[:1]))
    refused(tmp_path, services, intel().evidence(BOUND), kind=Malformed, code="vendor-answer")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (AmdFault.VEK_FORGED, Refused),
        (AmdFault.VEK_OF_OTHER_LINE, Refused),
        (AmdFault.VEK_OF_UNKNOWN_PRODUCT, Refused),
        (AmdFault.VEK_OF_OTHER_KIND, Refused),
        (AmdFault.VEK_EXPIRED, Unavailable),
        (AmdFault.EXTENSION_MISSING, Malformed),
        (AmdFault.OTHER_ROOT, Refused),
        (AmdFault.ISSUER_OF_OTHER_LINE, Refused),
        (AmdFault.ISSUER_MISSING, Refused),
        (AmdFault.ISSUER_IS_NO_CA, Refused),
        (AmdFault.ISSUER_EXPIRED, Refused),
        (AmdFault.CRL_FORGED, Refused),
        (AmdFault.CRL_OF_ISSUER, Refused),
        (AmdFault.CRL_STALE, Unavailable),
    ],
)
def test_what_amd_did_not_sign_for_this_is_not_kept(tmp_path, services, fault, kind):
    services.amd_parts().update(chip().endorsements(fault=fault).parts)
    refused(tmp_path, services, chip().evidence(BOUND), kind=kind, code="")
    services.amd_parts().update(chip().endorsements().parts)
    found = fetcher(tmp_path, services).endorse(chip().evidence(BOUND), now=NOW)
    verified(chip().evidence(BOUND), found, chip().root)


def test_a_certificate_of_another_tcb_is_refused(tmp_path, services):
    other = FakeAmd(now=NOW)
    other.tcb = bytes([3, *other.tcb[1:]])
    services.spoil("blSPL", lambda good: replace(good, body=other.endorsements().parts["vek"]))
    refused(tmp_path, services, chip().evidence(BOUND))


def test_a_chip_that_amd_does_not_know_is_not_found(tmp_path, services):
    with pytest.raises(NotFound, match=r"/vcek/v1/Milan/.*: not found"):
        fetcher(tmp_path, services).endorse(chip().evidence(BOUND, fault=AmdFault.OTHER_CHIP), now=NOW)


def test_a_chain_as_anything_but_pem_is_refused(tmp_path, services):
    services.spoil("cert_chain", lambda good: replace(good, body=b"<html>" + good.body))
    refused(tmp_path, services, chip().evidence(BOUND), kind=Malformed, code="vendor-answer")


# Numbers that go back (rule 2)


def test_rule_02_an_older_tcb_evaluation_is_refused_once_a_newer_was_seen(tmp_path, services):
    evidence = intel().evidence(BOUND)
    fetcher(tmp_path, services).endorse(evidence, now=NOW)
    services.again(tcb={"tcbEvaluationDataNumber": 16})
    with pytest.raises(Refused) as refusal:
        fetcher(tmp_path, services, refresh=True).endorse(evidence, now=NOW)
    assert refusal.value.code == "downgrade"
    services.again(tcb={"tcbEvaluationDataNumber": 18})
    fetcher(tmp_path, services, refresh=True).endorse(evidence, now=NOW)
    services.again()
    with pytest.raises(Refused, match="number 17, but 18 was seen"):
        fetcher(tmp_path, services, refresh=True).endorse(evidence, now=NOW)


def test_rule_02_the_same_of_qe_identities(tmp_path, services):
    evidence = intel().evidence(BOUND)
    fetcher(tmp_path, services).endorse(evidence, now=NOW)
    services.again(identity={"tcbEvaluationDataNumber": 16})
    with pytest.raises(Refused) as refusal:
        fetcher(tmp_path, services, refresh=True).endorse(evidence, now=NOW)
    assert refusal.value.code == "downgrade"


@pytest.mark.parametrize(("part", "path"), [("root-ca-crl", "root"), ("pck-crl", "pck")])
def test_rule_02_the_same_of_revocation_lists(tmp_path, services, part, path):
    evidence = intel().evidence(BOUND)
    issuer = intel().root if path == "root" else intel().ca
    services.intel_parts["sgx"][part] = revocation_list(issuer, number=7, now=NOW)
    fetcher(tmp_path, services).endorse(evidence, now=NOW)
    services.intel_parts["sgx"][part] = revocation_list(issuer, number=6, now=NOW)
    with pytest.raises(Refused) as refusal:
        fetcher(tmp_path, services, refresh=True).endorse(evidence, now=NOW)
    assert refusal.value.code == "downgrade"


def test_the_memory_outlives_what_is_kept(tmp_path, services):
    evidence = intel().evidence(BOUND)
    made = fetcher(tmp_path, services)
    made.endorse(evidence, now=NOW)
    for one in list(made.library.listed(now=NOW)):
        made.library.drop(one.statement.key)
    services.again(tcb={"tcbEvaluationDataNumber": 16})
    with pytest.raises(Refused, match="number 16, but 17 was seen"):
        fetcher(tmp_path, services).endorse(evidence, now=NOW)


def test_another_tee_and_another_platform_have_numbers_of_their_own(tmp_path, services):
    services.again(tcb={"tcbEvaluationDataNumber": 99})
    fetcher(tmp_path, services).endorse(intel().evidence(BOUND, tee="tdx"), now=NOW)
    services.again()
    fetcher(tmp_path, services).endorse(intel().evidence(BOUND, tee="sgx"), now=NOW)


def test_an_invented_number_that_nobody_signed_blocks_nothing(tmp_path, services):
    evidence = intel().evidence(BOUND)
    good = services.intel_parts["tdx"]["tcb-info"]
    services.intel_parts["tdx"]["tcb-info"] = good.replace(
        b'"tcbEvaluationDataNumber":17', b'"tcbEvaluationDataNumber":99'
    )
    refused(tmp_path, services, evidence)
    services.intel_parts["tdx"]["tcb-info"] = good
    fetcher(tmp_path, services).endorse(evidence, now=NOW)


# Issuers of attestation keys, and RIMs


def test_issuers_are_fetched_where_certificates_say_and_lead_to_a_root(tmp_path, services):
    one = FakeIssuers(now=NOW)
    services.files |= one.files()
    found = fetcher(tmp_path, services, roots={one.root}).issuers(one.leaf(), now=NOW)
    assert services.asked == ["/a/ca.crt", "/b/ca.crt"]
    x509.verify_path(one.leaf(), found, roots=frozenset({one.root}), purpose=None, now=NOW)


def test_issuers_may_come_in_pem(tmp_path, services):
    one = FakeIssuers(now=NOW)
    services.files |= {
        path: of_type("application/x-pem-file", pem.encode(reply.body, b"CERTIFICATE"))
        for path, reply in one.files().items()
    }
    fetcher(tmp_path, services, roots={one.root}).issuers(one.leaf(), now=NOW)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/iam",
        "http://metadata.google.internal/computeMetadata/v1/",
        "https://pki.goog.evil.example/x",
        "https://evil.example/pki.goog",
        "https://xpki.goog/x",
        "https://pki.goog@evil.example/x",
        "https://pki.goog:8443/x",
        "https://pki.goog/x?y=z",
        "https://pki.goog/x#y",
        "https://pki.goog/a b",
        "https://storage.googleapis.com/bucket/x",
        "https://anybody.storage.googleapis.com/x",
        "https://privateca-content-x.evil.storage.googleapis.com/x",
        "file:///etc/passwd",
        "ldap://pki.goog/x",
        "https://[::1]/x",
        "https://[",
        "https://pki.goog:x/",
        "",
        "//pki.goog/x",
        f"https://{GOOGLE_HOST}/" + "a" * 400,
    ],
)
def test_rule_55_a_certificate_cannot_send_us_elsewhere(tmp_path, services, url):
    with pytest.raises(Refused) as refusal:
        issuers.Publishers().certificate(url)
    assert refusal.value.code == "forbidden-address"
    if url:
        with pytest.raises(Refused, match="not where Google or Microsoft publish their issuers"):
            fetcher(tmp_path, services).issuers(FakeIssuers(now=NOW, first=url).leaf(), now=NOW)
    assert services.asked == []


@pytest.mark.parametrize(
    "url", ["http://pki.goog/cloud_integrity/tpm_ek_intermediate_2.crt", f"http://{GOOGLE_HOST}/x/ca.crt"]
)
def test_issuers_are_asked_for_over_https_whatever_the_certificate_says(url):
    ask = issuers.Publishers().certificate(url)
    assert ask.service.base.startswith("https://")
    assert not ask.service.private
    assert not ask.service.plain


def test_issuers_that_lead_to_no_root_are_refused_and_forgotten(tmp_path, services):
    one, other = FakeIssuers(now=NOW), FakeIssuers(now=NOW)
    services.files |= other.files()
    made = fetcher(tmp_path, services, roots={one.root})
    with pytest.raises(Refused, match="the path ends in sha256:"):
        made.issuers(one.leaf(), now=NOW)
    assert list(made.library.listed(now=NOW)) == []
    services.files |= one.files()
    made.issuers(one.leaf(), now=NOW)


def test_a_circle_of_issuers_ends(tmp_path, services):
    one = FakeIssuers(now=NOW)
    services.files |= {"/a/ca.crt": one.files()["/a/ca.crt"], "/b/ca.crt": one.files()["/a/ca.crt"]}
    with pytest.raises(NotFound, match="that leads to a root within 4 steps"):
        fetcher(tmp_path, services, roots={one.root}).issuers(one.leaf(), now=NOW)


def test_a_gpu_s_rims_are_fetched_by_name_and_bounded(tmp_path, services):
    evidence = FakeGpu(now=NOW).evidence(Preset(values={"nonce": bytes(32)}))
    names = nvidia.named(evidence)
    assert names == (RIM_ID, "NV_GPU_VBIOS_1010_0200_882_96005E0001")
    with pytest.raises(NotFound, match="NV_GPU_VBIOS_1010_0200_882_96005E0001: not found"):
        fetcher(tmp_path, services).rims(evidence, now=NOW)
    services.files["/v1/rim/" + names[1]] = rim_reply(id=names[1])
    assert fetcher(tmp_path, services).rims(evidence, now=NOW) == dict.fromkeys(names, RIM)


def rim_reply(**changed):
    value = {"id": RIM_ID, "rim": base64.b64encode(RIM).decode(), "rim_format": "TCG", **changed}
    return of_type("application/json", json.dumps(value).encode())


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (rim_reply(id="NV_OTHER"), "the RIM of another id"),
        (rim_reply(rim="***"), "the RIM is not base64"),
        (rim_reply(rim=1), "rim: expected text of 1 to"),
        (rim_reply(sha256="0" * 64), "the RIM has another SHA-256 than the service says"),
        (of_type("application/json", b"{"), "not JSON"),
        (of_type("application/json", b'{"id":"x","id":"x"}'), "duplicate key 'id'"),
        (of_type("text/html", b"{}"), "of type 'text/html'"),
        (
            of_type("application/json", b" " * nvidia.MAX_ANSWER + b"{}"),
            f"at most {nvidia.MAX_ANSWER} allowed",
        ),
        (Reply(status=401), "HTTP 401"),
    ],
)
def test_rims_that_are_none_are_refused(tmp_path, services, reply, why):
    services.files[f"/v1/rim/{RIM_ID}"] = reply
    made = fetcher(tmp_path, services)
    with pytest.raises((Malformed, Unavailable), match=why):
        made.library.get(nvidia.rim(services.service, RIM_ID), now=NOW)
    assert list(made.library.listed(now=NOW)) == []


@pytest.mark.parametrize("name", ["", "NV_", "../x", "NV_a/../b", "NV_a?b", "NV_a b", "NV_" + "a" * 200])
def test_a_rim_s_name_cannot_lead_elsewhere(services, name):
    with pytest.raises(Misuse, match="not the id of a RIM"):
        nvidia.rim(services.service, name)


def test_a_rim_ends_after_thirty_days(tmp_path, services):
    made = fetcher(tmp_path, services)
    ask = nvidia.rim(services.service, RIM_ID)
    made.library.get(ask, now=NOW)
    made.library.get(ask, now=NOW + 30 * DAY)
    assert len(services.asked) == 1
    made.library.get(ask, now=NOW + 31 * DAY)
    assert len(services.asked) == 2


def test_a_genuine_list_of_the_other_ca_is_refused(tmp_path, services):
    """It would be verified as the other CA's, and refused; here it must not push the number seen of this one."""
    other = Entity(PROCESSOR_CA, intel().root, NOW - DAY, NOW + 300 * DAY, ca=True, path_length=0)
    chain = urllib.parse.quote(other.chain)
    services.spoil(
        "/pckcrl",
        lambda good: replace(good, body=revocation_list(other, number=9, now=NOW)).having(
            "SGX-PCK-CRL-Issuer-Chain", chain
        ),
    )
    made = refused(tmp_path, services, intel().evidence(BOUND))
    assert not any("/crl/platform" in name for name in made.library.marks.seen())


def test_a_pck_ca_s_list_is_not_the_root_s(tmp_path, services):
    services.intel_parts["sgx"]["root-ca-crl"] = services.intel_parts["sgx"]["pck-crl"]
    refused(tmp_path, services, intel().evidence(BOUND))
