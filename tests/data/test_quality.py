"""Which rule a text breaks, one example each."""

import pytest

from penjing.data.quality import broken_rule

PROSE = "The old tree stood in a small pot, and every spring it grew seven new leaves again. " * 3


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (PROSE, ""),
        ("短文", ""),
        ("# 3 4 5", ""),
        ("\n".join(f"- item {n} of the list" for n in range(10)), "bullet lines"),
        ("\n".join(f"{n} and so it went ..." for n in range(10)), "ellipsis lines"),
        ("\n".join(["Home", "About us", "Contact", "Home", "Home"] * 3), "repeated lines"),
        ("a b c d e f g " * 9, "word length"),
        (PROSE + "# " * 20, "symbols"),
        (
            "1234 5678 the sum of 333 444 555 666 777 888 999 1010 1111 " * 3,
            "words without letters",
        ),
        ("盆景是一种艺术。" * 30 + "1 2 3 4 5 6 7 8 9 " * 2, ""),
    ],
)
def test_a_text_breaks_the_rule_that_it_should(text: str, rule: str) -> None:
    assert broken_rule(text) == rule
