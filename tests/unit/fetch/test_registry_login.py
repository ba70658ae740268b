"""Logging in to real registries: htpasswd and tokens; credentials go where they belong and nowhere else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from strongroom.errors import Malformed, Misuse, Refused, Unavailable
from strongroom.fetch.oci import login, names
from strongroom.fetch.oci import pull as registry
from strongroom.fetch.oci.login import Credential, Keyring
from strongroom_testing import registry_server as server
from strongroom_testing.registry_front import front
from strongroom_testing.vendors.vendor_services import Reply, of_type
from tests.unit.fetch import registries
from tests.unit.fetch.registries import AMD64, READER, access, name


@pytest.fixture(scope="module")
def by_password(tmp_path_factory):
    folder = tmp_path_factory.mktemp("password")
    with (
        server.registry(folder / "registry", htpasswd=True) as real,
        front(folder / "front", upstream=real.host) as before,
    ):
        made = registries.sample(folder / "sample")
        registries.put(made[0], real.host, login=READER)
        yield before, made[1]["digest"]


@pytest.fixture(scope="module")
def by_token(tmp_path_factory):
    folder = tmp_path_factory.mktemp("token")
    tokens = server.Tokens()
    with front(folder / "front", tokens=tokens) as before:
        # The same storage twice: open, to be filled, and behind tokens.
        with server.registry(folder / "registry") as real:
            made = registries.sample(folder / "sample")
            registries.put(made[0], real.host)
        with server.registry(folder / "registry", tokens=tokens) as real:
            before.upstream = real.host
            yield before, tokens, made[1]["digest"]


def pull(one, digest, into, keyring=None):
    made = access(one) if keyring is None else replace(access(one), keyring=keyring)
    return registry.pull(name(one.host, digest), platform=AMD64, into=into, access=made)


@registries.needs_registry
def test_basic_log_in(by_password, tmp_path):
    one, digest = by_password
    assert pull(one, digest, tmp_path, Keyring(by_host={one.host: READER})).index == digest


@registries.needs_registry
@pytest.mark.parametrize("given", [None, Credential(name=server.NAME, secret="wrong")])
def test_without_the_right_password_nothing_is_had(by_password, tmp_path, given):
    one, digest = by_password
    keyring = Keyring(by_host={} if given is None else {one.host: given})
    with pytest.raises(Refused) as caught:
        pull(one, digest, tmp_path, keyring)
    assert caught.value.code == "registry-denied"
    assert "wrong" not in caught.value.message


@registries.needs_registry
def test_a_credential_of_another_host_is_not_used(by_password, tmp_path):
    one, digest = by_password
    one.heal()
    elsewhere = Keyring(by_host={one.host.replace("127.0.0.1", "localhost"): READER, "127.0.0.1": READER})
    with pytest.raises(Refused, match="HTTP 401: no credential"):
        pull(one, digest, tmp_path, elsewhere)
    assert not any(asked.header("authorization") for asked in one.asked)


@registries.needs_registry
def test_token_log_in_by_password(by_token, tmp_path):
    one, tokens, digest = by_token
    one.heal()
    tokens.asked.clear()
    assert pull(one, digest, tmp_path, Keyring(by_host={one.host: READER})).index == digest
    ((method, target, _, _),) = tokens.asked  # once for the whole pull
    assert method == "GET"
    assert "scope=repository%3Ateam%2Fit%3Apull" in target
    sent = {asked.header("authorization")[:6] for asked in one.asked if asked.target.startswith("/v2/")}
    assert sent == {"", "Bearer"}  # the password goes for a token alone


@registries.needs_registry
def test_token_log_in_by_identity_token(by_token, tmp_path):
    one, tokens, digest = by_token
    tokens.asked.clear()
    known = Credential(name="<token>", identity_token=tokens.refresh)
    pull(one, digest, tmp_path, Keyring(by_host={one.host: known}))
    ((method, target, _, form),) = tokens.asked
    assert (method, target) == ("POST", "/token")  # nothing secret in a URL
    assert "grant_type=refresh_token" in form


@registries.needs_registry
def test_no_token_no_image(by_token, tmp_path):
    one, _, digest = by_token
    with pytest.raises(Refused) as caught:
        pull(one, digest, tmp_path, Keyring(by_host={one.host: Credential(name="x", secret="y")}))
    assert caught.value.code == "registry-denied"


@registries.needs_registry
def test_a_token_that_ran_out_is_had_anew(by_token, tmp_path):
    one, tokens, digest = by_token
    one.heal()
    left = [True]

    def expire(asked, reply):
        if asked.header("authorization") and left and left.pop():
            challenge = f'Bearer realm="{tokens.realm}",service="{server.SERVICE}",scope="x"'
            return Reply(status=401, headers=(("WWW-Authenticate", challenge),))
        return reply

    one.spoil("/blobs/", expire)
    tokens.asked.clear()
    pull(one, digest, tmp_path, Keyring(by_host={one.host: READER}))
    assert len(tokens.asked) == 2


@pytest.fixture
def bare(tmp_path):
    """A front that is all there is of a registry."""
    with front(tmp_path / "bare") as made:
        yield made


def refuse_with(one, challenge):
    one.spoil("/v2/", lambda *_: Reply(status=401, headers=(("WWW-Authenticate", challenge),)))


ANY = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    "realm",
    [
        "http://127.0.0.1:1/token",
        "https://169.254.169.254/token",
        "ftp://a/b",
        "/token",
        "https://u:p@127.0.0.1/t",
    ],
)
def test_rule_55_tokens_are_not_asked_for_where_nobody_should_go(bare, tmp_path, realm):
    refuse_with(bare, f'Bearer realm="{realm}",service="s"')
    with pytest.raises(Refused) as caught:
        pull(bare, ANY, tmp_path / "cache", Keyring(by_host={bare.host: READER}))
    assert caught.value.code in ("redirect", "forbidden-address")


def test_rule_55_the_place_for_tokens_sends_nobody_elsewhere(bare, tmp_path):
    refuse_with(bare, f'Bearer realm="https://{bare.host}/token"')
    bare.files["/token"] = Reply(status=307, headers=(("Location", f"https://{bare.host}/stolen"),))
    with pytest.raises(Unavailable, match="/token: HTTP 307"):
        pull(bare, ANY, tmp_path / "cache", Keyring(by_host={bare.host: READER}))
    assert not [asked for asked in bare.asked if asked.target == "/stolen"]


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer", 'Bearer realm=""', 'Digest realm="x"'])
def test_a_log_in_of_another_kind_is_malformed(bare, tmp_path, challenge):
    refuse_with(bare, challenge)
    with pytest.raises(Malformed, match="asks for a log-in of an unknown kind"):
        pull(bare, ANY, tmp_path / "cache")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no strict JSON"),
        (b"{}", "its answer holds no token"),
        (b"[]", "its answer holds no token"),
        (b'{"token": 5}', "its answer holds no token"),
        (b'{"token": "a\\nb"}', "its answer holds no token"),
        (b'{"token": "a", "token": "b"}', "no strict JSON"),
        (b"x" * 200_000, "larger than 131072 bytes"),
    ],
)
def test_an_answer_without_a_token_is_malformed_and_not_told(bare, tmp_path, body, why):
    refuse_with(bare, f'Bearer realm="https://{bare.host}/token"')
    bare.files["/token"] = of_type("application/json", body)
    with pytest.raises(Malformed, match=why):
        pull(bare, ANY, tmp_path / "cache")


def config(**auths):
    return json.dumps({"auths": auths}).encode()


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_of_several_log_ins_tokens_come_first():
    bearer = 'Bearer realm="https://a.example/t",service="s"'
    for headers in ((bearer,), ("Basic", bearer), (bearer, "Basic realm=x"), ("Negotiate", bearer)):
        assert login.parse_challenge(headers).realm == "https://a.example/t"
    assert login.parse_challenge(("Negotiate", "Basic")).scheme == "basic"
    with pytest.raises(Malformed, match="unknown kind, 'Negotiate"):
        login.parse_challenge(["Negotiate"] * 4 + [bearer])
    with pytest.raises(Malformed, match="unknown kind, ''"):
        login.parse_challenge(())


def test_a_config_json_is_read_as_docker_writes_it():
    data = json.dumps(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": b64("hub:secret:with:colons")},
                "registry.example:5000": {"username": "a", "password": "b"},
                "ghcr.example": {"auth": b64("<token>:"), "identitytoken": "refresh"},
                "empty.example": {},
            },
            "credsStore": "desktop",
            "HttpHeaders": {"User-Agent": "x"},
        }
    ).encode()
    found = login.parse(data, host="x").by_host
    assert found["registry-1.docker.io"] == Credential(name="hub", secret="secret:with:colons")
    assert found["registry.example:5000"] == Credential(name="a", secret="b")
    assert found["ghcr.example"] == Credential(name="<token>", identity_token="refresh")
    assert len(found) == 3


def test_a_line_is_for_the_registry_that_is_asked():
    assert login.parse(b"me:pass word\n", host="r.example").credential_for("r.example") == Credential(
        name="me", secret="pass word"
    )
    for bad in (b"", b"me", b":x", b"me:", b"me:a\x00b", b"me:" + b"x" * 20_000):
        with pytest.raises(Malformed, match=r"credentials of r\.example: expected NAME:SECRET"):
            login.parse(bad, host="r.example")
    with pytest.raises(Malformed, match="credentials: no text"):
        login.parse(b"\xff:x", host="r.example")


def test_rule_51_no_secret_is_shown():
    made = login.parse(config(**{"r.example": {"auth": b64("me:hush")}}), host="x")
    assert "hush" not in repr(made)
    for bad in (
        b'{"auths": {"hush.example": {"auth": "hush!"}}}',
        b'{"hush": 1.5}',
        b'{"hush": "a", "hush": 1}',
    ):
        with pytest.raises(Malformed) as caught:
            login.parse(bad, host="x")
        assert "hush" not in caught.value.message.replace("hush.example", "")


def test_credential_programs_are_not_run():
    with pytest.raises(Refused) as caught:
        login.parse(b'{"credsStore": "desktop"}', host="x")
    assert caught.value.code == "credential-helper"
    assert login.parse(b"{}", host="x").by_host == {}


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/it@" + ANY,
        "registry.example:5000/a/b/c@" + ANY,
        "localhost/it:tag@" + ANY,
        "localhost:5000/a__b/c-d.e:Tag_1",
        "[::1]:5000/it@" + ANY,
        "127.0.0.1:1/it@" + ANY,
        "host:5000/it@" + ANY,
    ],
)
def test_names_are_read_and_written_alike(text):
    assert str(names.parse(text)) == text


NO_HOST = "with the registry's host written out"
NO_DIGEST = "its digest is not sha256: and 64 lower-case hexadecimal digits"
NO_PATH = "its repository is no lower-case path"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_HOST),
        ("it", NO_HOST),
        ("it@" + ANY, NO_HOST),
        ("library/it@" + ANY, NO_HOST),  # whose registry?
        ("registry.example/it", "it has neither digest nor tag"),
        ("registry.example/it@sha256:11", NO_DIGEST),
        ("registry.example/it@sha512:" + "1" * 128, NO_DIGEST),
        ("registry.example/it@" + ANY.upper(), NO_DIGEST),
        ("registry.example/It@" + ANY, NO_PATH),
        ("registry.example/../it@" + ANY, NO_PATH),
        ("registry.example//it@" + ANY, NO_PATH),
        ("registry.example/it/@" + ANY, NO_PATH),
        ("registry.example/it:@" + ANY, "its tag has a character that no tag has"),
        ("registry.example/it:a b@" + ANY, "its tag has a character that no tag has"),
        ("registry.example:0/it@" + ANY, NO_HOST),
        ("registry.example:65536/it@" + ANY, NO_HOST),
        ("user@registry.example/it@" + ANY, NO_HOST),
        ("https://registry.example/it@" + ANY, NO_HOST),
        ("registry.example/it@" + ANY + "\n", NO_DIGEST),
        ("registry.exämple/it@" + ANY, NO_HOST),
        ("registry.example/" + "a" * 256 + "@" + ANY, NO_PATH),
        ("-x.example/it@" + ANY, NO_HOST),
    ],
)
def test_rule_45_what_is_no_name_is_not_read_as_one(text, why):
    with pytest.raises(Misuse, match=why):
        names.parse(text)


def test_dockers_registry_answers_elsewhere():
    found = names.parse("docker.io/library/nginx@" + ANY)
    assert (found.place, str(found)) == ("registry-1.docker.io", "docker.io/library/nginx@" + ANY)
    assert names.is_name("docker.io/library/nginx@" + ANY)
    assert not names.is_name("./folder/image@sha256:x.tar")
    assert not names.is_name("image.tar")


def test_a_file_of_log_ins_is_read_by_its_path_and_its_secrets_are_never_told(tmp_path):
    path = tmp_path / "credentials"
    path.write_text("reader:secret\n")
    assert login.load(path, host="reg.example").credential_for("reg.example") == Credential(
        name="reader", secret="secret"
    )
    for text in ("secret", '{"auths": "secret"}', '{"secret', "reader:" + "s" * login.MAX_FILE):
        path.write_text(text)
        with pytest.raises(Malformed, match="credentials") as caught:
            login.load(path, host="reg.example")
        assert "secret" not in f"{caught.value.message} {caught.value.hint}"
