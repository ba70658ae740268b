"""Any bytes from a service, from the disk or in a file: kept never, `Malformed` or `Refused` always, nothing else raised."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import pem
from strongroom.errors import Malformed, Refused
from strongroom.fetch.endorsements import bundle, intel, statement, validate
from strongroom.fetch.endorsements.statement import Statement
from strongroom.fetch.http.client import Download
from strongroom_testing.vendors.intel_pki import FMSPC
from tests.fuzz.mutations import mutations, often
from tests.unit.fetch.vendors import NOW, chip, library
from tests.unit.fetch.vendors import intel as fake_intel


@functools.cache
def statements():
    """One good statement of each kind that a vendor signs, by key."""
    one = chip()
    amd = one.endorsements().parts
    told = fake_intel().endorsements(tee="tdx").parts
    root = pem.encode(fake_intel().root.certificate, b"CERTIFICATE")
    hwid, tcb = one.chip_id.hex(), one.tcb.hex()
    made = {
        "amd/chain/vcek/Milan": {"issuers": amd["issuers"]},
        "amd/crl/vcek/Milan": {"issuers": amd["issuers"], "crl": amd["crl"]},
        f"amd/vcek/Milan/{hwid}/{tcb}": {"issuers": amd["issuers"], "vek": amd["vek"]},
        f"intel/tcb/tdx/{FMSPC.hex()}/standard": take(told, "tcb-info", "tcb-info-issuer-chain"),
        "intel/qe/tdx/standard": take(told, "qe-identity", "qe-identity-issuer-chain"),
        "intel/crl/platform": take(told, "pck-crl", "pck-crl-issuer-chain"),
        "intel/crl/root": {"root-ca-crl": told["root-ca-crl"], "root": root},
    }
    return {key: Statement(key=key, parts=parts, fetched=NOW) for key, parts in made.items()}


def take(parts, *names):
    return {name: parts[name] for name in names}


ROOTS = frozenset({chip().root, fake_intel().root_digest})
KINDS = range(7)


def test_the_good_ones_are_good():
    assert len(statements()) == len(KINDS)
    for one in statements().values():
        validate.judge(one, roots=ROOTS, now=NOW)


@pytest.mark.parametrize("kind", KINDS)
@often
@given(data=st.data())
def test_rule_15_no_other_statement_counts(kind, data):
    one = list(statements().values())[kind]
    name = data.draw(st.sampled_from(sorted(one.parts)))
    spoiled = data.draw(mutations(one.parts[name], most=200))
    # A CRL's and a certificate's own bytes are signed; PEM may end in one NUL, or lack its last line end.
    if spoiled in (one.parts[name], one.parts[name] + b"\0", one.parts[name].removesuffix(b"\n")):
        return
    other = Statement(key=one.key, parts={**one.parts, name: spoiled}, fetched=NOW)
    with pytest.raises((Malformed, Refused)):
        validate.judge(other, roots=ROOTS, now=NOW)


@often
@given(key=st.text(max_size=300) | st.from_regex(r"(amd|intel|nvidia|issuer)(/[a-zA-Z0-9_.]{0,20}){0,5}"))
def test_any_key_is_known_or_malformed(key):
    for parts in ({"certificate": b"x"}, {"answer": b"{}"}, {"issuers": b"x"}, {"tcb-info": b"x"}):
        with pytest.raises((Malformed, Refused)):
            validate.judge(Statement(key=key, parts=parts, fetched=NOW), roots=ROOTS, now=NOW)


@often
@given(data=st.data())
def test_rule_15_files_of_any_bytes_parse_or_are_malformed(data):
    good = bundle.encode([statements()["amd/chain/vcek/Milan"]])
    for parse, sample in (
        (bundle.parse, good),
        (statement.parse, statements()["amd/chain/vcek/Milan"].encode()),
    ):
        try:
            parse(data.draw(mutations(sample)))
        except Malformed:
            pass


@often
@given(body=st.binary(max_size=200), header=st.text(max_size=200))
def test_answers_of_any_bytes_are_taken_or_malformed(body, header):
    answer = Download(
        url="https://x/",
        body=body,
        headers={"tcb-info-issuer-chain": (header,), "sgx-pck-certificate-issuer-chain": (header,)},
    )
    for ask in (intel.PCS.tcb_info("tdx", FMSPC.hex(), "standard"), intel.PCS.pck_certificates(bytes(404))):
        try:
            ask.take(answer)
        except Malformed:
            pass


@often
@given(data=st.binary(max_size=400))
def test_a_memory_of_any_bytes_is_read_or_malformed(data):
    with tempfile.TemporaryDirectory() as folder:
        made = library(Path(folder))
        made.marks.folder.mkdir()
        (made.marks.folder / "seen.marks").write_bytes(data)
        with pytest.raises(Malformed):
            made.marks.seen()
