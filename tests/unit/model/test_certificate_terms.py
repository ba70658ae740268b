"""What a contract may say of a room's certificate, and what no contract may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.encoding import fields
from strongroom.errors import Malformed
from strongroom.model.contracts import certificate_terms
from strongroom.model.contracts.certificate_terms import (
    BOTH,
    CertificateTerms,
    Delivery,
    Format,
    Interface,
    KeyKind,
    Mode,
    Signal,
    Usage,
)

TERMS = CertificateTerms(names=("room.flights.example",), lifetime_seconds=600)
DELIVERY = Delivery(uid=101, gid=102)
EVERY = (
    TERMS,
    *(replace(TERMS, key=kind) for kind in KeyKind),
    *(replace(TERMS, usages=usages) for usages in ((Usage.SERVER,), (Usage.CLIENT,), BOTH)),
    replace(TERMS, trust_domain="rooms.alice.example"),
    *(
        replace(TERMS, interfaces=asked)
        for asked in ((Interface.ACME,), (Interface.WORKLOAD_API,), tuple(Interface))
    ),
    replace(TERMS, delivery=DELIVERY),
    replace(TERMS, delivery=replace(DELIVERY, folder="/etc/nginx/tls", check=443)),
    replace(TERMS, delivery=replace(DELIVERY, format=Format.PKCS12, signal=Signal.HUP)),
    replace(TERMS, delivery=replace(DELIVERY, mode=Mode.GROUP_READS, command=("nginx", "-s", "reload"))),
)


def read(value):
    return certificate_terms.read(fields.Fields(value, "x", quoting=True))


@pytest.mark.parametrize("terms", EVERY)
def test_what_is_written_is_read_again(terms):
    assert read(terms.to_json()) == terms


WHOLE = replace(
    TERMS,
    key=KeyKind.RSA_3072,
    usages=(Usage.CLIENT,),
    trust_domain="a.example",
    delivery=DELIVERY,
    interfaces=(Interface.ACME,),
)


def altered(**changes):
    value = WHOLE.to_json()
    for key, new in changes.items():
        if key in value:
            value[key] = new
        else:
            value["delivery"][key] = new
    return value


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"names": []}, "a certificate needs at least one name"),
        ({"names": ["*.flights.example"]}, "expected a DNS name of two labels or more"),
        ({"key": "rsa-1024"}, "key: expected one of ecdsa-p384, ed25519, rsa-3072, got 'rsa-1024'"),
        ({"key": "ecdsa-p256"}, "key: expected one of ecdsa-p384, ed25519, rsa-3072, got 'ecdsa-p256'"),
        ({"usages": []}, "usages: expected server or client alone, got none"),
        ({"usages": ["server", "client"]}, "alone, got server, client"),
        ({"usages": ["server", "server"]}, "got server, server"),
        ({"usages": ["signing"]}, "got signing"),
        ({"trust_domain": "alice"}, "trust_domain: expected a DNS name of two labels or more"),
        ({"trust_domain": ""}, "trust_domain: expected a DNS name of two labels or more"),
        ({"format": "der"}, "format: expected one of pem, pkcs12, got 'der'"),
        ({"uid": -1}, "uid: expected an integer from 0"),
        ({"gid": "root"}, "gid: expected an integer from 0"),
        ({"mode": "0644"}, "mode: expected one of 0400, 0600, 0440, 0640, got '0644'"),
        ({"mode": 256}, "mode: expected one of 0400, 0600, 0440, 0640"),
        ({"folder": "run/tls"}, "folder: expected an absolute path"),
        ({"folder": "/run/../tls"}, "folder: expected an absolute path"),
        ({"folder": "/"}, "folder: expected an absolute path"),
        ({"folder": "/run/tls/"}, "folder: expected an absolute path"),
        ({"folder": "/out"}, "folder: /out is of the room itself"),
        ({"folder": "/proc/self"}, "folder: /proc/self is of the room itself"),
        ({"reload": {}}, "reload: key 'command' is missing"),
        ({"reload": {"signal": "KILL"}}, "signal: expected one of HUP, USR1, USR2, got 'KILL'"),
        ({"reload": {"command": []}}, "reload.command: expected a program to run, got none"),
        ({"reload": {"command": ["", "x"]}}, "reload.command: expected a program to run, got none"),
        ({"reload": {"command": ["x"], "signal": "HUP"}}, "reload: unknown key 'signal'"),
        ({"interfaces": []}, "interfaces: expected some of acme, spiffe-workload-api"),
        ({"interfaces": ["spiffe-workload-api", "acme"]}, "in this order and each once"),
        ({"interfaces": ["acme", "est"]}, "got acme, est"),
        ({"check": 0}, "check: expected an integer from 1 to 65535"),
        ({"check": 65_536}, "check: expected an integer from 1 to 65535"),
    ],
)  # fmt: skip
def test_refused(changes, why):
    with pytest.raises(Malformed) as caught:
        read(altered(**changes))
    assert why in str(caught.value)


def test_what_is_absent_has_its_usual_meaning():
    """Contracts from before these keys stay what they were."""
    value = {"names": ["room.flights.example"], "lifetime_seconds": 600}
    assert TERMS.to_json() == value
    assert (read(value).key, read(value).usages) == (KeyKind.ECDSA_P256, BOTH)
    assert (read(value).trust_domain, read(value).delivery) == (None, None)


@pytest.mark.parametrize(
    "key", ["names", "lifetime_seconds", *(f"delivery.{key}" for key in DELIVERY.to_json())]
)
def test_no_key_may_be_left_out_and_none_stand_beside(key):
    value = altered()
    *within, last = key.split(".")
    del (value["delivery"] if within else value)[last]
    with pytest.raises(Malformed, match=f"key '{last}' is missing"):
        read(value)
    value = altered()
    (value["delivery"] if within else value)["more"] = 1
    with pytest.raises(Malformed, match="unknown key 'more'"):
        read(value)


def test_a_key_that_others_read_cannot_be_said():
    assert all(int(mode.value, 8) & 0o037 == 0 for mode in Mode)
