import json
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from penjing.errors import DataError
from penjing.text.bpe import PATTERN
from penjing.text.conversation import Conversation, text_message
from penjing.text.patterns import PATTERNS
from penjing.text.template import render
from penjing.text.tokenizer import Tokenizer
from penjing.text.tokenizer_json import NFC_NOTE, read_tokenizer_json, write_tokenizer_json
from penjing.text.vocabulary import SPECIAL_TOKENS, grown_vocabulary

TEXT = (
    "The cat sat on the mat. The cat's hat ISN'T there; they'll look, we've looked.\n\n"
    "def spam(eggs):\n    return eggs[12345] / 2.5  # 100 %\n\n\n"
    "你好,世界!你好,朋友。 Ünïcödé ¿qué? 🙂🙂\t\ttabs  and   spaces\r\n"
) * 3
KNOWN = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]))
TRICKY = st.lists(
    st.sampled_from(
        [*" \n\r\t'sStTAÀ12½.,!_/\x00\x85\u3000\u0301你🙂", "'ll", "the cat", "  ", "a1"]
    )
).map("".join)
SPELLINGS = (*SPECIAL_TOKENS, "<|fim|>")
TEXTS = st.one_of(KNOWN, TRICKY, st.just(TEXT)).filter(
    lambda text: not any(spelling in text for spelling in SPELLINGS)
)
"""Without special spellings, which hypothesis picks up from the sources: there ids differ."""

BYTE_LEVEL = pre_tokenizers.ByteLevel
SPLIT = pre_tokenizers.Split


def sequence(*steps: Any) -> Any:
    return pre_tokenizers.Sequence(list(steps))


def cut_by(name: str) -> Any:
    expression = tokenizers.Regex(PATTERNS[name])
    return sequence(
        SPLIT(expression, "isolated"), BYTE_LEVEL(add_prefix_space=False, use_regex=False)
    )


PRE_TOKENIZERS: dict[str, Any] = {
    "gpt2": BYTE_LEVEL(add_prefix_space=False),
    "smollm2": sequence(
        pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL(add_prefix_space=False)
    ),
    **{name: cut_by(name) for name in ("qwen2", "llama3", "cl100k", "o200k")},
    "own expression": sequence(
        SPLIT(tokenizers.Regex(r"\p{L}+|\d"), "isolated"),
        BYTE_LEVEL(add_prefix_space=False, use_regex=False),
    ),
}


def theirs(name: str, *, ignore_merges: bool = False) -> tokenizers.Tokenizer:
    """A tokenizer that Hugging Face's library trained, special tokens first as in SmolLM2."""
    found = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    found.pre_tokenizer = PRE_TOKENIZERS[name]
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|endoftext|>", "<|fim|>"],
        initial_alphabet=BYTE_LEVEL.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator([TEXT], trainer)
    return found


def read(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer(read_tokenizer_json(json.dumps(content).encode())[0])


def content_of(found: tokenizers.Tokenizer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(found.to_str())
    return content


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_foreign_tokenizer_is_read_with_all_its_ids(name: str) -> None:
    foreign = theirs(name)
    ours = read(content_of(foreign))

    @settings(max_examples=60)
    @given(TEXTS)
    def same(text: str) -> None:
        assert ours.encode(text) == foreign.encode(text).ids

    same()
    assert ours.end_of_text == foreign.token_to_id("<|endoftext|>") == 0
    assert ours.special_id("<|fim|>") == 1
    assert ours.im_start == foreign.get_vocab_size()
    assert ours.vocab_size == foreign.get_vocab_size() + len(SPECIAL_TOKENS) - 1


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_what_we_write_of_a_foreign_vocabulary_gives_hugging_face_the_same_ids(name: str) -> None:
    ours = read(content_of(theirs(name)))
    again = tokenizers.Tokenizer.from_str(write_tokenizer_json(ours.vocabulary).decode())

    @settings(max_examples=40)
    @given(TEXTS)
    def same(text: str) -> None:
        assert ours.encode(text) == again.encode(text).ids

    same()
    assert again.get_vocab_size() == ours.vocab_size
    for spelling, number in ours.vocabulary.special_tokens:
        assert again.encode(spelling).ids == [number]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_file_of_ours_is_read_back_the_same(name: str) -> None:
    vocabulary = read(content_of(theirs(name))).vocabulary
    again, remarks = read_tokenizer_json(write_tokenizer_json(vocabulary))
    assert again == vocabulary
    assert not remarks


def test_merges_may_be_texts_or_pairs() -> None:
    content = content_of(theirs("qwen2"))
    merges = content["model"]["merges"]
    assert isinstance(merges[0], list)
    pairs = read(content)
    content["model"]["merges"] = [" ".join(merge) for merge in merges]
    assert read(content) == pairs


def test_with_ignore_merges_a_word_that_is_a_token_is_that_token() -> None:
    content = content_of(theirs("llama3", ignore_merges=True))
    number = content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    foreign = tokenizers.Tokenizer.from_str(json.dumps(content))
    ours = read(content)
    for text in ("zebra", "zebra zebras", TEXT):
        assert ours.encode(text) == foreign.encode(text).ids
    assert ours.encode("zebra") == [number]
    assert json.loads(write_tokenizer_json(ours.vocabulary))["model"]["ignore_merges"] is True


def test_special_tokens_need_not_be_the_last_ids_nor_without_gaps() -> None:
    content = content_of(theirs("qwen2"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    late = {"id": 500, "content": "<|late|>", **flags, "special": True}
    content["added_tokens"].append(late)
    ours = read(content)
    again = tokenizers.Tokenizer.from_str(write_tokenizer_json(ours.vocabulary).decode())
    assert ours.special_id("<|late|>") == again.token_to_id("<|late|>") == 500
    assert ours.im_start == again.token_to_id("<|im_start|>") == 501
    assert ours.token_bytes[499] == b""
    assert again.encode(TEXT).ids == ours.encode(TEXT)


def test_a_conversation_is_rendered_with_a_foreign_vocabulary() -> None:
    ours = read(content_of(theirs("smollm2")))
    conversation = Conversation((text_message("user", "cat?"), text_message("assistant", "mat.")))
    ids = render(ours, conversation).ids
    assert ours.decode(ids) == (
        "<|im_start|>user\ncat?<|im_end|>\n<|im_start|>assistant\nmat.<|im_end|>\n"
    )
    assert ids.count(ours.im_end) == 2


def test_qwens_normalizer_is_left_out_and_told() -> None:
    foreign = theirs("qwen2")
    foreign.normalizer = normalizers.NFC()
    vocabulary, remarks = read_tokenizer_json(foreign.to_str().encode())
    ours = Tokenizer(vocabulary)
    assert remarks == (NFC_NOTE,)
    assert ours.encode(TEXT) == foreign.encode(TEXT).ids
    assert ours.decode(ours.encode("e\u0301")) == "e\u0301"
    assert foreign.decode(foreign.encode("e\u0301").ids) == "\xe9"


def test_cutting_by_removal_of_what_does_not_match_is_the_same_for_a_named_pattern() -> None:
    removed = sequence(
        SPLIT(tokenizers.Regex(PATTERN), "removed", invert=True),
        BYTE_LEVEL(add_prefix_space=False, use_regex=False),
    )
    foreign = theirs("qwen2")
    foreign.pre_tokenizer = removed
    assert read(content_of(foreign)).vocabulary.pattern == "qwen2"


def changed(**parts: Any) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        foreign = theirs("gpt2")
        for name, part in parts.items():
            setattr(foreign, name, part)
        return content_of(foreign)

    return make


def with_model(**fields: Any) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        content = content_of(theirs("gpt2"))
        content["model"] |= fields
        return content

    return make


def another(model: Any) -> Callable[[], dict[str, Any]]:
    return lambda: content_of(tokenizers.Tokenizer(model))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (another(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")), "WordPiece"),
        (another(models.Unigram([("a", 0.0)])), "Unigram"),
        (another(models.WordLevel({"a": 0}, unk_token="a")), "WordLevel"),
        (changed(normalizer=normalizers.Lowercase()), "Lowercase"),
        (changed(pre_tokenizer=pre_tokenizers.Whitespace()), "Whitespace"),
        (changed(pre_tokenizer=pre_tokenizers.Metaspace()), "Metaspace"),
        (changed(pre_tokenizer=BYTE_LEVEL(add_prefix_space=True)), "add_prefix_space"),
        (
            changed(pre_tokenizer=sequence(pre_tokenizers.Digits(), BYTE_LEVEL(False))),
            "Digits",
        ),
        (changed(pre_tokenizer=sequence(SPLIT(" ", "isolated"), BYTE_LEVEL(False))), "Split"),
        (
            changed(
                pre_tokenizer=sequence(
                    SPLIT(tokenizers.Regex("a"), "removed"),
                    BYTE_LEVEL(add_prefix_space=False, use_regex=False),
                )
            ),
            "removed|Removed",
        ),
        (changed(decoder=decoders.WordPiece()), "decoder"),
        (with_model(dropout=0.1), "dropout"),
        (with_model(byte_fallback=True), "byte_fallback"),
        (with_model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_by_name(
    make: Callable[[], dict[str, Any]], found: str
) -> None:
    with pytest.raises(DataError, match=found) as refused:
        read(make())
    assert "supported are" in str(refused.value)


def test_a_post_processor_that_adds_special_tokens_is_not_followed() -> None:
    foreign = theirs("gpt2")
    foreign.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    ours = read(content_of(foreign))
    assert [0, *ours.encode("cat")] == foreign.encode("cat").ids


SMALL = write_tokenizer_json(grown_vocabulary([(116, 104), (256, 101), (32, 257)]))


@settings(max_examples=150)
@given(st.integers(0, len(SMALL) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(DataError):
        read_tokenizer_json(SMALL[: length - 1] if length else b"")


@settings(max_examples=300)
@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255))
def test_a_file_with_an_altered_byte_is_refused_or_read_whole(place: int, byte: int) -> None:
    damaged = SMALL[:place] + bytes([byte]) + SMALL[place + 1 :]
    try:
        vocabulary, _ = read_tokenizer_json(damaged)
    except DataError as error:
        assert str(error)
        return
    assert Tokenizer(vocabulary).decode(Tokenizer(vocabulary).encode("the cat")) == "the cat"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["model"]["vocab"].update(zz=300), "300 twice|id 300"),
        (lambda content: content["model"]["vocab"].update(zz=-1), "id -1"),
        (lambda content: content["model"]["vocab"].update(zz=1.5), "whole number"),
        (lambda content: content["model"]["vocab"].update(zz=10**9), "id 1000000000"),
        (
            lambda content: content["model"]["vocab"].update({"▁a": 400}),
            "'▁' stands for nothing .is it SentencePiece",
        ),
        (lambda content: content["model"]["merges"].append("q z"), "no id"),
        (lambda content: content["model"]["merges"].append("t h"), "twice"),
        (lambda content: content["model"]["merges"].append("t"), "damaged"),
        (lambda content: content.pop("model"), "model"),
        (lambda content: content["added_tokens"].append({"id": 3}), "damaged"),
        (
            lambda content: content["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(
                Regex="("
            ),
            "regular expression",
        ),
    ],
)
def test_what_does_not_hold_together_is_told(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = json.loads(SMALL)
    content["model"]["vocab"]["later"] = 300
    change(content)
    with pytest.raises(DataError, match=message):
        read(content)
