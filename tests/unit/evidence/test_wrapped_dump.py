"""Evidence as people paste it: every program's dump, every language's list, whatever stands around; one reading or none."""

from __future__ import annotations

import base64
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence.wrappings import dump
from strongroom.evidence.wrappings.recognise import pieces, recognise
from tests import effort
from tests.effort import examples
from tests.unit.evidence.raw_pieces import QUOTE, QUOTES, REPORT, SPDM, TPM_QUOTE


def rows(data, size=16):
    return [(at, data[at : at + size]) for at in range(0, len(data), size)]


def shown(row):
    return "".join(chr(one) if 32 <= one < 127 else "." for one in row)


def xxd(data, *, group=2, size=16, turned=False):
    """xxd's lines: the offset, groups, and the text in a column of its own."""
    out = []
    for at, row in rows(data, size):
        groups = [row[index : index + group] for index in range(0, len(row), group)]
        told = " ".join((one[::-1] if turned else one).hex() for one in groups)
        out.append(f"{at:08x}: {told:<{size * 2 + size // group}} {shown(row)}")
    return "\n".join(out) + "\n"


def hexdump(data):
    """`hexdump -C`: equal lines left out, text between bars, the size last."""
    out, last, starred = [], None, False
    for at, row in rows(data):
        if row == last and len(row) == 16:
            if not starred:
                out.append("*")
            starred = True
            continue
        last, starred = row, False
        pairs = [f"{one:02x}" for one in row]
        told = " ".join(pairs[:8]) + "  " + " ".join(pairs[8:])
        out.append(f"{at:08x}  {told:<49} |{shown(row)}|")
    return "\n".join([*out, f"{len(data):08x}"]) + "\n"


def words(data, *, base="07x", size=2):
    """hexdump and `od -x`: words of the machine that ran them."""
    return "\n".join(
        f"{at:{base}} "
        + " ".join(row[index : index + size][::-1].hex() for index in range(0, len(row), size))
        for at, row in rows(data)
    )


def od(data, *, base="07o"):
    return "\n".join(f"{at:{base}} " + " ".join(f"{one:02x}" for one in row) for at, row in rows(data))


def lines(data, before="", after=""):
    """A form of our own making: what stands before each line of a dump, and after."""
    return "\n".join(
        before.format(at=at) + " ".join(f"{one:02x}" for one in row) + after for at, row in rows(data)
    )


def read(text):
    """What is found in a text, which may be nothing."""
    try:
        return [data for one in pieces(text.encode()) for data in one.evidence.parts.values()]
    except Malformed:
        return []


def stretches(text):
    return [data for _, readings in dump.segments(text.encode(), most=1 << 20) for _, data in readings]


def c_list(data, form="0x{:02x}"):
    return ",\n".join("  " + ", ".join(form.format(one) for one in row) for _, row in rows(data, 12))


def escaped(data):
    return "".join(f"\\x{one:02x}" for one in data)


FORMS = {
    "xxd": xxd,
    "xxd -g1": lambda data: xxd(data, group=1),
    "xxd -g4": lambda data: xxd(data, group=4),
    "xxd -c32": lambda data: xxd(data, size=32),
    "xxd -e": lambda data: xxd(data, group=4, turned=True),
    "hexdump -C": hexdump,
    "hexdump": words,
    "od -x": lambda data: words(data, base="07o"),
    "od -X": lambda data: words(data, base="07o", size=4),
    "od -tx1": od,
    "od -Ax -tx1": lambda data: od(data, base="06x"),
    "od -Ad -tx1": lambda data: od(data, base="07d"),
    "od -tx1z": lambda data: "\n".join(f"{line}  >{'.' * 16}<" for line in od(data).split("\n")),
    "Intel's sample": lambda data: "TD quote:\n" + lines(data, " {at:08x}: ", " "),
    "offsets with 0x": lambda data: lines(data, "0x{at:04x}: "),
    "offsets with h": lambda data: lines(data, "{at:04X}h: "),
    "offsets and a tab": lambda data: lines(data, "{at:04x}\t"),
    "a debugger": lambda data: "\n".join(
        f"{0x7FFF0000E000 + at:#x} <quote+{at}>:\t" + "\t".join(f"0x{one:02x}" for one in row)
        for at, row in rows(data, 8)
    ),
    "a log with times": lambda data: "".join(
        f"[   12.3456] tdx: {line}\n" for line in xxd(data).splitlines()
    ),
    "line numbers": lambda data: "".join(
        f"{index:6}\t{line}\n" for index, line in enumerate(xxd(data).splitlines(), 1)
    ),
    "grep -n": lambda data: "".join(
        f"{index}:{line}\n" for index, line in enumerate(xxd(data).splitlines(), 1)
    ),
    "a mail's quotes": lambda data: "".join(f"> {line}\n" for line in xxd(data).splitlines()),
    "colours": lambda data: xxd(data).replace(": ", ": \x1b[1;32m").replace("  ", "\x1b[0m  "),
    "CRLF": lambda data: xxd(data).replace("\n", "\r\n"),
    "fences and prompts": lambda data: (
        f"Here it is:\n```\n$ xxd quote\n{xxd(data)}$ \n```\nfaded, isn't it\n"
    ),
    "xxd -i": lambda data: (
        f"unsigned char quote[] = {{\n{c_list(data)}\n}};\nunsigned int quote_len = {len(data)};\n"
    ),
    "a list with comments": lambda data: (
        "{\n"
        + "\n".join(
            f"/* {at:04x} */ " + "".join(f"0x{one:02X}u, " for one in row) + "// row"
            for at, row in rows(data)
        )
        + "\n}"
    ),
    "Rust": lambda data: f"let quote: [u8; {len(data)}] = {list(data)};",
    "Go": lambda data: "[]byte{" + ", ".join(map(str, data)) + "}",
    "Go, printed": lambda data: "[" + " ".join(map(str, data)) + "]",
    "Java": lambda data: "{" + ", ".join(f"(byte) 0x{one:02x}" for one in data) + "}",
    "hexadecimal, commas": lambda data: ",".join(f"{one:02x}" for one in data),
    "Python's repr": lambda data: f"it's this: {data!r}\n",
    "escapes": escaped,
    "printf": lambda data: f"printf '{escaped(data)}' > quote",
    "C strings": lambda data: (
        "char q[] =\n" + "\n".join(f'  "{escaped(row)}"' for _, row in rows(data)) + ";"
    ),
    "openssl": lambda data: (
        "Signature:\n"
        + ":\n".join("    " + ":".join(f"{one:02x}" for one in row) for _, row in rows(data, 15))
    ),
    ".NET": lambda data: "-".join(f"{one:02X}" for one in data),
    "a log": lambda data: f"INFO quote={data.hex()}\nINFO done\n",
    "a log, base64": lambda data: f"INFO got quote: {base64.b64encode(data).decode()} ({len(data)} bytes)\n",
    "base64 in fences": lambda data: (
        "From my attestation-service\n```\n" + base64.encodebytes(data).decode() + "```\n"
    ),
    "Python's fromhex": lambda data: f'quote = bytes.fromhex("{data.hex()}")\n',
    "strings, one a line": lambda data: (
        "quote = (\n" + "\n".join(f'    "{row.hex()}"' for _, row in rows(data, 32)) + "\n)\n"
    ),
    "PEM in a text": lambda data: (
        "# quote\n-----BEGIN QUOTE-----\n" + base64.encodebytes(data).decode() + "-----END QUOTE-----\n"
    ),
    "JSON behind a prompt": lambda data: "$ curl x\n" + json.dumps({"quote": data.hex()}) + "\n$ \n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [QUOTE, REPORT], ids=["quote", "report"])
def test_a_pasted_form_is_read(form, data):
    found = recognise(FORMS[form](data).encode())
    assert list(found.evidence.parts.values()) == [data], found.layers


def test_text_in_the_column_that_looks_like_digits_is_no_data():
    data = QUOTE[:-6] + b"ab cd "
    for size in range(len(data) - 17, len(data)):
        cut = data[:size]
        assert recognise(xxd(cut).encode()).evidence.parts == {"quote": cut}


def test_a_dump_whose_offsets_do_not_agree_is_no_dump():
    whole = xxd(QUOTE).splitlines()
    for spoilt in (
        [*whole[:3], *whole[4:]],  # a line is missing
        [*whole[:3], whole[3][:-30], *whole[4:]],  # cut short
        [*whole[:3], whole[4], whole[3], *whole[5:]],  # out of order
        [*whole[:3], whole[3].replace(": ", ": 00", 1), *whole[4:]],
        [*whole[:3], whole[3].replace("0 ", "g ", 1), *whole[4:]],
    ):
        assert QUOTE not in read("\n".join(spoilt))


def test_several_in_one_text_are_all_told():
    text = f"first:\n{xxd(QUOTE)}\nsecond:\n{hexdump(REPORT)}\nthird: {TPM_QUOTE.hex()}\n"
    found = pieces(text.encode())
    assert [one.evidence.tee for one in found] == ["tdx", "snp", "tpm"]
    assert [one.place for one in found] == ["[line 2]", f"[line {text[: text.index('second')].count(chr(10)) + 2}]",
                                            f"[line {text[: text.index('third')].count(chr(10)) + 1}]"]  # fmt: skip
    with pytest.raises(Malformed, match="3 pieces, and none is taken for the whole"):
        recognise(text.encode())
    rows_of_json = "\n".join(json.dumps({"quote": one.hex()}) for one in (QUOTE, REPORT))
    assert [one.place for one in pieces(rows_of_json.encode())] == ["[line 1].quote", "[line 2].quote"]


def test_a_transcript_of_intels_sample_gives_the_quote_alone():
    text = (
        "root@tdx-guest:~/work# ./test_tdx_attest\n\t\t\n\t\tTDX report data\n\n"
        + lines(bytes(range(64)), " {at:08x}: ")
        + "\n\nWrote TD Report to report.dat\n\t\t\n\t\tTDX quote data\n\n"
        + lines(QUOTE, " {at:08x}: ")
        + "\n\nSuccessfully get the TD Quote\nWrote TD Quote to quote.dat\n"
    )
    assert recognise(text.encode()).evidence.parts == {"quote": QUOTE}


def test_base64_whose_lines_were_broken_anew_is_read_and_digits_after_digits_are_not_joined():
    text = base64.b64encode(QUOTE).decode()
    cuts = [0, 70, 150, 226, 290, *range(370, len(text), 80), len(text)]
    broken = "\n".join(text[begin:end] for begin, end in itertools.pairwise(cuts))
    assert recognise(f"I tried this document:\n```\n{broken}\n```\nthanks\n".encode()).evidence.parts == {
        "quote": QUOTE
    }
    digits = "\n".join(QUOTE.hex()[at : at + 64] for at in range(0, 2 * len(QUOTE), 64))
    assert read(f"quote:\n{digits}\n{'ab' * 32}\n") in ([QUOTE], [QUOTE + b"\xab" * 32])


def test_words_are_given_in_both_orders():
    ((_, readings),) = dump.segments(words(QUOTE).encode(), most=1 << 20)
    assert [name for name, _ in readings] == ["hex dump", "hex dump of 16-bit words, little-endian"]
    assert readings[1][1] == QUOTE


def test_what_can_be_read_in_two_ways_is_refused(monkeypatch):
    def two(data, *, most):
        return iter([("line 1", [("one way", QUOTE), ("another way", REPORT)])])

    monkeypatch.setattr(dump, "segments", two)
    with pytest.raises(
        Malformed, match=r"in two ways, as one way, line 1 .TDX.* and as another way"
    ) as caught:
        recognise(b"any text of at least so many letters as that")
    assert caught.value.code == "ambiguous"


def test_short_dumps_and_binary_files_are_left_alone():
    assert list(dump.segments(xxd(bytes(16)).encode(), most=1 << 20)) == []
    for data in (
        b"\0" + xxd(QUOTE).encode(),
        b"\xff" + xxd(QUOTE).encode(),
        b"\n" * 200_000 + xxd(QUOTE).encode(),
    ):
        assert list(dump.segments(data, most=1 << 20)) == []


def test_rule_15_long_texts_take_no_long_time():
    """Lines that begin like a dump and are none, and lists that end before they are long enough."""
    texts = ("be 12\n" * 90_000, "1 2 3\n" * 90_000, "0x1, " * 40 + "x " * 9, "{" * 200_000, "'" * 200_000,
                 "\\x41" * 47 + "," * 100_000, "00:" * 100_000 + "x", "A" * 1_000_000, "*\n" * 90_000)  # fmt: skip
    for text in effort.some(texts):
        assert read(text) == []


@pytest.mark.parametrize("parting", [",", ";", "\n", " ", "\u2003", " , "])
@pytest.mark.parametrize("around", ["{}", "x={}!"])
def test_a_list_of_the_least_length_is_found_however_its_numbers_are_parted(parting, around):
    for count in (47, 48):
        text = around.format(parting.join(map(str, range(100, 100 + count))))
        assert (bytes(range(100, 100 + count)) in stretches(text)) == (count == 48)


@pytest.mark.parametrize("parting", [":", "-", ":\n", ",", " ", "\t", "\n,\n"])
def test_pairs_of_the_least_length_are_found_however_they_are_parted(parting):
    for count in (47, 48):
        data = bytes(range(0xA0, 0xA0 + count))
        assert (data in stretches(parting.join(f"{one:02x}" for one in data))) == (count == 48)


@examples(300)
@given(
    st.one_of(
        st.text(alphabet="0123456789abcdefx:,| \n*>\"'\\{}[]-", max_size=400),
        st.binary(min_size=48, max_size=300).map(lambda data: xxd(data).encode()[:-9].decode("latin-1")),
        st.binary(min_size=48, max_size=300).map(hexdump),
    )
)
def test_rule_15_any_text_is_searched_without_failing(text):
    for place, readings in dump.segments(text.encode(), most=1 << 20):
        assert place.startswith("line ")
        assert all(isinstance(data, bytes) for _, data in readings)


@examples(200)
@given(
    st.binary(min_size=64, max_size=400),
    st.sampled_from(["xxd", "hexdump -C", "od -tx1", "od -Ad -tx1", "xxd -c32"]),
)
def test_a_dump_gives_the_bytes_that_were_dumped(data, form):
    found = [
        one for _, readings in dump.segments(FORMS[form](data).encode(), most=1 << 20) for _, one in readings
    ]
    assert data in found


LONG = 200_000
HOSTILE = {
    "comments that nobody ends": b"/* " * LONG,
    "quotes that nobody ends": b'"' + b'\\"' * LONG,
    "spaces behind a string": b'\\ "a"' + b" " * LONG,
    "letters of words and of what follows them": b"+" * LONG + b"!",
    "spaces behind a dump": b"00 11\n00 " + b" " * LONG + b"x",
    "bars behind a dump": b"00 11\n00 " + b" |" * LONG + b"x",
    "angles behind a dump": b"00 11\n00 " + b" >" * LONG + b"x",
    "lists one number too short": (b"1 " * 47 + b"x ") * (LONG // 20),
    "pairs one too short": (b"aa:" * 46 + b"x ") * (LONG // 20),
    "escapes one too few": (b"\\x00" * 47 + b"x ") * (LONG // 20),
    "brackets": b"[" * LONG,
    "nested objects": b'{"a":' * LONG,
    "nested lists in YAML": b"a: 1\nb: " + b"[" * LONG,
    "nested messages": b"quotes ak_cert " + b"a{" * LONG,
    "stars": b"*" * LONG,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_text_made_to_be_slow_is_read_to_its_end(text):
    # Where a pattern began again at each letter, each of these took minutes or days.
    with pytest.raises(Malformed) as caught:
        pieces(text)
    assert caught.value.code == "unknown-evidence"


def test_dumps_whose_stars_stand_for_more_than_a_file_are_refused():
    one = b"00000000  " + b"00 " * 16 + b"\n*\n003fff00\n\nnext\n"
    with pytest.raises(Malformed, match="dumps of more than 4194304 bytes") as caught:
        pieces(one * 1000)
    assert caught.value.code == "too-large"


def test_pieces_of_every_form_are_counted_before_they_are_compared():
    own = ",".join(f'{{"tee":"snp","parts":{{"report":"{at:08}"}}}}' for at in range(10_000))
    chain = json.dumps(pem.encode(b"leaf", b"CERTIFICATE").decode())
    told = [(SPDM + at.to_bytes(4, "big")).hex() for at in range(300)]
    devices = ",".join(
        f'{{"attestationReportHexStr":"{one}","certChainBase64Encoded":{chain}}}' for one in told
    )
    for many in (own, devices):
        with pytest.raises(Malformed, match="more than 256 pieces") as caught:
            pieces(f"[{many}]".encode())
        assert caught.value.code == "too-many"


def test_a_key_twice_among_very_many_is_named():
    many = ",".join(f'"{at}":1' for at in range(100_000))
    with pytest.raises(Malformed, match="duplicate key '99999'") as caught:
        pieces(f'{{{many},"99999":1}}'.encode())
    assert caught.value.code == "duplicate-key"


def test_a_text_with_more_stretches_than_are_looked_at_is_never_taken_for_its_first_piece():
    words = "\n".join(f"token {base64.b64encode(at.to_bytes(100, 'big')).decode()}" for at in range(1100))
    text = (
        f"quote: {base64.b64encode(QUOTE).decode()}\n{words}\nanother: {base64.b64encode(REPORT).decode()}\n"
    )
    with pytest.raises(Malformed, match="more than 1024 stretches") as caught:
        recognise(text.encode())
    assert caught.value.code == "too-many"


def test_digests_in_a_log_are_no_stretches():
    digests = "\n".join(f"layer sha256:{at:064x}" for at in range(2000))
    text = f"{digests}\nquote: {base64.b64encode(QUOTE).decode()}\n"
    assert recognise(text.encode()).evidence.parts == {"quote": QUOTE}


def signed(data):
    return [one - 256 if one > 127 else one for one in data]


FURTHER = {
    "a typed array of JavaScript, by JSON": json.dumps({"report": {str(at): one for at, one in enumerate(REPORT)}}),
    "signed bytes of Java, in JSON": json.dumps({"report": signed(REPORT)}),
    "signed bytes of Java, printed": f"report: {signed(REPORT)}",
    "Rust's {:x?}": f"report = [{', '.join(f'{one:x}' for one in REPORT)}]",
    "Node's Buffer, printed": f"<Buffer {REPORT.hex(' ')}>",
    "certutil -encode": pem.encode(REPORT, b"CERTIFICATE").decode(),
    "a form of the web": "report=" + base64.b64encode(REPORT).decode().replace("+", "%2B").replace("/", "%2f").replace("=", "%3D") + "&nonce=1",
    "psql's bytea": f" report\n--------\n \\x{REPORT.hex()}\n(1 row)\n",
}  # fmt: skip


@pytest.mark.parametrize("text", FURTHER.values(), ids=FURTHER)
def test_bytes_as_further_programs_print_them(text):
    [piece] = pieces(text.encode())
    assert piece.evidence.parts == {"report": REPORT}


def test_numbers_that_are_no_bytes_are_none():
    for numbers in ([*signed(REPORT), 200], [*REPORT, 256], [*signed(REPORT), -129]):
        with pytest.raises(Malformed) as caught:
            pieces(json.dumps({"report": numbers}).encode())
        assert caught.value.code == "unknown-evidence"


def test_a_report_of_open_enclave_is_its_quote():
    quote = QUOTES["sgx", 3]
    told = b"\1\0\0\0\2\0\0\0" + len(quote).to_bytes(8, "little") + quote
    piece = recognise(told)
    assert piece.evidence.parts == {"quote": quote}
    assert piece.layers == ("a report of Open Enclave",)
    with pytest.raises(Malformed) as caught:
        recognise(told + b"\0")
    assert caught.value.code == "unknown-evidence"
