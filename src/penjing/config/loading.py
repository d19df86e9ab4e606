"""Read a run file strictly: every mistake at once, with its file and line, before torch loads.

What the fields mean is `config.schema`'s duty; whether a synthetic source or task of that name
exists is checked by the stage that uses it.
"""

import dataclasses
import json
import math
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from penjing.config.fields import Checked
from penjing.config.mixtures import WANTED as WANTED_SHARE
from penjing.config.mixtures import read_share, share_identity, share_value
from penjing.config.names import key_of, near_miss, right_name
from penjing.config.positions import Key, line_numbers, split_key
from penjing.config.scaling import with_scaled_defaults
from penjing.config.schema import STAGE_NAMES, RunConfig, SourceConfig
from penjing.config.training import MixtureShare, TrainingConfig
from penjing.errors import ConfigError

Section = TypeVar("Section")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
ABSENT = object()
TRAINING_STAGES = ("pretrain", "midtrain", "sft", "dpo", "rl")


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read `path`, apply `section.key=value` overrides, check everything.

    Raises:
        ConfigError: one line for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); `penjing new NAME --data PATH` writes one"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    return parse_run(text, str(path), overrides)


def parse_run(text: str, filename: str, overrides: Sequence[str] = ()) -> RunConfig:
    """`load_run` of text; `filename` names it in messages, and names the run if it does not."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        number = line[1] if line else text.count("\n") + 1
        raise ConfigError(f"{filename}:{number}: not TOML: {error}") from error
    reader = _Reader(filename, line_numbers(text))
    for override in overrides:
        reader.override(table, override)
    config = reader.run(table)
    if reader.mistakes:
        raise ConfigError("\n".join(message for _, message in sorted(reader.mistakes)))
    return config


def dump_run(config: RunConfig) -> str:
    """The resolved run as TOML that `parse_run` reads back to an equal one."""
    return tomli_w.dumps(_plain(config))


def section_of(config: RunConfig, stage: str) -> Any:
    """The section of a stage; None when the run has no such stage."""
    return getattr(config, stage)


def identity(section: Any) -> dict[str, Any]:
    """The section's identity fields as JSON values, nested ones as `table.key`."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), key_of(field.name)
        unsaid = field.metadata.get("later") and value == field.default
        if field.metadata.get("conduct") or unsaid:
            continue
        if dataclasses.is_dataclass(value):
            found |= {f"{name}.{key}": inner for key, inner in identity(value).items()}
        elif isinstance(value, tuple):
            # Order stays: it breaks ties between equally due sources.
            found[name] = [
                share_identity(item) if isinstance(item, MixtureShare) else item for item in value
            ]
        else:
            found[name] = value
    return found


def _plain(section: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value is None:
            continue
        if field.name == "sources":
            value = {source.name: _plain(source) for source in value}
            for source in value.values():
                del source["name"]
        elif field.type == tuple[MixtureShare, ...]:
            value = {share.source: share_value(share) for share in value}
        elif dataclasses.is_dataclass(value):
            value = _plain(value)
        table[key_of(field.name)] = list(value) if isinstance(value, tuple) else value
    return table


class _Reader:
    """Turns tables into sections and collects every mistake on the way."""

    def __init__(self, filename: str, lines: dict[Key, int]) -> None:
        self.mistakes: list[tuple[int, str]] = []
        self._filename = filename
        self._lines = lines
        self._overridden: dict[Key, str] = {}
        self._wrong: set[Key] = set()

    def mistake(self, path: Key, found: str, wanted: str, hint: str = "") -> None:
        """Note a mistake at the nearest written place of `path`."""
        self._wrong |= {path[:length] for length in range(1, len(path) + 1)}
        line, where = 1, f"{self._filename}:1"
        for length in range(len(path), 0, -1):
            if override := self._overridden.get(path[:length]):
                line, where = 0, f"--set {override}"
                break
            if number := self._lines.get(path[:length]):
                line, where = number, f"{self._filename}:{number}"
                break
        parts = (f"found {found}", f"wanted {wanted}" if wanted else "", hint)
        text = "; ".join(part for part in parts if part)
        self.mistakes.append((line, f"{where}: {'.'.join(path)}: {text}"))

    def override(self, table: dict[str, Any], override: str) -> None:
        """Set one value of `table` from `section.key=value`."""
        dotted, equals, source = override.partition("=")
        path = split_key(dotted)
        if not (equals and path):
            self._overridden[(override,)] = override
            self.mistake((override,), "no section.key=value", "--set section.key=value")
            return
        try:
            parsed = tomllib.loads(f"value = {source}")
        except tomllib.TOMLDecodeError:
            parsed = {"value": source}
        name = ".".join(path)
        self._overridden[path] = name
        for length in range(1, len(path)):
            if path[:length] not in self._lines:
                self._overridden.setdefault(path[:length], name)
            inner = table.setdefault(path[length - 1], {})
            if not isinstance(inner, dict):
                self.mistake(path, f"a value at {'.'.join(path[:length])}", "a table there")
                return
            table = inner
        table[path[-1]] = parsed["value"] if len(parsed) == 1 else source

    def run(self, table: dict[str, Any]) -> RunConfig:
        stem = Path(self._filename).stem
        config = self._section(RunConfig, {"name": stem, **table}, ())
        config = with_scaled_defaults(config, table)
        if not NAME.fullmatch(config.name):
            self.mistake(("name",), _show(config.name), "letters, digits, - and _", 'name = "..."')
        if not config.sources and not self._is_wrong("sources"):
            self.mistake(("sources",), "none", "at least one [sources.NAME]")
        for path, mixture in _mixtures(config):
            self._check_mixture(config, path, mixture)
        for stage in STAGE_NAMES:
            if isinstance(section_of(config, stage), TrainingConfig):
                self._check_step(config, stage)
        self._check_order(config)
        self._check_preferences(config)
        return config

    def _section(self, section: type[Section], table: Mapping[str, Any], path: Key) -> Section:
        """The section with defaults in the places of mistakes."""
        fields = {key_of(field.name): field for field in dataclasses.fields(section)}  # type: ignore[arg-type]
        hints = get_type_hints(section)
        values = {}
        for key, value in table.items():
            here = (*path, key)
            if key not in fields:
                self.mistake(here, "an unknown key", *right_name(key, path, fields))
                continue
            field = fields[key]
            read = self._value(hints[field.name], value, here, field.metadata)
            if read is not ABSENT:
                values[field.name] = read
        if section is RunConfig and not isinstance(values.get("name"), str):
            values["name"] = "unnamed"
        made = section(**values)
        if isinstance(made, Checked) and not self._is_wrong(*path):
            for key, problem in made.problems():
                shown = "nothing" if key not in table else _show(table[key])
                self.mistake((*path, key), shown, "", problem)
        return made

    def _value(self, hint: Any, value: Any, path: Key, metadata: Mapping[str, Any]) -> Any:
        """The value as its annotation wants it; ABSENT after a mistake."""
        if get_origin(hint) in (Union, types.UnionType):
            options = [option for option in get_args(hint) if option is not type(None)]
            words = [option for option in options if get_origin(option) is Literal]
            if len(options) > 1 and any(value in get_args(word) for word in words):
                return value
            hint = next(option for option in options if option not in words or len(options) == 1)
        if dataclasses.is_dataclass(hint) or hint in (
            tuple[SourceConfig, ...],
            tuple[MixtureShare, ...],
        ):
            return self._table(hint, value, path)
        help_text = metadata.get("help", "")
        if get_origin(hint) is Literal:
            if value in get_args(hint):
                return value
            wanted = "one of " + ", ".join(_show(option) for option in get_args(hint))
            self.mistake(path, _show(value), wanted, near_miss(str(value), get_args(hint)))
        elif hint is str or hint is bool:
            if type(value) is hint:
                return value
            self.mistake(path, _show(value), "text" if hint is str else "true or false", help_text)
        elif hint == tuple[str, ...]:
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return tuple(value)
            self.mistake(path, _show(value), 'a list of texts, ["..."]', help_text)
        elif _in_range(hint, value, metadata):
            return hint(value)
        else:
            self.mistake(path, _show(value), _range(hint, metadata), help_text)
        return ABSENT

    def _table(self, hint: Any, value: Any, path: Key) -> Any:
        if not isinstance(value, dict):
            self.mistake(path, _show(value), f"a table, [{'.'.join(path)}]")
            return ABSENT
        if hint == tuple[MixtureShare, ...]:
            shares = (self._share(name, share, (*path, name)) for name, share in value.items())
            return tuple(share for share in shares if share)
        if hint == tuple[SourceConfig, ...]:
            return tuple(self._source(name, source, path) for name, source in value.items())
        return self._section(hint, value, path)

    def _source(self, name: str, table: Any, path: Key) -> SourceConfig:
        path = (*path, name)
        if not isinstance(table, dict):
            self.mistake(path, _show(table), f"a table, [sources.{name}]")
            return SourceConfig(name)
        if not NAME.fullmatch(name):
            self.mistake(path, _show(name), "a name of letters, digits, - and _")
        if "name" in table:
            self.mistake((*path, "name"), "a name", "none", "the table's own name is the source's")
        return self._section(SourceConfig, {**table, "name": name}, path)

    def _share(self, name: str, value: Any, path: Key) -> MixtureShare | None:
        share, problem = read_share(name, value)
        if problem:
            self.mistake(path, _show(value), WANTED_SHARE, problem)
        return share

    def _is_wrong(self, *path: str) -> bool:
        return path in self._wrong

    def _check_mixture(self, config: RunConfig, path: Key, mixture: Sequence[MixtureShare]) -> None:
        kinds = {source.name: source.kind for source in config.sources}
        for share in mixture:
            here = (*path, share.source)
            if share.source not in kinds:
                self.mistake(here, "no such source", *_wanted_source(share.source, kinds))
            elif kinds[share.source] == "preferences" and not self._is_wrong(
                "sources", share.source
            ):
                self.mistake(here, "a source of kind preferences", "documents or conversations")
        for end in ("start", "end"):
            given = any(share.epochs or getattr(share, end) > 0 for share in mixture)
            if not self._is_wrong(*path) and not given:
                found = f"no share above 0 at the {end}" if mixture else "no mixture"
                hint = f"[{'.'.join(path)}] SOURCE = 1.0"
                self.mistake(path, found, "at least one source", hint)

    def _check_step(self, config: RunConfig, stage: str) -> None:
        unit, tokens = (
            config.model.max_position_embeddings,
            section_of(config, stage).tokens_per_step,
        )
        path = (stage, "tokens_per_step")
        unsure = self._is_wrong(*path) or self._is_wrong("model", "max_position_embeddings")
        if tokens % unit and not unsure:
            below = tokens // unit * unit
            nearest = f"{below} and {below + unit}" if below else f"{unit}"
            wanted = f"a multiple of model.max_position_embeddings = {unit}"
            self.mistake(path, f"{tokens}", wanted, f"nearest: {nearest}")

    def _check_order(self, config: RunConfig) -> None:
        present = [stage for stage in TRAINING_STAGES if section_of(config, stage)]
        if present and present[0] != "pretrain" and not self._is_wrong("pretrain"):
            self.mistake(
                (present[0],), "no training stage before it", "[pretrain], which makes the weights"
            )
        if not config.rl or config.rl.retention or config.sft or self._is_wrong("sft"):
            return
        if rows := config.rl.retention_rows:
            self.mistake(
                ("rl", "retention_rows"), f"{rows}", "0", "there is no [sft] and no [rl.retention]"
            )

    def _check_preferences(self, config: RunConfig) -> None:
        if not config.dpo or self._is_wrong("dpo", "source"):
            return
        kinds = {source.name: source.kind for source in config.sources}
        name, path = config.dpo.source, ("dpo", "source")
        if name not in kinds:
            self.mistake(path, f"no source {_show(name)}", *_wanted_source(name, kinds))
        elif kinds[name] != "preferences" and not self._is_wrong("sources", name):
            self.mistake(path, f"a source of kind {kinds[name]}", "one of kind preferences")


def _mixtures(config: RunConfig) -> Iterator[tuple[Key, tuple[MixtureShare, ...]]]:
    for stage in STAGE_NAMES:
        section = section_of(config, stage)
        if isinstance(section, TrainingConfig):
            yield (stage, "mixture"), section.mixture
    if config.rl and config.rl.retention:
        yield ("rl", "retention"), config.rl.retention


def _in_range(kind: Any, value: Any, limits: Mapping[str, Any]) -> bool:
    if type(value) is not int and not (kind is float and type(value) is float):
        return False
    at_least, above, at_most = (limits.get(key) for key in ("at_least", "above", "at_most"))
    return (
        (abs(value) < 2**63 if type(value) is int else math.isfinite(value))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
    )


def _range(kind: Any, limits: Mapping[str, Any]) -> str:
    words = {"at_least": "at least", "above": "above", "at_most": "at most"}
    bounds = [f"{text} {limits[key]}" for key, text in words.items() if limits.get(key) is not None]
    return ", ".join(["a whole number" if kind is int else "a finite number", *bounds])


def _show(value: Any) -> str:
    """A value as the run file would have it, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wanted_source(name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    listed = ", ".join(known) or "there is none"
    return f"a source of this file ({listed})", near_miss(name, known)
