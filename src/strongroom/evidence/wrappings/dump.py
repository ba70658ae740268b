"""Bytes as people paste them: hex dumps with offsets, lists of numbers, escapes, words in a log or between fences.

Read: xxd, hexdump, od and Intel's samples, with or without offsets (hexadecimal, octal or decimal), `*` for repeated
lines, a column of text beside, line numbers before; C, Rust, Go and Python lists of numbers; byte strings with
escapes; pairs of digits parted by colons or dashes; PEM and JSON within other text; and long words of hexadecimal or
base64, over several lines too. A dump counts only where its offsets and its bytes agree to the last one.

What can be read in more than one way (words of 16 bits in either order, numbers of either base) is given in each:
which of them is evidence, whoever asks finds out, and refuses where two are.

A text may be anybody's. Every pattern here takes a run as a whole and gives nothing of it back (`*+`), so that no text
makes it begin again at each letter; what `*` stands for counts against the same bound as what is written out.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from strongroom.errors import Malformed
from strongroom.evidence.wrappings import text as wrapped_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Readings = list[tuple[str, bytes]]

MAX_LINES = 100_000
MAX_SEGMENTS = 1024
MAX_DOCUMENTS = 64
_LEAST = 48  # bytes
# Letters of the shortest evidence, a TPM quote of 79 bytes. A digest has fewer.
_LEAST_WORD, _LEAST_DIGITS = 106, 158
_MAX_COLUMNS = 1024
_SHORTEST = 16
_DIGITS = re.compile(r"[0-9a-fA-F]+")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_QUOTED_LINE = re.compile(r"^[ \t]*>[ ]?", re.MULTILINE)
_NUMBERED = re.compile(r"[ \t]*([0-9]{1,6})(?:[ \t]*[:|.)\]][ \t]*|[ \t]+)(?=\S)")
_OFFSET = re.compile(
    r"[ \t]*(?:0[xX])?([0-9a-fA-F]{1,16})[hH]?[ \t]*(?:<[^>\n]{0,80}>)?[ \t]*[:|]?(?:[ \t]+|$)"
)
_GROUP = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2}){1,64})(?![0-9a-fA-F])[,;]?")
_COLUMN = {"|": re.compile(r"[ \t]\|"), "<": re.compile(r"[ \t]>")}  # by its last letter, how it begins
_WORD_BYTES = 8
# What a log puts before each line of a dump: a time, a host, a program's name.
_PREFIX = re.compile(r"^[^\n]{1,160}?[\s\]](?=(?:0[xX])?[0-9a-fA-F]{4,16}:[ \t]+[0-9a-fA-F]{2,8}[ \t])")
_GROUPS = re.compile(r"(?:[0-9a-fA-F]{2,16}(?:[ \t]+|$))+")
_GAP = re.compile(r"[ \t]*(?:[-|][ \t]+)?")
_ITEM = r"(?:\(byte\)[ \t]*+)?(?:0[xX][0-9a-fA-F]{1,2}(?:_?u8|[uU])?|-?[0-9]{1,3})(?![\w.])"
_LIST = re.compile(rf"(?<![\w.]){_ITEM}(?:[\s,;]++{_ITEM})*+")
_PAIR = r"[0-9a-fA-F]{2}(?!\w)"
_PAIRS = re.compile(rf"(?<![\w:-]){_PAIR}(?:[:-]\s*+{_PAIR})*+")
_SHORT = r"[0-9a-fA-F]{1,2}(?!\w)"
_BARE_PAIRS = re.compile(rf"(?<![\w,]){_SHORT}(?:(?:\s*+,\s*+|[ \t]++){_SHORT})*+")
_QUOTED = r"""(?<!\\)(?:"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')"""
_STRING = f"(?:(?<!\\\\)[bB])?{_QUOTED}"
_AGAIN = rf"(?:[ \t]*+[\\+]?+[ \t]*+\n?+[ \t]*+{_STRING})*"
_BYTE_STRINGS = re.compile(rf"(?<!\w)[bB]{_QUOTED}{_AGAIN}")
_STRINGS = re.compile(_STRING + _AGAIN)
_ONE_STRING = re.compile(_STRING)
_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2}\s*+)++")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_LINE_COMMENT = re.compile(r"//[^\n]*")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_OF_DER = "MI"  # how base64 of a certificate begins
_WORD = re.compile(
    r"(?:^|(?<=\\x)|(?<=[\s\"'`=:(<\[{,]))([A-Za-z0-9+/_-]{16,}+={0,2}+)[\"'`,;\\)>\]}+]*+[ \t]*+$",
    re.MULTILINE,
)
_INNER = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_LEAST_WORD},}}+={{0,2}}+(?![A-Za-z0-9+/_=-])")
_ALONE = re.compile(r"[ \t\"'`(\[{<]*+([A-Za-z0-9+/_-]++={0,2}+)[ \t\"'`,;\\)>\]}+]*+")


def segments(data: bytes, *, most: int) -> Iterator[tuple[str, Readings]]:
    """(place, readings) of each stretch of the text `data` that may be somebody's bytes, in order of its forms.

    most: the largest size of any of them, and of all dumps together. Nothing where `data` is no text. Raises `Malformed`:
    more than are looked at, so that nobody can say whether there is another piece.
    """
    if len(data) < _LEAST or data.count(b"\0"):
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if text.count("\n") > MAX_LINES:
        return
    text = _QUOTED_LINE.sub("", _COLOURS.sub("", text.replace("\r\n", "\n")))
    lines = text.strip("\n").split("\n")
    plain = _without_numbers(lines)
    if plain is not None and len(plain) == len(lines):
        text = "\n".join(plain)
    left = MAX_SEGMENTS
    stripped = data.strip()
    for form in (_blocks, _dumps, _documents, _lists, _pairs, _byte_strings, _words):
        text, runs = form(text, most)
        for at, readings in runs:
            left -= 1
            if left < 0:
                raise Malformed(
                    f"evidence: a text in which more than {MAX_SEGMENTS} stretches may be somebody's bytes",
                    code="too-many",
                    hint="give the evidence itself, without what stands around it",
                )
            yield f"line {at}", [reading for reading in readings if reading[1] != stripped]


Found = list[tuple[int, "Readings"]]


def of_numbers(items: list[Any]) -> bytes | None:
    """The bytes of a list of numbers: from 0 to 255, or signed as Java's are; None where it is none."""
    if len(items) < _LEAST or not all(type(item) is int and -128 <= item < 256 for item in items):
        return None
    if min(items) < 0 and max(items) > 127:
        return None
    return bytes(item & 0xFF for item in items)


def of_value(value: object) -> bytes | None:
    """The same of a decoded value: a list, or what JSON makes of a typed array of JavaScript, keys from 0 on."""
    if isinstance(value, dict) and len(value) >= _LEAST:
        order = [str(at) for at in range(len(value))]
        return of_numbers([value[at] for at in order]) if value.keys() == set(order) else None
    return of_numbers(value) if isinstance(value, list) else None


def _blocks(text: str, most: int) -> tuple[str, Found]:
    """PEM's blocks, certificates passed over: `certutil -encode` calls everything one."""
    del most
    runs: Found = [
        (_line(text, match), [("PEM", "".join(match[2].split()).encode())])
        for match in _PEM.finditer(text)
        if match[1] != "CERTIFICATE" or not match[2].lstrip().startswith(_OF_DER)
    ]
    return _PEM.sub(_blank, text), runs


def _documents(text: str, most: int) -> tuple[str, Found]:
    """JSON in the middle of other text, and several in a row."""
    del most
    runs: Found = []
    out: list[str] = []
    at, decoder = 0, json.JSONDecoder()
    for _ in range(MAX_DOCUMENTS):
        begin = min((start for start in (text.find("{", at), text.find("[{", at)) if start >= 0), default=-1)
        if begin < 0:
            break
        try:
            _, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            newline = text.find("\n", begin)
            end = len(text) if newline < 0 else newline
            out.append(text[at:end])
        else:
            if end - begin > _LEAST and text[:begin].strip() + text[end:].strip():
                runs.append((text.count("\n", 0, begin) + 1, [("JSON in a text", text[begin:end].encode())]))
            out.append(text[at:begin] + "\n" * text.count("\n", begin, end))
        at = end
    return "".join(out) + text[at:], runs


def _dumps(text: str, most: int) -> tuple[str, Found]:
    """Dumps in lines, and the text without them."""
    lines = text.split("\n")
    bare = [_PREFIX.sub("", line) for line in lines]
    runs: Found = []
    at, left = 0, most
    while at < len(lines):
        dump, passed = _dump(bare, at, most) if _may_dump(bare[at]) else (None, 1)
        if dump is not None:
            left -= len(dump.data)
            if left < 0:
                raise Malformed(f"evidence: dumps of more than {most} bytes", code="too-large")
            runs.append((at + 1, dump.readings()))
            lines[at : at + passed] = [""] * passed
        at += passed
    return "\n".join(lines), runs


def _may_dump(line: str) -> bool:
    """Whether a line begins like one of a dump: digits, in groups."""
    head = line.lstrip()[:20]
    return bool(head) and (head[0] in "0123456789abcdefABCDEF") and not head.isalpha()


@dataclass(frozen=True, kw_only=True)
class _Dump:
    """A dump's bytes as they stand and with each group turned, and how many bytes a group of it has."""

    data: bytes
    turned: bytes
    width: int

    def readings(self) -> Readings:
        """The bytes as they stand, and where they stand in words, also with each word turned."""
        out = [("hex dump", self.data)]
        if self.width in (2, 4, 8):
            out.append((f"hex dump of {8 * self.width}-bit words, little-endian", self.turned))
        return out


def _dump(lines: list[str], at: int, most: int) -> tuple[_Dump | None, int]:
    """The dump that begins at the line `at`, and how many lines it has; None, and how many lines are none."""
    passed = 1
    for numbered in (False, True):
        for base in (16, 8, 10):
            dump, used = _with_offsets(_from(lines, at, numbered=numbered), base, most)
            if dump is not None:
                return dump, used
            passed = max(passed, used - 1)
        dump, used = _without_offsets(_from(lines, at, numbered=numbered))
        if dump is not None:
            return dump, used
    return None, passed


def _from(lines: list[str], at: int, *, numbered: bool) -> Iterator[str]:
    """The lines from `at` on; numbered: without the numbers that an editor put before them, as long as they go on."""
    last = None
    for index in range(at, len(lines)):
        line = lines[index]
        if numbered:
            match = _NUMBERED.match(line)
            if match is None or (last is not None and int(match[1]) != last + 1):
                return
            last = int(match[1])
            line = line[match.end() :]
        yield line


def _without_numbers(lines: list[str]) -> list[str] | None:
    """The lines without the numbers before them, each one more than the last; None where they have none."""
    out = list(_from(lines, 0, numbered=True))
    return out if len(out) > 1 else None


def _with_offsets(lines: Iterator[str], base: int, most: int) -> tuple[_Dump | None, int]:
    """A dump each of whose lines begins with the number of bytes before it, and how many lines were looked at."""
    rows: list[tuple[int, str, bool]] = []
    starred, used, end = False, 0, 0
    for line in lines:
        if line.strip() == "*" and rows:
            starred, used = True, used + 1
            continue
        match = _OFFSET.match(line)
        offset = None if match is None else _number(match[1], base)
        if match is None or offset is None or (rows and offset <= rows[-1][0]):
            break
        rows.append((offset, line[match.end() :], starred))
        starred, used = False, used + 1
        end = used
    if len(rows) < 2 or rows[-1][0] - rows[0][0] > most:
        return None, used
    return _assembled(rows), end


def _assembled(rows: list[tuple[int, str, bool]]) -> _Dump | None:
    """The bytes of the rows (offset, what stands behind it, whether lines were left out before it)."""
    read_rows: list[_Row] = []
    column, last = 0, 0
    for (offset, digits, _), (following, _, repeated) in itertools.pairwise(rows):
        size = following - offset
        read = _row(digits, (last or 16) if repeated else size)
        if read is None or size % read.size:
            return None
        column, last = max(column, read.end), read.size
        read_rows.append(replace(read, data=read.data * (size // last), turned=read.turned * (size // last)))
    digits = rows[-1][1]
    if digits.strip():  # else the offset alone: where the dump ends
        read = _row(digits[:column], None) or _row(digits, None)
        if read is None:
            return None
        read_rows.append(read)
    return _joined(read_rows)


def _joined(rows: list[_Row]) -> _Dump:
    return _Dump(
        data=b"".join(row.data for row in rows),
        turned=b"".join(row.turned for row in rows),
        width=max((row.width for row in rows), default=0),
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The bytes of one line, and with each group of it turned; where the last group ends; how many bytes the first has."""

    data: bytes
    turned: bytes
    end: int
    width: int
    count: int

    @property
    def size(self) -> int:
        """How many bytes the row has."""
        return len(self.data)


def _row(digits: str, size: int | None) -> _Row | None:
    """The first `size` bytes of a line, or as many as there are; what stands behind them is a column of text."""
    groups: list[bytes] = []
    at, count, end = 0, 0, 0
    while size is None or count < size:
        match = _GROUP.match(digits, at)
        if match is None:
            break
        group = bytes.fromhex(match[1])
        count += len(group)
        groups.append(group)
        end = match.end()
        gap = _GAP.match(digits, end)
        at = end if gap is None else gap.end()
    rest = digits[end:]
    if not groups or (size is not None and count != size) or (rest.strip() and _GROUPS.fullmatch(rest[1:])):
        return None
    if size is None and rest.strip() and rest[:2].strip():
        return None
    turned = b"".join(group[::-1] for group in groups)
    return _Row(data=b"".join(groups), turned=turned, end=end, width=len(groups[0]), count=len(groups))


def _without_offsets(lines: Iterator[str]) -> tuple[_Dump | None, int]:
    """Lines of groups alone, maybe with a column of text between bars or angles; and how many."""
    rows: list[_Row] = []
    for line in lines:
        stripped = _without_column(line).strip()
        read = _row(stripped, None)
        if read is None or read.end != len(stripped) or (read.count == 1 and read.size > _WORD_BYTES):
            break
        rows.append(read)
    if len(rows) < 2 or sum(row.size for row in rows) < _LEAST:
        return None, len(rows)
    return _joined(rows), len(rows)


def _without_column(line: str) -> str:
    """A line without the text between bars or angles at its end."""
    stripped = line.rstrip(" \t")
    begin = _COLUMN[stripped[-1]].search(stripped) if stripped[-1:] in _COLUMN else None
    return stripped if begin is None or begin.end() == len(stripped) else stripped[: begin.start()]


def _number(digits: str, base: int) -> int | None:
    try:
        return int(digits, base)
    except ValueError:
        return None


def _lists(text: str, most: int) -> tuple[str, Found]:
    """Lists of numbers, with comments of C in them."""
    del most
    plain = _without_comments(text)
    runs: Found = []
    if len(plain.split()) + plain.count(",") + plain.count(";") < _LEAST:
        return text, runs  # fewer items than a list needs: something parts each from the next
    for match in _LIST.finditer(plain):
        if len(match[0]) < 2 * _LEAST - 1:
            continue
        items = re.findall(r"0[xX][0-9a-fA-F]{1,2}|-?[0-9]{1,3}", match[0])
        if len(items) < _LEAST:
            continue
        readings: Readings = []
        values = [int(item, 16 if item[:2] in ("0x", "0X") else 10) for item in items]
        run = of_numbers(values)
        if run is not None:
            readings.append(("list of numbers", run))
        if all(len(item) == 2 for item in items):
            readings.append(("list of hexadecimal numbers", bytes(int(item, 16) for item in items)))
        runs.append((_line(plain, match), readings))
    return text, runs


def _without_comments(text: str) -> str:
    """Without comments of C. Behind the last end of one no beginning has an end, so none is sought there."""
    end = text.rfind("*/") + 2 if "*/" in text else 0
    return _COMMENT.sub(_blank, text[:end]) + _LINE_COMMENT.sub("", text[end:])


def _pairs(text: str, most: int) -> tuple[str, Found]:
    """Pairs of digits parted by colons, dashes or commas."""
    del most
    runs: Found = []
    for pattern, parting in ((_PAIRS, ":-"), (_BARE_PAIRS, ", \t")):
        if sum(map(text.count, parting)) < _LEAST - 1:
            continue
        for match in pattern.finditer(text):
            digits = re.findall(r"[0-9a-fA-F]{1,2}", match[0]) if len(match[0]) >= 2 * _LEAST - 1 else []
            if len(digits) >= _LEAST:
                run = bytes(int(digit_pair, 16) for digit_pair in digits)
                runs.append((_line(text, match), [("pairs of digits", run)]))
    return text, runs


def _byte_strings(text: str, most: int) -> tuple[str, Found]:
    r"""Byte strings with escapes (`b'\x04\x00'`), adjacent ones joined, and escapes alone."""
    del most
    runs: Found = []
    if "\\" not in text:
        return text, runs
    for pattern in (_BYTE_STRINGS, _STRINGS):
        for match in pattern.finditer(text):
            run = _run(match[0])
            if len(run) >= _LEAST:
                runs.append((_line(text, match), [("byte string", run)]))
        if runs:
            break
    if not runs:
        for match in _ESCAPES.finditer(text):
            digits = re.findall(r"\\x([0-9a-fA-F]{2})", match[0])
            if len(digits) >= _LEAST:
                runs.append((_line(text, match), [("escapes", bytes.fromhex("".join(digits)))]))
    return text, runs


def _run(strings: str) -> bytes:
    """The bytes of adjacent byte strings; none where they have no escapes, or one that is not known."""
    if strings.count("\\") < 4:
        return b""
    try:
        return b"".join(
            wrapped_text.unescaped(quoted.lstrip("bB")) for quoted in _ONE_STRING.findall(strings)
        )
    except ValueError:
        return b""


def _words(text: str, most: int) -> tuple[str, Found]:
    """Long words of hexadecimal or base64: the last of a line, with the lines of the like below it; or within a line."""
    runs: Found = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        begin = _WORD.search(lines[at])
        parts = [] if begin is None else [begin[1]]
        end = at + 1
        # Lines of one block are of one length but for the last; what is longer than any program breaks lines at stands alone.
        while parts and len(parts[-1]) == len(parts[0]) <= _MAX_COLUMNS and end < len(lines):
            more = _ALONE.fullmatch(lines[end])
            if more is None or len(more[1]) > len(parts[0]):
                break
            parts.append(more[1])
            end += 1
        end = _uneven(lines, parts, end)
        joined = "".join(parts)
        least = _LEAST_DIGITS if _DIGITS.fullmatch(joined) else _LEAST_WORD
        if least <= len(joined) <= 2 * most:
            runs.append((at + 1, [("text", joined.encode())]))
        runs += [
            (at + 1, [("text", inner[0].encode())])
            for inner in _INNER.finditer(lines[at])
            if not parts or inner[0] != parts[0]
        ]
        at = end
    return text, runs


def _uneven(lines: list[str], parts: list[str], end: int) -> int:
    """Go on over base64 whose lines somebody broke anew, at any length. Digits alone may be the next value: never those."""
    if not parts or len(parts[0]) > _MAX_COLUMNS or _DIGITS.fullmatch("".join(parts)):
        return end
    while end < len(lines):
        more = _ALONE.fullmatch(lines[end])
        if more is None or len(more[1]) < _SHORTEST:
            break
        parts.append(more[1])
        end += 1
    return end


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def _blank(match: re.Match[str]) -> str:
    """What was read leaves its lines behind, so that places stay true."""
    return "\n" * match[0].count("\n")
