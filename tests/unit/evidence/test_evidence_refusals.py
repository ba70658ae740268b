"""Parts of evidence: refusals that no fault of a fake reaches, each by its words."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.crypto import der
from strongroom.crypto.pki import x509
from strongroom.encoding import cbor
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import nitro, snp, verify
from strongroom.evidence.formats import azure_hcl, dcap_pck, dcap_quote, dcap_tcb, gcp_instance, snp_product
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_amd, fake_google, intel_pki
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_aws import FakeAws
from strongroom_testing.vendors.fake_intel import FakeIntel

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

# Intel: certificates by name, and the SGX extensions of a platform's certificate

DATES = (NOW - DAY, NOW + DAY)
EXTENSIONS = intel_pki.sgx_extension(components=bytes(range(16)), pce_svn=13, ppid=b"\x11" * 16)


def chain(*, ca=intel_pki.PLATFORM_CA, sgx: bytes | None = EXTENSIONS):
    """Root, an authority called `ca`, and a platform's certificate under it."""
    root = intel_pki.Entity(intel_pki.ROOT, None, *DATES, ca=True, path_length=1)
    middle = intel_pki.Entity(ca, root, *DATES, ca=True, path_length=0)
    leaf = intel_pki.Entity(intel_pki.PCK, middle, *DATES, sgx=sgx)
    spki = root.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return root, middle, leaf, frozenset({"sha256:" + hashlib.sha256(spki).hexdigest()})


def test_a_platforms_certificate_is_of_a_pck_authority():
    for ca in (intel_pki.PLATFORM_CA, intel_pki.PROCESSOR_CA):
        _, middle, leaf, roots = chain(ca=ca)
        assert dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW).ca.subject.count(ca) == 1
        assert dcap_pck.ca_chain(middle.chain, what="crl", roots=roots, now=NOW).leaf.subject.count(ca) == 1
    _, middle, leaf, roots = chain(ca="Intel SGX PCK Other CA")
    with pytest.raises(EvidenceRefused, match=r"evidence check pck.path: expected a certificate of Intel"):
        dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW)
    with pytest.raises(EvidenceRefused, match=r"evidence check crl.path: expected a certificate of Intel"):
        dcap_pck.ca_chain(middle.chain, what="crl", roots=roots, now=NOW)


def test_a_platforms_certificate_has_intels_extensions():
    _, _, leaf, roots = chain(sgx=None)
    with pytest.raises(Malformed, match="lacks Intel's SGX extensions"):
        dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW)


def test_certificates_have_the_extensions_of_intels_profile(monkeypatch):
    _, _, leaf, roots = chain()
    dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW)
    monkeypatch.setattr(dcap_pck, "_PROFILE", ("1.2.3.4",))
    with pytest.raises(EvidenceRefused, match=r"a P-256 key and the extensions 1\.2\.3\.4"):
        dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW)


def test_a_key_of_another_curve_is_not_of_intels_profile(monkeypatch):
    monkeypatch.setattr(
        intel_pki.ec,
        "generate_private_key",
        lambda _, make=ec.generate_private_key: make(ec.SECP384R1()),
    )
    _, _, leaf, roots = chain()
    with pytest.raises(EvidenceRefused, match=r"a P-256 key and the extensions .*: secp384r1, without none"):
        dcap_pck.pck_chain(leaf.chain, roots=roots, now=NOW)


PREFIX = bytes.fromhex("2a864886f84d010d01")


def entry(numbers: bytes, value: bytes, *, prefix: bytes = PREFIX) -> bytes:
    return der.wrap(der.SEQUENCE, der.wrap(der.OBJECT_IDENTIFIER, prefix, numbers), value)


def octets(value: bytes) -> bytes:
    return der.wrap(der.OCTET_STRING, value)


def entries() -> dict[int, bytes]:
    """The members of sound extensions, whole, by number."""
    ((_, body, _),) = der.elements(EXTENSIONS)
    return dict(enumerate((whole for _, _, whole in der.elements(body)), start=1))


def with_entries(**changed: bytes) -> bytes:
    return der.wrap(
        der.SEQUENCE, *{**entries(), **{int(key[1:]): one for key, one in changed.items()}}.values()
    )


def with_tcb(number: int, value: bytes) -> bytes:
    """The extensions with one member of the TCB replaced."""
    _, (_, _, inner) = der.elements(der.elements(entries()[2])[0][1])
    members = [whole for _, _, whole in der.elements(der.elements(inner)[0][1])]
    members[number - 1] = entry(bytes([2, number]), value)
    return with_entries(_2=entry(b"\x02", der.wrap(der.SEQUENCE, *members)))


def with_configuration(value: bytes) -> bytes:
    return with_entries(_7=entry(b"\x07", der.wrap(der.SEQUENCE, entry(b"\x07\x01", value))))


NOT_DER = "the SGX extensions are not in DER"
BODY = EXTENSIONS[4:]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", NOT_DER),
        (b"\x30", NOT_DER),
        (EXTENSIONS[:-1], NOT_DER),
        (EXTENSIONS + b"\0", NOT_DER),
        (b"\x31" + EXTENSIONS[1:], NOT_DER),
        (b"\x30\x80" + BODY + b"\0\0", NOT_DER),
        (b"\x30\x83\x00" + EXTENSIONS[2:], NOT_DER),
        (b"\x30\x82\x00\x02\x30\x00", NOT_DER),
        (b"\x30\x81\x02\x30\x00", NOT_DER),
        (der.wrap(der.SEQUENCE, der.wrap(der.SET, octets(b""), octets(b""))), NOT_DER),
        (der.wrap(der.SEQUENCE, der.wrap(der.SEQUENCE, octets(PREFIX + b"\x01"), octets(b""))), NOT_DER),
        (with_entries(_8=entry(b"\x08", octets(b"") + octets(b""))), NOT_DER),
        (
            with_entries(_8=entry(b"\x08", octets(b""), prefix=PREFIX[:-1] + b"\x02")),
            "an object identifier that is not",
        ),
        (with_entries(_8=entry(b"\x81\x08", octets(b""))), "an object identifier that is not Intel's"),
        (with_entries(_8=entry(b"\x80", octets(b""))), "an object identifier that is not Intel's"),
        (with_entries(_8=entry(b"\x01", octets(bytes(16)))), "SGX extension .* is given twice"),
        (der.wrap(der.SEQUENCE, *list(entries().values())[1:]), "SGX extension 1 is missing or of another"),
        (der.wrap(der.SEQUENCE, *list(entries().values())[:4]), "SGX extension 5 is missing or of another"),
        (with_entries(_3=entry(b"\x03", b"\x02\x01\x00")), "SGX extension 3 is missing or of another type"),
        (with_entries(_1=entry(b"\x01", octets(bytes(15)))), "SGX extension 1 of 15 bytes, expected 16"),
        (with_entries(_4=entry(b"\x04", octets(bytes(7)))), "SGX extension 4 of 7 bytes, expected 6"),
        (with_entries(_6=entry(b"\x06", octets(bytes(17)))), "SGX extension 6 of 17 bytes, expected 16"),
        (with_tcb(1, b"\x02\x02\x01\x00"), "expected a number from 0 to 255 among the SGX extensions, got"),
        (with_tcb(1, b"\x02\x01\xff"), "expected a number from 0 to 255 among the SGX extensions, got"),
        (with_tcb(1, b"\x02\x00"), "expected a number from 0 to 255 among the SGX extensions, got"),
        (with_tcb(1, b"\x02\x05\0\0\0\0\0"), "expected a number from 0 to 255 among the SGX extensions, got"),
        (with_tcb(16, octets(b"\0")), "SGX extension 16 is missing or of another type"),
        (
            with_tcb(17, b"\x02\x03\x01\x00\x00"),
            "expected a number from 0 to 65535 among the SGX extensions, got",
        ),
        (with_tcb(18, octets(bytes(15))), "SGX extension 18 of 15 bytes, expected 16"),
        (with_configuration(b"\x01\x01\x01"), "SGX extension .*: expected a BOOLEAN of 00 or ff, got"),
        (with_configuration(b"\x01\x02\x00\x00"), "SGX extension .*: expected a BOOLEAN of 00 or ff, got"),
        (with_configuration(b"\x02\x01\x00"), "SGX extension 1 is missing or of another type"),
    ],
)
def test_sgx_extensions_are_refused_by_what_is_wrong(raw, why):
    with pytest.raises(Malformed, match=why):
        dcap_pck.parse_extension(raw)


def test_sgx_extensions_at_the_ends_of_their_ranges_are_read():
    assert dcap_pck.parse_extension(with_tcb(1, b"\x02\x02\x00\xff"))
    assert dcap_pck.parse_extension(with_tcb(17, b"\x02\x03\x00\xff\xff"))
    assert dcap_pck.parse_extension(with_configuration(b"\x01\x01\x00"))


# Intel: quotes and TCB info

INTEL = FakeIntel(now=NOW)
BOUND = Preset(values={"report_data": bytes(range(64))})


def test_a_quote_that_is_cut_is_said_to_be():
    for tee, version in (("sgx", 3), ("sgx", 5), ("tdx", 4), ("tdx", 5)):
        quote = INTEL.evidence(BOUND, tee=tee, version=version).parts["quote"]
        parsed = dcap_quote.parse(quote)
        for size in (49, 50, 53, len(parsed.signed) + 3, len(parsed.signed) + 4 + 63):
            with pytest.raises(Malformed, match="quote: cut short"):
                dcap_quote.parse(quote[:size])
        for size in (0, 48, dcap_quote.MAX_QUOTE + 1):
            with pytest.raises(Malformed, match=f"quote: {size} bytes, expected 49 to"):
                dcap_quote.parse((quote + bytes(dcap_quote.MAX_QUOTE))[:size])
    for size in (383, 385):
        with pytest.raises(Malformed, match=f"SGX report: {size} bytes, expected 384"):
            dcap_quote.sgx_report(bytes(size))
    for version in (3, 4):
        with pytest.raises(Malformed, match="quote: cut short"):
            dcap_quote.certification(version, bytes(64))


def tcb_info(**changed) -> bytes:
    inner, _ = dcap_tcb.split(INTEL.endorsements(tee="sgx").parts["tcb-info"], "tcbInfo", what="x")
    return json.dumps({**json.loads(inner), **changed}, separators=(",", ":")).encode()


LEVEL = json.loads(tcb_info())["tcbLevels"][0]


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        (b"[]", "TCB info: expected an object"),
        (b"[1]", "TCB info: expected an object"),
        (tcb_info(version=1), "version 1, expected 2 or 3"),
        (tcb_info(version=0), "version 0, expected 2 or 3"),
        (tcb_info(version=4), "version: expected an integer from 0 to 3"),
        (tcb_info(version=True), "version: expected an integer from 0 to 3"),
        (tcb_info(id="CCA"), "expected SGX or TDX"),
        (tcb_info(tcbType=1), "tcbType: expected 0, whose rules of comparison are known, got"),
        (tcb_info(tcbLevels=[]), "tcbLevels: expected a list of 1"),
        (tcb_info(tcbLevels=[{**LEVEL, "advisoryIDs": [1]}]), "expected names like INTEL-SA-00615, got"),
        (
            tcb_info(tcbLevels=[{**LEVEL, "advisoryIDs": ["INTEL SA"]}]),
            "expected names like INTEL-SA-00615, got",
        ),
        (tcb_info(tcbLevels=[{**LEVEL, "advisoryIDs": "INTEL-SA-1"}]), "advisoryIDs: expected a list of 0"),
        (tcb_info(tcbLevels=[{**LEVEL, "tcbStatus": "Fine"}]), "status 'Fine' is not known"),
    ],
)
def test_tcb_info_is_refused_by_what_is_wrong(inner, why):
    with pytest.raises(Malformed, match=why):
        dcap_tcb.parse_tcb_info(inner)


# Google: what a certificate says of its instance

GOOGLE = fake_google.instance_extension()


def instance(*security: bytes, name: bytes = der.wrap(0x0C, b"vm"), number: bytes = b"\x02\x01\x01") -> bytes:
    properties = der.wrap(0xA0, der.wrap(der.SEQUENCE, *security))
    zone = der.wrap(0x0C, b"zone")
    return der.wrap(der.SEQUENCE, zone, number, der.wrap(0x0C, b"project"), b"\x02\x01\x02", name, properties)


YES, NO = b"\x01\x01\xff", b"\x01\x01\x00"
ORDER, NUMBER = (
    "expected explicit tags in ascending order, got tag",
    "expected an INTEGER in DER, of 64 bits without sign, got",
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(gcp_instance.MAX_BYTES + 1), "bytes, at most .* allowed"),
        (instance() + b"\0", "1 trailing bytes"),
        (instance(der.wrap(0x81, YES)), ORDER),
        (instance(der.wrap(0xA1, YES), der.wrap(0xA1, YES)), ORDER),
        (instance(der.wrap(0xA1, YES), der.wrap(0xA0, b"\x02\x01\x02")), ORDER),
        (instance(der.wrap(0xA1, b"\x01\x01\x01")), "expected a BOOLEAN of 00 or ff, got"),
        (instance(der.wrap(0xA1, b"\x01\x02\xff\xff")), "expected a BOOLEAN of 00 or ff, got"),
        (instance(der.wrap(0xA1, YES + YES)), "3 trailing bytes"),
        (instance(der.wrap(0xA1, b"\x02\x01\x01")), "expected tag 0x01, got INTEGER"),
        (instance(name=der.wrap(0x0C, b"\xff")), "not UTF-8"),
        (instance(name=der.wrap(0x0C, b"a\n")), "expected printable text of at most .* characters, got"),
        (
            instance(name=der.wrap(0x0C, b"a" * (gcp_instance.MAX_TEXT + 1))),
            "expected printable text of at most",
        ),
        (instance(number=b"\x02\x00"), NUMBER),
        (instance(number=b"\x02\x01\x80"), NUMBER),
        (instance(number=b"\x02\x02\x00\x7f"), NUMBER),
        (instance(number=b"\x02\x0a" + b"\x01" * 10), NUMBER),
        (instance(number=b"\x04\x01\x01"), "expected INTEGER .tag 0x02., got OCTET STRING"),
    ],
)
def test_instance_extensions_are_refused_by_what_is_wrong(data, why):
    with pytest.raises(Malformed, match=why):
        gcp_instance.parse(data)


def test_nothing_follows_the_security_properties_of_an_instance():
    """Neither within their field, nor after it."""
    front = [der.wrap(0x0C, b"zone"), b"\x02\x01\x01", der.wrap(0x0C, b"project"), b"\x02\x01\x02"]
    front.append(der.wrap(0x0C, b"vm"))
    properties = der.wrap(der.SEQUENCE, der.wrap(0xA1, YES))
    good = der.wrap(der.SEQUENCE, *front, der.wrap(0xA0, properties))
    assert gcp_instance.parse(good).production
    for data, why in (
        (der.wrap(der.SEQUENCE, *front, der.wrap(0xA0, properties, YES)), "security properties: 3 trailing"),
        (der.wrap(der.SEQUENCE, *front, der.wrap(0xA0, properties), YES), "instance extension: 3 trailing"),
    ):
        with pytest.raises(Malformed, match=why):
            gcp_instance.parse(data)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "is_production"),
        (2, "tpm_data_always_encrypted"),
        (3, "suspend_resume_always_disabled"),
        (4, "vmtd_always_disabled"),
        (5, "always_in_yarn"),
    ],
)
def test_each_security_property_of_an_instance_is_told_by_its_own_name(number, name):
    for value, told in ((YES, True), (NO, False)):
        read = gcp_instance.parse(instance(der.wrap(0xA0 | number, value)))
        assert read.flags == {name: told}
        assert read.production is (told and number == 1)


@pytest.mark.parametrize("value", [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, (1 << 63) - 1, (1 << 64) - 1])
def test_the_numbers_of_an_instance_are_read_whole(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
    assert gcp_instance.parse(instance(number=der.wrap(der.INTEGER, raw))).project_number == value
    for bad in (b"\0" + raw, raw[:0]):
        with pytest.raises(Malformed, match=NUMBER):
            gcp_instance.parse(instance(number=der.wrap(der.INTEGER, bad)))


def test_an_instance_is_of_production_only_if_that_is_said():
    assert gcp_instance.parse(GOOGLE).production
    assert gcp_instance.parse(instance(der.wrap(0xA1, YES))).production
    assert not gcp_instance.parse(instance(der.wrap(0xA1, NO))).production
    assert not gcp_instance.parse(instance()).production
    assert gcp_instance.parse(instance(der.wrap(0xA0, b"\x02\x01\x07"))).security_version == 7
    assert gcp_instance.parse(instance(der.wrap(0xAF, octets(b"later")))).flags == {}
    assert gcp_instance.parse(instance(number=b"\x02\x02\x00\x80")).project_number == 128
    longest = der.wrap(0x0C, b"a" * gcp_instance.MAX_TEXT)
    assert len(gcp_instance.parse(instance(name=longest)).instance_name) == gcp_instance.MAX_TEXT


# Azure: the report of the paravisor


def test_an_hcl_report_is_bounded():
    for size in (0, 1000, azure_hcl.MAX_BYTES + 1):
        with pytest.raises(Malformed, match=f"HCL report: {size} bytes, expected") as refused:
            azure_hcl.parse(bytes(size))
        assert refused.value.code == "bad-length"


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ([], "vm-configuration: expected an object"),
        ({f"s{at}": 1 for at in range(azure_hcl.MAX_SETTINGS + 1)}, "vm-configuration: expected an object"),
        ({"": 1}, "vm-configuration: expected names of at most 64 letters, digits and dashes, got"),
        ({"-": 1}, "vm-configuration: expected names of at most 64 letters, digits and dashes, got"),
        ({"a b": 1}, "vm-configuration: expected names of at most 64 letters, digits and dashes, got"),
        ({"\u00e9": 1}, "vm-configuration: expected names of at most 64 letters, digits and dashes, got"),
        ({"a" * 65: 1}, "vm-configuration: expected names of at most 64 letters, digits and dashes, got"),
        ({"a": "\n"}, "vm-configuration.a: expected printable ASCII of at most 256 characters, got"),
        ({"a": "\u00e9"}, "vm-configuration.a: expected printable ASCII of at most 256 characters, got"),
        ({"a": "b" * 257}, "vm-configuration.a: expected printable ASCII of at most 256 characters, got"),
    ],
)
def test_settings_of_a_machine_are_refused_by_what_is_wrong(setting, why):
    with pytest.raises(Malformed, match=why):
        azure_hcl._settings(setting)


def test_settings_of_a_machine_are_read_to_their_bounds():
    widest = {"a" * 64: "b" * 256, "tpm-enabled": True, "n": 3, "nested": {"more": 1}, "none": None}
    assert azure_hcl._settings(widest) == {f"vm.{'a' * 64}": "b" * 256, "vm.tpm-enabled": True, "vm.n": 3}
    most = {f"s{at}": 1 for at in range(azure_hcl.MAX_SETTINGS)}
    assert len(azure_hcl._settings(most)) == azure_hcl.MAX_SETTINGS


# Nitro

AWS = FakeAws(now=NOW)
NITRO_BOUND = Preset(values={"user_data": bytes(64), "nonce": bytes(32)})


def test_nitro_never_claims_a_memory_guard():
    for nitrotpm in (False, True):
        claims = verify.verify(
            AWS.evidence(NITRO_BOUND, nitrotpm=nitrotpm),
            NONE,
            binding=NITRO_BOUND,
            roots=frozenset({AWS.root}),
            now=NOW,
        )
        assert claims.memory_guard is False
        assert claims.debug is False


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        ([], "cabundle: expected an array of 1 to"),
        ([b"c"] * x509.MAX_PATH, "cabundle: expected an array of 1 to"),
        ([b"c", b""], "cabundle: expected certificates of 1 to 1024 bytes"),
        ([b"c", bytes(nitro.MAX_CERTIFICATE + 1)], "cabundle: expected certificates of 1 to 1024 bytes"),
        (["c"], "cabundle: expected certificates of 1 to 1024 bytes"),
    ],
)
def test_a_cabundle_is_refused_by_what_is_wrong(bundle, why):
    source = cbor.Map(cbor.loads(cbor2.dumps({"cabundle": bundle}), "document"), "document")
    with pytest.raises(Malformed, match=why):
        nitro._cabundle(source)
    assert nitro._cabundle(cbor.Map({"cabundle": (b"c", bytes(1024))}, "x")) == (b"c", bytes(1024))


@pytest.mark.parametrize(
    ("pcrs", "why"),
    [
        ({}, "pcrs: expected a map of 1 to 32 entries"),
        ({0: bytes(48), 1: bytes(48)}, "pcrs: expected PCRs 0, 1 and 2 among them"),
        ({0: bytes(48), 1: bytes(48), 2: bytes(47)}, "pcrs.2: expected 48 bytes, got"),
        ({0: bytes(48), 1: bytes(48), 2: "a"}, "pcrs.2: expected 48 bytes, got"),
        ({0: bytes(48), 1: bytes(48), 2: bytes(48), 32: bytes(48)}, "pcrs: expected indices from 0 to 31"),
        ({0: bytes(48), 1: bytes(48), 2: bytes(48), -1: bytes(48)}, "pcrs: expected indices from 0 to 31"),
        ({0: bytes(48), 1: bytes(48), 2: bytes(48), "3": bytes(48)}, "pcrs: expected indices from 0 to 31"),
    ],
)
def test_pcrs_are_refused_by_what_is_wrong(pcrs, why):
    with pytest.raises(Malformed, match=why):
        nitro._pcrs(cbor.Map({"pcrs": pcrs}, "document"), "pcrs")


# AMD


def test_a_certificate_of_no_product_was_issued_by_nobody():
    amd = FakeAmd(now=NOW)
    unknown = amd.endorsements(fault=fake_amd.Fault.VEK_OF_UNKNOWN_PRODUCT).parts["vek"]
    issuer = x509.split(amd.endorsements().parts["issuers"])[0]
    with pytest.raises(Refused, match="a certificate of no known product"):
        snp._check_issued(unknown, issuer)


def test_extensions_of_a_vek_are_refused_by_what_is_wrong():
    for value, why in (
        (b"", "is missing"),
        (b"\x02\x01\x80", "expected an INTEGER from 0 to 255, got"),
        (b"\x02\x02\x00\x7f", "expected an INTEGER from 0 to 255, got"),
        (b"\x02\x02\x01\x00", "expected an INTEGER from 0 to 255, got"),
        (b"\x04\x01\x01", "expected an INTEGER from 0 to 255, got"),
    ):
        with pytest.raises(Malformed, match=why):
            snp_product._integer({"1": value} if value else {}, "1")
    assert snp_product._integer({"1": b"\x02\x01\x7f"}, "1") == 127
    assert snp_product._integer({"1": b"\x02\x02\x00\x80"}, "1") == 128
    for value, why in (
        (b"\x16\x00", "expected an IA5String of 1 to 100 characters, got"),
        (b"\x16\x65" + b"a" * 101, "expected an IA5String of 1 to 100 characters, got"),
        (b"\x0c\x01a", "expected an IA5String of 1 to 100 characters, got"),
        (b"\x16\x02a", "expected an IA5String of 1 to 100 characters, got"),
        (b"\x16\x01\xe9", "expected an IA5String of 1 to 100 characters, got"),
        (b"\x16\x01\n", "expected printable characters, got"),
    ):
        with pytest.raises(Malformed, match=why):
            snp_product._text({"2": value}, "2")
    assert snp_product._text({"2": b"\x16\x64" + b"a" * 100}, "2") == "a" * 100
    for value in (bytes(63), bytes(65), b"\x04\x3f" + bytes(64), b"\x04\x40" + bytes(63)):
        with pytest.raises(Malformed, match=r"expected 64 bytes, got 6[3-6]"):
            snp_product._octets({"4": value}, "4", 64)
    assert snp_product._octets({"4": bytes(64)}, "4", 64) == bytes(64)
    assert snp_product._octets({"4": b"\x04\x40" + b"c" * 64}, "4", 64) == b"c" * 64


@pytest.mark.parametrize(
    ("sgx", "status", "advised"),
    [
        ("UpToDate", "OutOfDate", "TDRelaunchAdvised"),
        ("ConfigurationNeeded", "OutOfDate", "TDRelaunchAdvisedConfigurationNeeded"),
        ("UpToDate", "OutOfDateConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded"),
    ],
)
def test_a_relaunch_that_needs_configuration_says_so_whichever_of_the_two_needs_it(sgx, status, advised):
    newest, module = SimpleNamespace(isv_svn=5), SimpleNamespace(status="OutOfDate")
    info = SimpleNamespace(levels=[SimpleNamespace(tdx=bytes([5, 0, 3]))], modules=[newest])
    found = SimpleNamespace(sgx=sgx, status=status, module=module)
    assert dcap_tcb.relaunch(info, found, "UpToDate", bytes([5, 0, 3])) == advised  # type: ignore[arg-type]
    assert dcap_tcb.relaunch(info, found, "OutOfDate", bytes([5, 0, 3])) == status  # type: ignore[arg-type]
    assert dcap_tcb.relaunch(info, found, "UpToDate", bytes([4, 0, 3])) == status  # type: ignore[arg-type]
    assert dcap_tcb.relaunch(info, found, "UpToDate", bytes([5, 0, 2])) == status  # type: ignore[arg-type]


def test_a_quote_is_told_with_its_tee():
    for tee, version, word in (("sgx", 3, "SGX"), ("tdx", 4, "TDX")):
        told = {}
        quote = INTEL.evidence(BOUND, tee=tee, version=version).parts["quote"]
        dcap_quote.describe(
            quote, line=lambda name, value, meaning, told=told: told.update({name: (value, meaning)})
        )
        assert told["TEE type"][1] == word
