"""How a section says what a setting means, which values it may have, and whether it is identity.

Which sections and settings there are is `schema`'s and `training`'s duty.
"""

from dataclasses import field
from typing import Any, Protocol, runtime_checkable

Problems = list[tuple[str, str]]
"""Cross-field mistakes found by a section: (field name, what is wrong and what to do)."""


@runtime_checkable
class Checked(Protocol):
    """A section that finds its own mistakes, beyond those of a single value's type and range."""

    def problems(self) -> Problems: ...


def setting(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    conduct: bool = False,
    later: bool = False,
) -> Any:
    """A field with its meaning and range; `conduct` keeps it out of the stage's digest; `later`, of
    a setting that is younger than runs, keeps it out while it has its default: they do as it says.
    """
    metadata = {
        "help": help,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "conduct": conduct,
        "later": later,
    }
    return field(default=default, metadata=metadata)
