import pytest

from penjing.text.compression import (
    OURS,
    SAMPLES,
    compression,
    relative_difference,
    sample,
    token_byte_lengths,
)
from penjing.text.tokenizer import Tokenizer
from penjing.text.vocabulary import grown_vocabulary

# bytes, tokens of GPT-2, of GPT-4 and of nanochat's own: what its report published.
PUBLISHED = {
    "news": (1819, 404, 387, 374),
    "korean": (893, 745, 364, 712),
    "code": (1259, 576, 309, 494),
    "math": (1834, 936, 832, 966),
    "science": (1112, 260, 249, 228),
    "fwe-train": (4208518, 900364, 874799, 856862),
    "fwe-val": (4908443, 1059062, 1029691, 1010560),
}
# Bytes per token of the three, and the difference to GPT-2 and GPT-4 in %.
EXPECTED = {
    "news": (4.50, 4.70, 4.86, +7.4, +3.4),
    "korean": (1.20, 2.45, 1.25, +4.4, -95.6),
    "code": (2.19, 4.07, 2.55, +14.2, -59.9),
    "math": (1.96, 2.20, 1.90, -3.2, -16.1),
    "science": (4.28, 4.47, 4.88, +12.3, +8.4),
    "fwe-train": (4.67, 4.81, 4.91, +4.8, +2.1),
    "fwe-val": (4.63, 4.77, 4.86, +4.6, +1.9),
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_ratios_and_differences_are_those_of_the_published_table(text: str) -> None:
    num_bytes, gpt2, gpt4, ours = PUBLISHED[text]
    records = list(compression(text, num_bytes, {"GPT-2": gpt2, "GPT-4": gpt4, OURS: ours}))
    found = [round(record.bytes_per_token, 2) for record in records]
    found += [round(r.difference_percent, 1) for r in records if r.difference_percent is not None]
    assert tuple(found) == EXPECTED[text]
    assert records[-1].difference_percent is None
    assert {record.bytes for record in records} == {num_bytes}


def test_fewer_tokens_than_the_other_are_a_difference_above_0() -> None:
    assert relative_difference(ours=50, theirs=100) == 50
    assert relative_difference(ours=200, theirs=100) == -100
    assert relative_difference(ours=0, theirs=0) == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_long_enough_to_be_measured(name: str) -> None:
    text = sample(name)
    assert len(text.encode()) >= 800
    scripts = {"korean": ("가", "힣"), "chinese": ("一", "鿿")}
    if name in scripts:
        low, high = scripts[name]
        assert sum(low <= character <= high for character in text) > 200
    else:
        assert sum(character.isascii() for character in text) > 0.95 * len(text)


def test_special_tokens_have_no_part_in_the_lengths_of_tokens() -> None:
    lengths = token_byte_lengths(Tokenizer(grown_vocabulary([(116, 104), (256, 101)])))
    assert sorted(lengths.tolist()) == [1] * 256 + [2, 3]
