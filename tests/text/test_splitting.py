"""The compiled cutter says what `regex` says, on every pattern, and keeps every byte."""

import codecs
import random
from collections.abc import Iterator
from itertools import accumulate, pairwise

import pytest
import regex

from benchmarks.unicode_table import classes
from penjing.text.bpe import PATTERN
from penjing.text.patterns import PATTERNS

native = pytest.importorskip("penjing.text._native", reason="needs the compiled core")

COMPILED = {name: regex.compile(expression) for name, expression in PATTERNS.items()}
PARTS = (
    *("a", "s", "t", "re", "RE", "ve", "ll", "d", "m", "A", "Ab", "ABC", "aB", "don't", "WE'LL"),
    *("'", "''", "'s", "'S", "'LL", "'Re", "'\u017f", "\u017f", "\u212a", "\u2019s", "'\u00e9"),
    *(" ", "  ", "\n", "\r\n", "\n\n", "\t", "\v", "\x1c", "\x85", "\u00a0", "\u3000", "\u2028"),
    *("\u200b", "\u200d", "\ufeff", "\ufe0f", "\u0301", "\u0e31", "\u0903", "\u20dd", "\ufffd"),
    *("1", "23", "4567", "\u0663", "\u096b", "\u00b2", "\u2167", "\u00bd", "\u24b6", "\uff11"),
    *("!", "...", "-", "/", "//", "_", "^^", "\u3002", "\uff0c", "\0", "\x7f", "\u20ac"),
    *("\u00e9", "\u00c9", "\u01c4", "\u01c5", "\u02b0", "\u00df", "\u0130", "\u0131", "\u1f88"),
    *("\u4e2d", "\u6587\u5b57", "\u306e", "\ud55c\uae00", "\u0627\u0644", "\u0939\u093f"),
    *("\U0001f600", "\U0001f468\u200d\U0001f469", "\U0001f1e9", "\u0378", "\U000e0001"),
    *("\U0001e900", "\U00016ea0", "\U0001d7d8", "\U00012624", "\U0010ffff", "\ue000", "\uffff"),
)
"""What the expressions tell apart: contractions, spaces, numbers, marks, scripts, unassigned."""


def fuzz_strings(count: int, seed: int) -> Iterator[str]:
    """Strings of a few parts, a few random code points, now and then a long run; a third are long
    and nearly all ASCII, which is cut 64 bytes at a time.
    """
    rng = random.Random(seed)
    for number in range(count):
        if number % 3 == 0:
            odd = rng.choice(("", "", "'", "é中\u3000\x1f\x7f'"))
            kinds = rng.choices(("aZq", "0123456789", " ", " \t", "\n\r", ".-(/", odd or "x"), k=5)
            yield "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(64, 260)))
            continue
        parts = rng.choices(PARTS, k=rng.randrange(1, 14))
        if rng.random() < 0.5:
            point = rng.randrange(rng.choice((0x80, 0x3000, 0x110000)))
            parts[rng.randrange(len(parts))] = chr(point) if not 0xD800 <= point < 0xE000 else "x"
        if rng.random() < 0.02:
            parts.insert(rng.randrange(len(parts)), rng.choice(PARTS) * rng.randrange(40, 400))
        yield "".join(parts)


def expected_ends(text: str, name: str) -> list[int]:
    return list(accumulate(len(piece.encode()) for piece in COMPILED[name].findall(text)))


def differences(count: int, seed: int, name: str) -> list[str]:
    """The fuzz strings on which the compiled cutter and `regex` differ."""
    return [
        text
        for text in fuzz_strings(count, seed)
        if native.split_ends(text.encode(), name, 0).tolist() != expected_ends(text, name)
    ]


@pytest.mark.parametrize("name", PATTERNS)
def test_twenty_thousand_fuzz_strings_are_cut_as_regex_cuts_them(name: str) -> None:
    assert differences(20_000, 1, name) == []


@pytest.mark.parametrize("name", PATTERNS)
def test_every_code_point_is_cut_as_regex_cuts_it(name: str) -> None:
    for start in range(0, 0x110000, 0x1000):
        points = [p for p in range(start, start + 0x1000) if not 0xD800 <= p < 0xE000]
        text = "".join(f"a{chr(point)}1 {chr(point)}B" for point in points)
        assert native.split_ends(text.encode(), name, 0).tolist() == expected_ends(text, name)


def test_the_committed_table_is_that_of_the_installed_regex() -> None:
    assert native.unicode_version() == f"regex {regex.__version__}"
    assert len(classes()) == 0x110000


def test_the_default_pattern_is_qwen2s() -> None:
    assert PATTERNS["qwen2"] == PATTERN


def test_bytes_that_are_no_utf8_are_cut_as_the_replacement_character_and_kept() -> None:
    rng = random.Random(2)
    for text in fuzz_strings(3_000, 3):
        damaged = bytearray(text.encode())
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        sizes = character_sizes(bytes(damaged))
        decoded = damaged.decode(errors="replace")
        for name, compiled in COMPILED.items():
            stops = accumulate(len(piece) for piece in compiled.findall(decoded))
            places = [0, *accumulate(sizes)]
            wanted = [places[stop] for stop in stops]
            assert native.split_ends(bytes(damaged), name, 0).tolist() == wanted, (name, damaged)


def character_sizes(data: bytes) -> list[int]:
    """Bytes of each character of `data.decode(errors="replace")`."""
    invalid: dict[int, int] = {}

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        invalid[error.start] = error.end - error.start
        return "\ufffd", error.end

    codecs.register_error("penjing-note", note)
    place, sizes = 0, []
    for character in data.decode(errors="penjing-note"):
        sizes.append(invalid.get(place, len(character.encode())))
        place += sizes[-1]
    assert place == len(data)
    return sizes


@pytest.mark.parametrize("cap", [4, 16, 256])
def test_a_cap_cuts_pieces_at_character_boundaries_only(cap: int) -> None:
    for text in fuzz_strings(2_000, cap):
        data = text.encode()
        ends = [0, *native.split_ends(data, "qwen2", cap).tolist()]
        assert ends[-1] == len(data)
        assert set(expected_ends(text, "qwen2")) <= set(ends)
        for start, end in pairwise(ends):
            assert 0 < end - start <= cap
            data[start:end].decode()


def test_an_unknown_pattern_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no pattern is called 'gpt5'; there are qwen2"):
        native.split_ends(b"a", "gpt5", 0)


def test_no_text_has_no_pieces() -> None:
    assert native.split_ends(b"", "o200k", 256).tolist() == []
