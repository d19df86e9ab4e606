"""The calculator agrees with exact arithmetic, refuses the rest, and never fails otherwise."""

import json
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.tasks.calculator import CalculatorError, evaluate_expression, run_tool

Value = tuple[str, Fraction]


def _combine(pair: tuple[Value, str, Value]) -> Value:
    """A sum, difference or product whose value is known without reading it."""
    (left, a), sign, (right, b) = pair
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return f"({left} {sign} {right})", value


NUMBERS = st.integers(0, 99).map(lambda number: (str(number), Fraction(number)))
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(_combine),
        inner.map(lambda value: (f"-{value[0]}", -value[1])),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
@settings(max_examples=150, deadline=None)
def test_values_built_with_the_expression_are_found_again(made: Value) -> None:
    text, value = made
    if len(text) <= 256:
        assert evaluate_expression(text) == str(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("23*41", "943"),
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("-2 ** 2", "-4"),
        ("2 ** 3 ** 2", "512"),
        ("2 ** -1", "0.5"),
        ("15 / 2", "7.5"),
        ("6 / 3", "2"),
        ("1 / 3", "0.333333333333"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("0.1 + 0.2", "0.3"),
        ("10 - 4 - 3", "3"),
        ("1e5", None),
        ("", None),
        ("1/0", None),
        ("1 // (2 - 2)", None),
        ("0 ** -1", None),
        ("2 ** 0.5", None),
        ("9 ** 9 ** 9", None),
        ("10 ** 18", str(10**18)),
        ("10 ** 18 + 1", None),
        ("(10 ** 18 * 10) / 10", None),
        ("1 ** 999999999999", "1"),
        ("(1", None),
        ("1)", None),
        ("1 2", None),
        ("__import__('os')", None),
        ("٣ + 1", None),
        ("(" * 33 + "1" + ")" * 33, None),
        ("-" * 200 + "1", None),
        ("1+" * 128 + "1", None),
        ("1" * 19, None),
    ],
)
def test_known_values_and_refusals(text: str, value: str | None) -> None:
    if value is None:
        with pytest.raises(CalculatorError):
            evaluate_expression(text)
    else:
        assert evaluate_expression(text) == value


@given(st.text(alphabet="0123456789+-*/%(). e_a\n", max_size=80) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_has_a_value_or_a_reason(text: str) -> None:
    started = time.perf_counter()
    try:
        assert len(evaluate_expression(text)) < 60
    except CalculatorError as problem:
        assert str(problem)
    assert time.perf_counter() - started < 1


@given(
    st.text(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str)
)
@settings(max_examples=100, deadline=None)
def test_a_call_that_is_no_call_is_answered_with_an_error(text: str) -> None:
    assert run_tool(text).startswith("error: ")


def _call(name: object, arguments: object) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def test_a_call_is_read_strictly() -> None:
    assert run_tool(_call("calculator", {"expression": "23*41"})) == "943"
    for call in (
        _call("python", {"expression": "1"}),
        _call("calculator", {"expression": 1}),
        _call("calculator", {"expression": "1", "more": 1}),
        _call("calculator", "1"),
        _call(["calculator"], {"expression": "1"}),
        '{"name": "calculator"}',
        "[" * 100_000,
        "NaN",
        _call("calculator", {"expression": "1 / 0"}),
    ):
        assert run_tool(call).startswith("error: "), call
