"""Whatever the host says to the agent: a value or `Malformed`, never another error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.agent import attest, container, http, program
from strongroom.agent.devices import snp, tdx
from strongroom.agent.disks import devicemapper, superblock
from strongroom.crypto import spki
from strongroom.crypto.pki import csr
from strongroom.encoding import tpm2
from strongroom.errors import Malformed, StrongroomError, Unavailable
from strongroom.model.room import channel as wire
from tests.effort import examples

junk = st.binary(max_size=2000)


@given(junk)
def test_http_heads(data):
    with contextlib.suppress(Malformed):
        status, length = http.parse_head(data, max_answer=1000)
        assert 200 <= status < 600
        assert 0 <= length <= 1000


@given(
    st.one_of(junk, st.binary(min_size=124, max_size=124).map(superblock.MAGIC.to_bytes(4, "little").__add__))
)
def test_superblocks_of_other_parties_disks(data):
    with contextlib.suppress(Malformed):
        assert superblock.unexpected(superblock.parse(data), 1 << 20)


@given(
    st.lists(
        st.sampled_from(
            [
                b"content-length: 5",
                b"transfer-encoding: x",
                b"a: b",
                b"\r",
                b":",
                b" x: y",
                b"content-length:",
            ]
        ),
        max_size=5,
    )
)
def test_http_heads_nearly_right(lines):
    with contextlib.suppress(Malformed):
        assert http.parse_head(b"\r\n".join([b"HTTP/1.1 200 OK", *lines]), max_answer=9) == (200, 5)


@given(junk)
def test_the_hosts_tables_of_certificates(data):
    assert snp.brought(data).parts.keys() <= {"vek"}


@given(st.integers(0, 6), junk)
def test_quotes_are_cut_of_zeros_alone(version, rest):
    quote = version.to_bytes(2, "little") + rest
    cut = tdx.trimmed(quote)
    assert quote.startswith(cut)
    assert not any(quote[len(cut) :])


@given(junk)
def test_certificates(data):
    with contextlib.suppress(Malformed):
        spki.of_certificate(data)


REQUEST = csr.generate().request(("a.example",))


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_certificates_with_a_changed_byte(place, change):
    damaged = bytearray(REQUEST)
    damaged[place] ^= change
    with contextlib.suppress(Malformed):
        spki.of_certificate(bytes(damaged))


@given(junk)
def test_tpm_responses(data):
    with contextlib.suppress(Malformed, Unavailable):
        tpm2.read_pcr(tpm2.response(data).parameters, 12)
    with contextlib.suppress(Malformed, Unavailable):
        tpm2.read_nv_size(tpm2.response(data).parameters)


@given(junk)
def test_device_mapper_answers(data):
    with contextlib.suppress(Malformed):
        devicemapper.parse_status(data)
    with contextlib.suppress(Malformed):
        devicemapper.device_number(data)


@given(st.binary(max_size=400), st.integers(200, 599))
def test_broker_errors(data, status):
    assert isinstance(attest.read_error(status, data, "alice"), StrongroomError)


@given(junk)
def test_launches_and_start_messages(data):
    with contextlib.suppress(Malformed):
        container.parse_launch(data)
    with contextlib.suppress(Malformed):
        wire.parse_start(data)


@given(st.lists(junk, max_size=5))
def test_channel_frames(pieces):
    decoder = wire.Decoder()
    with contextlib.suppress(Malformed):
        for piece in pieces:
            decoder.feed(piece)


@given(junk)
def test_warden_events(line):
    with contextlib.suppress(Malformed):
        program._note(program._Watch(log_bytes=0), line)


@examples(30)
@given(st.binary(max_size=300).filter(lambda raw: b"\n" not in raw))
def test_passwd_files(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("passwd") / "passwd"
    path.write_bytes(raw + b"\n\xff:\xfe\nx:x:7:7::/home/x:/bin/sh\n")
    assert container.home_of(7, str(path)).startswith("/")


@pytest.mark.parametrize("count", [0, 1, 39, 40, 311, 312])
def test_short_status_answers(count):
    with pytest.raises(Malformed):
        devicemapper.parse_status(bytes(count))
