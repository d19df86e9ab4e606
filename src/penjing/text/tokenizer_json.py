"""A vocabulary as Hugging Face's `tokenizer.json`: written one way, read in the forms that exist.

Only byte-level BPE is read; what it cannot express is refused by name. Nothing here touches a disk.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from penjing.errors import DataError
from penjing.text.patterns import GPT2_WITH_SINGLE_DIGITS, PATTERNS, named
from penjing.text.vocabulary import (
    TOOL_TOKENS,
    Vocabulary,
    completed_vocabulary,
    spelled,
    unspelled,
)

SUPPORTED = (
    "supported are BPE models with a ByteLevel decoder whose pre-tokenizer is ByteLevel, a Split "
    "by a regular expression (Isolated) before it, or Digits (individual_digits) before it"
)
NFC_NOTE = (
    "the file asks for the normalizer NFC, which is not applied (text stays as it is): ids differ "
    "from Hugging Face's where text is not in NFC"
)


def write_tokenizer_json(vocabulary: Vocabulary) -> bytes:
    """Split + ByteLevel, BPE, ByteLevel decoder, no normalizer."""
    expression = PATTERNS.get(vocabulary.pattern, vocabulary.pattern)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added_tokens = [
        {"id": number, "content": spelling, **flags} | {"special": spelling not in TOOL_TOKENS}
        for spelling, number in vocabulary.special_tokens
    ]
    switches = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    byte_level = {"type": "ByteLevel", **switches}
    pattern = {"Regex": expression}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    tokens = vocabulary.token_bytes
    merges = [f"{spelled(tokens[a])} {spelled(tokens[b])}" for a, b, _ in vocabulary.merges]
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": vocabulary.whole_words,
        "vocab": {},
        "merges": [],
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    text = json_bytes(content)
    for name, table in (("vocab", written_vocab(vocabulary)), ("merges", merges)):
        text = text.replace(*_filled(name, table), 1)
    return text


def _filled(name: str, table: dict[str, int] | list[str]) -> tuple[bytes, bytes]:
    """An empty table of the model as `json_bytes` writes it, and the same filled.

    The standard library's encoder is ten times as fast where it need not indent.
    """
    inner = json.dumps(table, ensure_ascii=False, separators=(",\n   ", ": "))
    begin, end = f'  "{name}": {inner[0]}', inner[-1]
    filled = f"{begin}\n   {inner[1:-1]}\n  {end}" if table else begin + end
    return (begin + end).encode(), filled.encode()


def json_bytes(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def written_vocab(vocabulary: Vocabulary) -> dict[str, int]:
    """Spelling -> id in id order, without the special tokens when they are the last ids.

    Hugging Face numbers added tokens from the size of this table on; those that would get another
    id must be in it.
    """
    found = {
        spelled(token): number for number, token in enumerate(vocabulary.ordinary_bytes()) if token
    }
    last = [number for _, number in vocabulary.special_tokens]
    if last != list(range(len(found), len(vocabulary.token_bytes))):
        found |= dict(vocabulary.special_tokens)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def read_tokenizer_json(data: bytes) -> tuple[Vocabulary, tuple[str, ...]]:
    """The vocabulary of a `tokenizer.json`, and remarks on what of the file is not followed.

    Raises:
        DataError: not JSON, damaged, or of a kind that is not supported; says what was found.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error}): truncated or altered?") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise DataError("found no `model`; wanted a tokenizer.json of Hugging Face")
    try:
        return _read(content, content["model"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"damaged ({error!r}): truncated or altered?") from error


def _read(content: dict[str, Any], model: dict[str, Any]) -> tuple[Vocabulary, tuple[str, ...]]:
    _refuse_other_models(model)
    _wanted("decoder", (content.get("decoder") or {}).get("type"), "ByteLevel")
    normalizer = (content.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):
        _wanted("normalizer", normalizer, "none")
    specials = {token["content"]: _id(token["id"]) for token in content.get("added_tokens") or ()}
    for spelling, number in specials.items():
        if model["vocab"].get(spelling, number) != number:
            raise DataError(
                f"the token {spelling!r} has the id {number} and, in the model, another"
            )
    ordinary = {
        unspelled(spelling): _id(number)
        for spelling, number in model["vocab"].items()
        if spelling not in specials
    }
    vocabulary = completed_vocabulary(
        ordinary,
        _merges(model["merges"]),
        specials,
        _pattern(content.get("pre_tokenizer") or {}),
        whole_words=bool(model.get("ignore_merges")),
    )
    return vocabulary, (NFC_NOTE,) if normalizer else ()


def _id(value: Any) -> int:
    if type(value) is not int:
        raise DataError(f"found the id {value!r}; wanted a whole number")
    return value


def _wanted(what: str, found: Any, wanted: str) -> None:
    if found != wanted:
        raise DataError(f"found the {what} {found!r}; wanted {wanted}: {SUPPORTED}")


def _refuse_other_models(model: Mapping[str, Any]) -> None:
    has_pieces = "merges" in model and isinstance(model.get("vocab"), dict)
    kind = model.get("type") or ("BPE" if has_pieces else "without merges")
    _wanted("model", kind, "BPE")
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(field):
            raise DataError(f"found model.{field} = {model[field]!r}; wanted none: {SUPPORTED}")


def _merges(written: list[Any]) -> Iterator[tuple[bytes, bytes]]:
    for merge in written:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield unspelled(left), unspelled(right)


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """The one expression that cuts as the pre-tokenizers do."""
    steps = [pre_tokenizer]
    if pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    *before, last = steps or [{}]
    types = [step.get("type") for step in steps]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        extra = " with add_prefix_space" if last.get("add_prefix_space") else ""
        raise DataError(f"found the pre-tokenizers {types}{extra}; {SUPPORTED}")
    cuts_itself = last.get("use_regex", True)
    if not before and cuts_itself:
        return "gpt2"
    if types[:-1] == ["Digits"] and before[0].get("individual_digits") and cuts_itself:
        return GPT2_WITH_SINGLE_DIGITS
    if types[:-1] == ["Split"] and not cuts_itself:
        return _split_pattern(before[0])
    raise DataError(f"found the pre-tokenizers {types} (use_regex {cuts_itself}); {SUPPORTED}")


def _split_pattern(split: Mapping[str, Any]) -> str:
    way = (split.get("behavior"), bool(split.get("invert")))
    expression = split["pattern"].get("Regex")
    if expression is None:
        raise DataError(f"found a Split by {split['pattern']!r}; {SUPPORTED}")
    pattern = named(expression)
    # Keeping matches alone is the same when matches leave nothing out, as those of names do.
    if way == ("Isolated", False) or (way == ("Removed", True) and pattern in PATTERNS):
        return pattern
    raise DataError(f"found a Split with behavior {way[0]!r}, invert {way[1]}; {SUPPORTED}")
