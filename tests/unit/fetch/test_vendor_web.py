"""The client: whatever answers, it is bounded, of the right kind, and from the place that was asked (rule 55)."""

from __future__ import annotations

import itertools
import socket
import ssl
import time

import pytest

from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch.http import addresses
from strongroom.fetch.http import client as web
from strongroom.fetch.http.client import Client, Download, Service
from strongroom_testing.vendors.vendor_services import Reply, of_type, serve

TYPES = frozenset({"application/json"})
GOOD = of_type("application/json", b"{}")


@pytest.fixture
def services(tmp_path):
    with serve(tmp_path) as made:
        made.files["/x"] = GOOD
        yield made


def get(services, path="/x", *, client=None, max_bytes=1000, **options):
    made = client or Client(read_seconds=2, total_seconds=4, sleep=lambda _: None)
    service = services.service if not options else Service(base=services.base, **options)
    return made.get(service, path, types=TYPES, max_bytes=max_bytes)


def test_an_answer_is_what_was_said(services):
    answer = get(services, "/x?a=1")
    assert answer.body == b"{}"
    assert services.asked == ["/x?a=1"]


def test_chunks_are_put_together(services):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    services.files["/x"] = Reply(raw=[head, b"2\r\n{\n\r\n", b"1\r\n}\r\n", b"0\r\n\r\n"])
    assert get(services).body == b"{\n}"


@pytest.mark.parametrize("status", [204, 206, 400, 401, 403, 410, 500, 502])
def test_only_200_is_an_answer(services, status):
    services.files["/x"] = Reply(status=status, body=b"" if status == 204 else b"{}")
    with pytest.raises(Unavailable, match=f"/x: HTTP {status}, expected 200$"):
        get(services)
    assert len(services.asked) == 1


def test_404_is_not_found(services):
    with pytest.raises(NotFound, match="/y: not found"):
        get(services, "/y")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (of_type("text/html", b"{}"), "of type 'text/html', expected application/json"),
        (of_type("application/json2", b"{}"), "of type 'application/json2', expected application/json"),
        (Reply(body=b"{}"), "of type '', expected application/json"),
        (of_type("application/json", b"{}", ("Content-Type", "application/json")), "of type ''"),
        (GOOD.having("Content-Encoding", "gzip"), "in a content coding that was not asked for"),
        (of_type("application/json", b"x" * 1001), "1001 bytes, at most 1000 allowed"),
        (GOOD.having("Content-Length", str(10**18)), f"{10**18} bytes, at most 1000 allowed"),
        (
            of_type("application/json", b"{}", ("Content-Length", "2"), ("Content-Length", "1")),
            "with more than one length",
        ),
        (GOOD.having("Content-Length", "-2"), "without a length"),
        (GOOD.having("Content-Length", "3"), "cut off"),
    ],
)
def test_wrong_types_codings_and_lengths_are_refused(services, reply, why):
    services.files["/x"] = reply
    with pytest.raises(Unavailable, match=f"the answer is {why}"):
        get(services)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "closed connection without response"),
        (b"garbage\r\n\r\n", "BadStatusLine: garbage"),
        (b"HTTP/1.1 200 OK\r\n", "of type ''"),
        (HEAD + b"\r\n{}", "without a length"),
        (HEAD + b"Content-Length: 20\r\n\r\n{}", "cut off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "IncompleteRead"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "IncompleteRead"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "IncompleteRead"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "with more than one length",
        ),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n{}", "without a length"),
        (HEAD + b"X: y\r\n" * 500 + b"Content-Length: 2\r\n\r\n{}", "more than 100 headers"),
        (HEAD + b"X: " + b"y" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}", "LineTooLong"),
    ],
)
def test_what_is_cut_or_no_http_is_unavailable(services, raw, why):
    services.files["/x"] = Reply(raw=[raw])
    with pytest.raises(Unavailable, match=why):
        get(services)


def test_an_endless_answer_is_cut_at_the_bound(services):
    sent = []

    def endless():
        yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        while True:
            sent.append(1)
            yield b"400\r\n" + b"x" * 1024 + b"\r\n"

    services.files["/x"] = Reply(raw=endless())
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        get(services)


@pytest.mark.parametrize("start", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n"])
def test_a_trickle_ends_with_the_deadline(services, start):
    def trickle():
        yield start
        for _ in itertools.count():
            time.sleep(0.05)
            yield b"X"

    services.files["/x"] = Reply(raw=trickle())
    with pytest.raises(Unavailable, match="longer than"):
        get(services, client=Client(read_seconds=2, total_seconds=0.5))


def test_silence_ends_with_the_read_time_out(services):
    def silent():
        time.sleep(3)
        yield b""

    services.files["/x"] = Reply(raw=silent())
    with pytest.raises(Unavailable, match="The read operation timed out"):
        get(services, client=Client(read_seconds=0.3, total_seconds=10))


def test_nobody_there_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match="Connection refused"):
        Client().get(Service(base=f"https://127.0.0.1:{port}", private=True), "/x", types=TYPES, max_bytes=10)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/x", "{base}/x", "x"])
def test_one_redirect_within_the_same_place_is_followed(services, status, where):
    services.files["/old"] = Reply(status=status, headers=(("Location", where.format(base=services.base)),))
    assert get(services, "/old").body == b"{}"
    assert services.asked == ["/old", "/x"]


@pytest.mark.parametrize(
    "where",
    [
        "https://elsewhere.example/x",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/metadata/identity/oauth2/token",
        "//169.254.169.254/x",
        "https://127.0.0.1:1/x",
        "http://127.0.0.1/x",
        "https://user:word@{place}/x",
        "https://{place}@169.254.169.254/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "https://{place}\\@169.254.169.254/x",
        "gopher://x",
        "https://[::1/x",
        "https://{place}/\u00e9",
        "/a b",
    ],
)
def test_rule_55_redirects_elsewhere_are_refused(services, where):
    target = where.format(place=services.base.removeprefix("https://"))
    services.files["/old"] = Reply(status=302, headers=(("Location", target),))
    with pytest.raises(Refused) as refusal:
        get(services, "/old")
    assert refusal.value.code == "redirect"
    assert services.asked == ["/old"]


def test_a_redirect_loop_ends_after_one_step(services):
    services.files["/old"] = Reply(status=302, headers=(("Location", "/old"),))
    with pytest.raises(Refused, match="sends us on more than once"):
        get(services, "/old")
    assert services.asked == ["/old", "/old"]


@pytest.mark.parametrize("headers", [(), (("Location", "/x"), ("Location", "https://elsewhere.example/"))])
def test_a_redirect_without_one_target_is_refused(services, headers):
    services.files["/old"] = Reply(status=302, headers=headers)
    with pytest.raises(Refused, match="sends us on more than once"):
        get(services, "/old")


# Busy services


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_after_what_it_asks_for(services, status):
    left = [Reply(status=status, headers=(("Retry-After", "7"),))] * 2
    services.spoil("/x", lambda good: left.pop() if left else good)
    waits = []
    assert get(services, client=Client(sleep=waits.append)).body == b"{}"
    assert waits == [7.0, 7.0]
    assert len(services.asked) == 3


def test_without_a_wish_the_waits_grow(services):
    services.files["/x"] = Reply(status=503)
    waits = []
    with pytest.raises(Unavailable) as failure:
        get(services, client=Client(sleep=waits.append))
    assert failure.value.code == "vendor-busy"
    assert waits == [0.5, 1.0, 2.0]
    assert len(services.asked) == 4


@pytest.mark.parametrize("told", ["21", "999999999", "86400"])
def test_a_wait_that_is_too_long_is_not_waited(services, told):
    services.files["/x"] = Reply(status=429, headers=(("Retry-After", told),))
    waits = []
    with pytest.raises(Unavailable, match="come back in"):
        get(services, client=Client(sleep=waits.append))
    assert waits == []


@pytest.mark.parametrize(
    ("told", "waited"),
    [
        ("0", 0.5),
        ("-5", 0.5),
        ("soon", 0.5),
        ("1e9", 0.5),
        ("\u0663", 0.5),
        ("9" * 5000, 0.5),
        ("Wed, 21 Oct 2026 07:28:09 GMT", 9.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.5),
    ],
)
def test_odd_wishes_are_bounded(services, told, waited):
    date = ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")
    busy = b"HTTP/1.1 503 Busy\r\n%s: %s\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % (
        date[0].encode(),
        date[1].encode(),
        told.encode("utf-8"),
    )
    left = [Reply(raw=[busy])]
    services.spoil("/x", lambda good: left.pop() if left else good)
    waits = []
    get(services, client=Client(sleep=waits.append))
    assert waits == [waited]


# Addresses and TLS


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "169.254.169.254",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fc00::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::1",
        "ff02::1",
    ],
)
def test_rule_55_a_public_service_lives_at_no_special_address(address):
    with pytest.raises(Refused) as refusal:
        addresses.check(address, host="kds", private=False)
    assert refusal.value.code == "forbidden-address"


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "224.0.0.1",
        "0.0.0.0",  # noqa: S104
        "::",
    ],
)
def test_rule_55_not_even_a_private_service_lives_at_a_metadata_address(address):
    with pytest.raises(Refused, match="which is no address of a configured service"):
        addresses.check(address, host="pccs", private=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "fd12::1", "::1", "1.1.1.1"])
def test_a_private_service_may_live_in_a_private_network(address):
    addresses.check(address, host="pccs", private=True)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_a_public_service_lives_at_public_addresses(address):
    addresses.check(address, host="kds", private=False)


def test_rule_55_a_name_that_leads_to_the_metadata_service_is_refused(services, monkeypatch):
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_a, **_k: [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("169.254.169.254", 443))],
    )
    with pytest.raises(Refused) as refusal:
        Client().get(Service(base="https://kds.example"), "/x", types=TYPES, max_bytes=10)
    assert refusal.value.code == "forbidden-address"


def test_the_checked_address_is_the_one_that_is_called(services, monkeypatch):
    """A second resolution could give another address (DNS rebinding): there is none."""
    port = int(services.base.rpartition(":")[2])
    answers = iter([[(2, 1, 6, "", ("127.0.0.1", port))]])
    real = socket.getaddrinfo

    def resolve(host, *rest, **options):
        return next(answers) if host == "localhost" else real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    service = Service(base=f"https://localhost:{port}", private=True, ca=services.ca)
    assert Client().get(service, "/x", types=TYPES, max_bytes=10).body == b"{}"


def test_loopback_has_to_be_configured(services):
    with pytest.raises(Refused, match="which is no address of a public service"):
        get(services, private=False, ca=services.ca)
    assert services.asked == []


def test_another_authority_is_not_trusted(services):
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        get(services, private=True)
    assert services.asked == []


def test_a_certificate_of_another_name_is_not_trusted(services, monkeypatch):
    port = int(services.base.rpartition(":")[2])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: [(2, 1, 6, "", ("127.0.0.1", port))])
    service = Service(base=f"https://kds.example:{port}", private=True, ca=services.ca)
    with pytest.raises(Unavailable, match=r"certificate is not valid for 'kds\.example'"):
        Client().get(service, "/x", types=TYPES, max_bytes=10)
    assert services.asked == []


def test_the_system_s_authorities_and_names_are_checked_over_tls_1_2_or_newer():
    context = web._context(Service(base="https://x"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_proxies_of_the_environment_are_not_asked(services, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(services).body == b"{}"


def test_plain_http_is_for_loopback_and_by_name_alone(tmp_path):
    with serve(tmp_path, tls=False) as services:
        services.files["/x"] = GOOD
        assert get(services, private=True, plain=True).body == b"{}"
        with pytest.raises(Misuse, match="not https://HOST"):
            get(services, private=True)
        with pytest.raises(Misuse, match=r"example\.com: plain HTTP is spoken to a loopback address alone"):
            Client().get(Service(base="http://example.com", plain=True), "/x", types=TYPES, max_bytes=10)
        with pytest.raises(Misuse, match=r"10\.0\.0\.1: plain HTTP is spoken to a loopback address alone"):
            Client().get(Service(base="http://10.0.0.1", plain=True), "/x", types=TYPES, max_bytes=10)


@pytest.mark.parametrize(
    ("base", "why"),
    [
        *((base, "not https://HOST") for base in ("", "x", "https://", "ftp://x", "https://a@b")),
        *((base, "not https://HOST") for base in ("https://a:b@c", "https://x y", "https://x#y")),
        *((base, "not a URL") for base in ("https://x:99999", "https://x:y", "https://[x")),
    ],
)
def test_a_base_that_is_none_is_a_misuse(base, why):
    with pytest.raises(Misuse, match=why):
        Client().get(Service(base=base), "/x", types=TYPES, max_bytes=10)


@pytest.mark.parametrize("path", ["x", "/a b", "/a\r\nHost: evil", "/\u00e9", "/a\x00", "/" + "a" * 5000])
def test_paths_that_would_write_headers_are_a_misuse(services, path):
    with pytest.raises(Misuse, match="not a path"):
        get(services, path)
    assert services.asked == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ((), "is there 0 times"),
        (("a", "b"), "is there 2 times"),
        (("a\r\n b",), "is no line of plain text"),
        (("\u00e9",), "is no line of plain text"),
        (("a\x00",), "is no line of plain text"),
        (("x" * 40_000,), "is no line of plain text"),
    ],
)
def test_a_header_counts_when_given_once_in_plain_text(values, why):
    answer = Download(url="https://x/", body=b"", headers={"chain": values})
    with pytest.raises(Malformed, match=f"header Chain {why}"):
        answer.header("Chain")


def test_a_percent_encoded_header_is_decoded_once():
    answer = Download(url="https://x/", body=b"", headers={"chain": ("a%2Bb+c%2525%0A",)})
    assert answer.decoded("chain") == b"a+b+c%25\n"
