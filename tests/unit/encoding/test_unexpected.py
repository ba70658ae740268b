"""What messages say was found: enough to see what is wrong, and never a content that may be a secret."""

from __future__ import annotations

import pytest

from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-5, "-5"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, "0x10000000000000000"),
        ("", "an empty text"),
        ("s", "text of 1 character"),
        ("secret", "text of 6 characters"),
        (b"secret", "6 bytes"),
        (b"s", "1 byte"),
        (["secret"], "a list of 1"),
        (("secret", 1), "a list of 2"),
        ({"secret": "secret"}, "an object"),
        (1.5, "a float"),
    ],
)
def test_a_kind_is_told_without_the_content(value, said):
    assert unexpected.kind(value) == said


def test_texts_are_quoted_so_that_letters_that_look_alike_differ():
    assert unexpected.quoted("alice") == "'alice'"
    assert unexpected.quoted("\u0430lice\n") == r"'\u0430lice\n'"
    assert unexpected.quoted("a" * 80) == repr("a" * 80)
    assert unexpected.quoted("a" * 81) == repr("a" * 80) + "…"
    assert unexpected.quoted("") == "an empty text"
    assert unexpected.quoted(5) == "5"


@pytest.mark.parametrize("value", ["AGE-SECRET-KEY-1" + "Q" * 300, "hunter2\0"])
def test_what_may_be_a_secret_is_in_no_message(value):
    for read in (
        lambda one: one.text("key", max_length=200),
        lambda one: one.data("key", max_bytes=32, exactly=32),
        lambda one: one.integer("key", low=0, high=1),
        lambda one: one.items("key", max_items=1),
        lambda one: one.object("key"),
        lambda one: one.text_map_of(("key",), max_length=1),
    ):
        with pytest.raises(Malformed, match="key: expected") as caught:
            read(fields.Fields({"key": value}, "identity"))
        assert value[:7] not in caught.value.message
    with pytest.raises(Malformed, match="TOKEN: expected text of at most") as caught:
        fields.Fields({"environment": {"TOKEN": value}}, "image").text_map(
            "environment", max_items=1, max_length=5
        )
    assert value[:7] not in caught.value.message


def test_a_request_does_not_come_back_in_what_is_said_of_it():
    wrong = {"a": "hunter2!", "b": ["hunter2!"], "c": {"a": "hunter2!"}, "d": [{"a": "hunter2!"}]}
    for read in (
        lambda one: one.name("a"),
        lambda one: one.digest("a"),
        lambda one: one.time("a"),
        lambda one: one.choice("a", ("b", "c")),
        lambda one: one.constant("a", "b"),
        lambda one: one.text("a", pattern=fields.TIME, like="a time"),
        lambda one: one.texts("b", max_items=1, pattern=fields.NAME),
        lambda one: one.object("c").name("a"),
        lambda one: one.object_or_null("c").name("a"),
        lambda one: one.objects("d", max_items=1)[0].name("a"),
    ):
        with pytest.raises(Malformed, match="got text of 8 characters") as caught:
            read(fields.Fields(wrong, "request"))
        with pytest.raises(Malformed, match="got 'hunter2!'"):
            read(fields.Fields(wrong, "contract", quoting=True))
        assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "x: not JSON: Expecting value: line 1 column 1"),
        (b'"a\xff"', "x: not JSON: byte 2 is not UTF-8"),
        (b"1" * 5000, "x: not JSON: a number has too many digits"),
    ],
)
def test_what_is_no_json_says_where(data, why):
    with pytest.raises(Malformed, match=why) as caught:
        canonical.loads(data, what="x", max_bytes=10_000)
    assert caught.value.code == "not-json"


def test_a_hint_is_given_where_a_parser_has_none_of_its_own():
    with pytest.raises(Malformed) as caught, fields.hinted("draft it again"):
        raise Malformed("bad")
    assert caught.value.hint == "draft it again"
    with pytest.raises(Malformed) as caught, fields.hinted("draft it again"):
        raise Malformed("bad", hint="leave it out")
    assert caught.value.hint == "leave it out"


def test_a_list_of_byte_strings_names_the_one_that_is_none():
    source = fields.Fields({"hashes": ["AAAA", "AAA"]}, "proof")
    with pytest.raises(
        Malformed, match=r"proof.hashes\[1\]: expected base64 with its padding, got other text"
    ):
        source.datas("hashes", max_items=2, max_bytes=3)
    with pytest.raises(Malformed, match=r"proof.hashes\[0\]: expected 2 bytes in base64, got 3 bytes"):
        fields.Fields({"hashes": ["AAAA"]}, "proof").datas("hashes", max_items=2, max_bytes=3, exactly=2)
    assert fields.Fields({"hashes": ["AAAA", ""]}, "proof").datas("hashes", max_items=2, max_bytes=3) == (
        b"\0\0\0",
        b"",
    )
