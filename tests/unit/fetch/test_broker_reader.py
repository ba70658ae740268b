"""Reading a broker: only the pinned key is heard, and nothing that it says is believed too large, too slow or odd."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from dataclasses import replace

import pytest

from strongroom.encoding import fields
from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch import brokers
from strongroom.ledger import checkpoint
from strongroom.model.party import BrokerAddress
from strongroom_testing import lying_broker
from tests import samples


def says(status, *parts):
    return lambda _path, _key: (status, parts)


def read(tmp_path, answer, what=lambda reader: reader.checkpoint(), **options):
    with lying_broker.serve(tmp_path, answer) as (_, address):
        return what(brokers.BrokerReader(address=address, **options))


def test_an_answer_is_what_was_said(tmp_path):
    assert read(tmp_path, says(200, b"a ", b"note")) == "a note"


def test_each_call_asks_its_own_path(tmp_path):
    asked = []

    def answer(path, _key):
        asked.append(path)
        return 200, [b'{"hashes":[]}']

    read(tmp_path, answer)
    read(tmp_path, answer, lambda reader: reader.tile("entries/000.p/3"))
    read(tmp_path, answer, lambda reader: reader.consistency(3, 7))
    assert asked == [
        "/v1/ledger/checkpoint",
        "/v1/ledger/tile/entries/000.p/3",
        "/v1/ledger/consistency?from=3&to=7",
    ]


def test_a_result_is_asked_for_by_run_audience_and_nonce(tmp_path):
    asked = []

    def answer(path, _key):
        asked.append(path)
        return 200, [b"token"]

    def result(reader):
        return reader.result("run-1/../x", audience="a&b", nonce=b"\x01" * 8, form="cwt")

    assert read(tmp_path, answer, result) == b"token"
    assert asked == ["/v1/results/run-1%2F..%2Fx?audience=a%26b&nonce=0101010101010101&form=cwt"]


def test_a_refusal_is_told_in_the_brokers_words_and_junk_is_no_reason(tmp_path):
    told = b'{"error":{"code":"verdict-ended","message":"too late","hint":"anew"}}'
    with pytest.raises(Refused) as caught:
        read(tmp_path, says(403, told))
    assert (caught.value.code, caught.value.hint) == ("verdict-ended", "anew")
    for junk in (b"", b"{}", b'{"error":1}', b"no", told[:-1]):
        with pytest.raises(Unavailable, match=r"HTTP 403$"):
            read(tmp_path, says(403, junk))


@pytest.mark.parametrize(
    ("status", "kind", "said", "bare"),
    [(404, NotFound, ": no run$", "not found$"), (503, Unavailable, "HTTP 503: no run$", "HTTP 503$")],
)
def test_what_is_not_there_and_what_fails_is_told_in_the_brokers_words(tmp_path, status, kind, said, bare):
    told = b'{"error":{"code":"no-run","message":"no run","hint":"ask another"}}'
    with pytest.raises(kind, match=said) as caught:
        read(tmp_path, says(status, told))
    assert caught.value.hint == "ask another"
    with pytest.raises(kind, match=bare) as caught:
        read(tmp_path, says(status, b"junk"))
    assert caught.value.hint


def test_another_key_is_not_heard_and_not_asked(tmp_path):
    asked = []

    def answer(path, _key):
        asked.append(path)
        return 200, [b"x"]

    with lying_broker.serve(tmp_path, answer) as (_, address):
        reader = brokers.BrokerReader(address=replace(address, pin="sha256:" + "0" * 64))
        with pytest.raises(Refused) as refusal:
            reader.checkpoint()
    assert refusal.value.code == "wrong-broker"
    assert asked == []


def test_older_tls_is_not_spoken(tmp_path):
    with (
        lying_broker.serve(tmp_path, says(200, b"x"), newest=ssl.TLSVersion.TLSv1_2) as (_, address),
        pytest.raises(Unavailable, match="TLSV1_ALERT_PROTOCOL_VERSION"),
    ):
        brokers.BrokerReader(address=address).checkpoint()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nplain", "WRONG_VERSION_NUMBER"),
        (b"\x16\x03\x01junk", "PACKET_LENGTH_TOO_LONG"),
        (b"", "closed|reset"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "HANDSHAKE_FAILURE"),
    ],
)
def test_what_is_no_tls_is_unavailable(said, why):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak():
            peer, _ = server.accept()
            with peer:
                peer.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        port = server.getsockname()[1]
        address = BrokerAddress(
            url=f"https://127.0.0.1:{port}", pin="sha256:" + "0" * 64, ledger_key=bytes(32), authority="sha256:" + "0" * 64
        )  # fmt: skip
        with pytest.raises(Unavailable, match=why) as caught:
            brokers.BrokerReader(address=address).checkpoint()
        assert caught.value.code == "broker-unreachable"
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFound),
        (301, Unavailable),
        (302, Unavailable),
        (403, Unavailable),
        (500, Unavailable),
        (204, Unavailable),
    ],
)
def test_only_200_is_an_answer_and_no_redirect_is_followed(tmp_path, status, kind):
    asked = []

    def answer(path, _key):
        asked.append(path)
        return status, []

    with pytest.raises(kind):
        read(tmp_path, answer)
    assert len(asked) == 1


def test_rule_55_proxies_of_the_environment_are_not_asked(tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert read(tmp_path, says(200, b"direct")) == "direct"


def test_answers_are_bounded(tmp_path):
    with pytest.raises(Unavailable, match="too large"):
        read(tmp_path, says(200, bytes(checkpoint.MAX_BYTES + 1)))
    assert len(read(tmp_path, says(200, bytes(checkpoint.MAX_BYTES)))) == checkpoint.MAX_BYTES
    bundle = read(tmp_path, says(200, bytes(8 << 20)), lambda reader: reader.tile("entries/000"))
    assert len(bundle) == 8 << 20


def test_an_answer_longer_than_it_said_is_read_no_further(tmp_path):
    def endless():
        while True:
            yield b"x" * (1 << 16)

    assert len(read(tmp_path, lambda _path, _key: (200, endless()))) == lying_broker.PROMISED


def test_an_answer_that_is_cut_off_is_no_answer(tmp_path):
    with pytest.raises(Unavailable, match="cut off"):
        read(tmp_path, lambda _path, _key: (200, iter([b"x" * 100])))


def test_rule_59_a_trickle_is_cut_off(tmp_path):
    def slowly():
        while True:
            time.sleep(0.02)
            yield b"x"

    with (
        lying_broker.serve(tmp_path, lambda _path, _key: (200, slowly())) as (_, address),
        pytest.raises(Unavailable, match="cut off"),
    ):
        brokers.BrokerReader(address=address, total_seconds=0.3).checkpoint()


def test_an_answer_without_a_length_could_be_half_of_one(tmp_path):
    with pytest.raises(Unavailable, match="without a length"):
        read(tmp_path, lambda _path, _key: (200, None))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "key 'hashes' is missing"),
        (b'{"hashes":{}}', "expected a list of at most 128"),
        (b'{"hashes":["AAAA"]}', "expected 32 bytes in base64"),
        (b'{"hashes":[1]}', "expected base64 of at most 32 bytes"),
        (b'{"hashes":[],"more":1}', "unknown key 'more'"),
        (
            json.dumps({"hashes": [fields.format_data(bytes(32))] * 129}).encode(),
            "expected a list of at most 128",
        ),
    ],
)
def test_proofs_of_growth_are_read_strictly(tmp_path, body, why):
    with pytest.raises(Malformed, match=why) as caught:
        read(tmp_path, says(200, body), lambda reader: reader.consistency(1, 2))
    assert caught.value.message.startswith("https://127.0.0.1:")
    assert "strongroom broker serve" in caught.value.hint


def test_a_proof_of_growth_that_is_not_there_is_a_refusal(tmp_path):
    with pytest.raises(Refused) as refusal:
        read(tmp_path, says(404), lambda reader: reader.consistency(1, 2))
    assert refusal.value.code == "ledger-proof"


def test_a_checkpoint_that_is_no_text(tmp_path):
    with pytest.raises(Malformed, match="the checkpoint is no text"):
        read(tmp_path, says(200, b"\xff"))


@pytest.mark.parametrize(
    ("host", "kind", "why"),
    [
        ("a" * 64 + ".example", Malformed, "broker.url: expected https://HOST:PORT"),
        ("..", Malformed, "broker.url: expected https://HOST:PORT"),
        ("-", Unavailable, "gaierror"),
        ("a..b", Malformed, "broker.url: expected https://HOST:PORT"),
    ],
)
def test_hosts_that_no_resolver_takes(host, kind, why):
    address = BrokerAddress(
        url=f"https://{host}:8443", pin="sha256:" + "0" * 64, ledger_key=bytes(32), authority="sha256:" + "0" * 64
    )  # fmt: skip
    with pytest.raises(kind, match=why):
        brokers.BrokerReader(address=address).checkpoint()


def test_a_result_is_asked_of_the_brokers_party_and_written_once(tmp_path):
    asked = []

    def answer(path, _key):
        asked.append(path.rpartition("form=")[2])
        return 200, [b"token"]

    with lying_broker.serve(tmp_path, answer) as (_, address):
        asking = {"run_id": "run-1", "audience": "database", "nonce": b"\x01" * 8}
        for name in ("r.cwt", "r.jwt"):
            brokers.ask_result(samples.ALICE.party(address), out=tmp_path / name, **asking)
            assert (tmp_path / name).read_bytes() == b"token"
        with pytest.raises(Misuse) as caught:
            brokers.ask_result(samples.ALICE.party(address), out=tmp_path / "r.cwt", **asking)
    assert (asked[:2], caught.value.code) == (["cwt", "jwt"], "exists")
    with pytest.raises(Misuse, match="bob has no broker"):
        brokers.ask_result(samples.BOB.party(), out=tmp_path / "more", **asking)
    assert not (tmp_path / "more").exists()
