"""The calculator: an arithmetic language of its own, bounded in time and memory.

Numbers, `+ - * / // % **`, a sign and parentheses; exact fractions within. No name, no call, and
nothing of Python's own evaluation is reachable.
"""

import json
import re
from decimal import Decimal, localcontext
from fractions import Fraction

MAX_CHARACTERS = 256
MAX_DEPTH = 32
MAX_MAGNITUDE = 10**18
_DIGITS_SHOWN = 12
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\*\*|//|[-+*/%()])")


class CalculatorError(ValueError):
    """The expression has no value here; the message says why."""


class _Parser:
    """One expression read once from left to right.

    sum := product (('+' | '-') product)*; product := sign (('*' | '/' | '//' | '%') sign)*;
    sign := ('-' | '+') sign | power; power := atom ('**' sign)?; atom := number | '(' sum ')'.
    """

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> Fraction:
        value = self._sum()
        if self._peek():
            raise CalculatorError(f"unexpected {self._peek()!r}")
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _sum(self) -> Fraction:
        value = self._product()
        while self._peek() in ("+", "-"):
            value = _apply(self._take(), value, self._product())
        return value

    def _product(self) -> Fraction:
        value = self._sign()
        while self._peek() in ("*", "/", "//", "%"):
            value = _apply(self._take(), value, self._sign())
        return value

    def _sign(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculatorError(f"nested deeper than {MAX_DEPTH}")
        if self._peek() in ("-", "+"):
            value = -self._sign() if self._take() == "-" else self._sign()
        else:
            value = self._power()
        self._depth -= 1
        return value

    def _power(self) -> Fraction:
        value = self._atom()
        if self._peek() == "**":
            self._take()
            value = _power(value, self._sign())
        return value

    def _atom(self) -> Fraction:
        found = self._take()
        if found == "(":
            value = self._sum()
            if self._take() != ")":
                raise CalculatorError("a parenthesis is not closed")
            return value
        if not found[:1].isdigit():
            raise CalculatorError(f"a number is missing at {found!r}" if found else "it ends early")
        return _bounded(Fraction(found))


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_CHARACTERS:
        raise CalculatorError(f"longer than {MAX_CHARACTERS} characters")
    if not text.isascii():
        raise CalculatorError("only ASCII digits and signs are known")
    tokens, place = [], 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if not found:
            raise CalculatorError(f"unknown sign {text[place:].strip()[0]!r}")
        tokens.append(found[1])
        place = found.end()
    if not tokens:
        raise CalculatorError("it is empty")
    return tokens


def _bounded(value: Fraction) -> Fraction:
    if abs(value.numerator) > MAX_MAGNITUDE or value.denominator > MAX_MAGNITUDE:
        raise CalculatorError("a number is too large")
    return value


def _apply(sign: str, left: Fraction, right: Fraction) -> Fraction:
    if sign in ("/", "//", "%") and not right:
        raise CalculatorError("division by zero")
    if sign == "+":
        return _bounded(left + right)
    if sign == "-":
        return _bounded(left - right)
    if sign == "*":
        return _bounded(left * right)
    if sign == "/":
        return _bounded(left / right)
    floor = Fraction(left // right)
    return _bounded(floor if sign == "//" else left - right * floor)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise CalculatorError("an exponent must be a whole number")
    power = int(exponent)
    if not base:
        if power < 0:
            raise CalculatorError("division by zero")
        return Fraction(int(power == 0))
    if abs(base) == 1:
        return base if power % 2 else Fraction(1)
    # Any other base passes 10**18 within 64 doublings, in its numerator or its denominator.
    if abs(power) > MAX_MAGNITUDE.bit_length():
        raise CalculatorError("a number is too large")
    return _bounded(base**power)


def evaluate_expression(text: str) -> str:
    """The value of an expression: a whole number, or a decimal of at most 12 digits.

    Raises:
        CalculatorError: no such expression, or a number beyond 10**18 on the way.
    """
    value = _Parser(text).parse()
    if value.denominator == 1:
        return str(value.numerator)
    with localcontext() as context:
        context.prec = _DIGITS_SHOWN
        decimal = Decimal(value.numerator) / Decimal(value.denominator)
        return f"{decimal:f}".rstrip("0").rstrip(".") if "." in f"{decimal:f}" else f"{decimal:f}"


def run_tool(call_json: str) -> str:
    """The result of a tool call as the model reads it; what is wrong with it begins `error: `."""
    try:
        call = json.loads(call_json)
    except (ValueError, RecursionError):
        return "error: the call is not JSON"
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        return "error: a call has a name and arguments"
    if call["name"] != "calculator":
        return "error: there is no such tool"
    arguments = call["arguments"]
    if not isinstance(arguments, dict) or set(arguments) != {"expression"}:
        return "error: the calculator takes an expression"
    if not isinstance(arguments["expression"], str):
        return "error: the expression is not text"
    try:
        return evaluate_expression(arguments["expression"])
    except CalculatorError as problem:
        return f"error: {problem}"
