"""Where a TOML file writes each key; reading the values is `tomllib`'s duty."""

import re
import tomllib
from typing import Any

Key = tuple[str, ...]


def line_numbers(text: str) -> dict[Key, int]:
    """Where each table and key is first written; keys of inline tables count as their table."""
    lines: dict[Key, int] = {}
    table: Key = ()
    inside_string = False
    key = r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*"""
    for number, line in enumerate(text.splitlines(), start=1):
        if not inside_string:
            if header := re.match(rf"\s*\[\[?{key}\]\]?\s*(#.*)?$", line):
                table = split_key(header[1])
                lines.setdefault(table, number)
            elif assignment := re.match(rf"{key}=", line):
                path = (*table, *split_key(assignment[1]))
                for length in range(len(table) + 1, len(path) + 1):
                    lines.setdefault(path[:length], number)
        inside_string ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return lines


def split_key(dotted: str) -> Key:
    """The parts of a dotted key, read by TOML's own rules; () if it is not one."""
    try:
        value: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        [(part, value)] = value.items()
        parts.append(part)
    return tuple(parts)
