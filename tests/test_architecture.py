"""The rules of docs/architecture.md, read from the source with `ast`."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "penjing"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("config", "artifacts", "intervals", "seeds", "configs", "process"),
    ("text", "sources", "runtime", "sandbox"),
    ("data", "model", "tasks", "synthetic"),
    ("train", "generate"),
    ("evaluate", "report", "chat", "exchange"),
    ("stages",),
    ("cli",),
    ("",),  # penjing itself: `penjing.load`
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NEVER = {
    "model": set(FLOOR) - {"model", "config", "artifacts", "errors", "seeds"},
    "data": {"model"},
    "train": {"evaluate", "generate", "text"},
    "generate": {"train"},
    "report": {"model"},
}
TORCH_FREE = {
    "errors",
    "config",
    "configs",
    "artifacts",
    "intervals",
    "seeds",
    "process",
    "text",
    "sources",
} | {"sandbox", "tasks", "synthetic", "report", "cli", "data"}
WITH_TORCH = {"data.batches", "data.feeding", "data.filling"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc", "base", "core", "manager"}


@dataclass(frozen=True)
class Module:
    """One file: its dotted name without `penjing.`, its room and its syntax tree."""

    name: str
    source: str

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def imports(self) -> Iterator[tuple[str, int, bool]]:
        """(dotted target, line, whether it stands inside a function)."""
        functions = (n for n in self.nodes if isinstance(n, ast.FunctionDef))
        inside = {id(node) for function in functions for node in ast.walk(function)}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno, id(node) in inside
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    dots = "." * node.level
                    yield f"{dots}{node.module or ''}.{alias.name}", node.lineno, id(node) in inside

    def dotted_names(self) -> Iterator[tuple[str, int]]:
        """Names and attribute chains such as `torch.cuda.is_available`, and imported ones."""
        for node in self.nodes:
            if isinstance(node, ast.Name | ast.Attribute):
                yield dotted(node), node.lineno
        for target, line, _ in self.imports():
            yield target, line

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield dotted(node.func), node


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@cache
def our_modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found.append(Module(name, path.read_text(encoding="utf-8")))
    return found


def room_of(target: str) -> str | None:
    """The room that an import reaches; "" is the package itself, None is somebody else's."""
    parts = target.split(".")
    if parts[0] != "penjing":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else ""


def starts(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def optional_packages() -> set[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    modules = {"universal_pathlib": "upath"}
    names = (
        line.split(">")[0] for name, lines in extras.items() if name != "dev" for line in lines
    )
    return {modules.get(name, name) for name in names}


def imports_go_strictly_down(module: Module) -> Iterator[str]:
    if module.room not in FLOOR:
        yield f"{module.name} has no floor"
        return
    for target, line, _ in module.imports():
        room = room_of(target)
        if target.startswith("."):
            yield f"{line} relative import {target}"
        if room is not None and room != module.room and FLOOR[room] >= FLOOR[module.room]:
            yield f"{line} imports {target}, which is not on a lower floor"


def some_rooms_never_meet(module: Module) -> Iterator[str]:
    for target, line, _ in module.imports():
        if room_of(target) in NEVER.get(module.room, ()):
            yield f"{line} must never import {target}"


def torch_stays_where_it_belongs(module: Module) -> Iterator[str]:
    if module.room in TORCH_FREE and module.name not in WITH_TORCH:
        for target, line, _ in module.imports():
            if starts(target, "torch", "safetensors.torch", "penjing.data.batches"):
                yield f"{line} imports {target}"


def local_imports_are_of_three_kinds(module: Module) -> Iterator[str]:
    allowed = {"cli": {"penjing.stages", "rich"}, "": {"penjing.chat.session"}}
    for target, line, is_local in module.imports():
        if is_local and not starts(target, *allowed.get(module.room, ()), *optional_packages()):
            yield f"{line} local import of {target}"


def each_concern_has_one_home(module: Module) -> Iterator[str]:
    for name, line in module.dotted_names():
        accelerator = starts(name, "torch.cuda", "torch.xpu", "torch.mps", "torch.distributed")
        if accelerator and module.room != "runtime":
            yield f"{line} {name} outside runtime"
        environment = starts(name, "os.environ", "os.getenv", "os.putenv")
        if environment and module.room not in ("runtime", "process", "cli"):
            yield f"{line} {name} outside runtime, process and cli"
        if name.split(".")[-1] == "RunConfig" and module.room not in ("config", "stages", "cli"):
            yield f"{line} RunConfig outside config, stages and cli"
        if starts(name, "ray") and module.name != "data.corpus":
            yield f"{line} ray"
    for name, call in module.calls():
        stepping = name.endswith((".backward", "optimizer.step"))
        if stepping and module.name != "train.loop":
            yield f"{call.lineno} {name}() outside train.loop"
        if name == "print" and module.name not in ("cli.screen", "chat.terminal"):
            yield f"{call.lineno} print() outside the screen"


def nothing_runs_what_it_reads(module: Module) -> Iterator[str]:
    for name, line in module.dotted_names():
        unsafe = ("pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle")
        if starts(name, *unsafe, "torch.load", "torch.save", "numpy.load", "np.load"):
            yield f"{line} {name}"
    for name, call in module.calls():
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
            yield f"{call.lineno} {name}()"
        for keyword in call.keywords:
            if keyword.arg == "shell":
                yield f"{call.lineno} shell="


def no_type_checking_back_doors(module: Module) -> Iterator[str]:
    if not module.name:  # penjing.load is typed, and importing penjing loads no torch
        return
    for name, line in module.dotted_names():
        if name.split(".")[-1] == "TYPE_CHECKING":
            yield f"{line} TYPE_CHECKING"


def names_are_nouns_of_the_field(module: Module) -> Iterator[str]:
    for part in FORBIDDEN_NAMES & set(module.name.split(".")):
        yield f"1 a module called {part}"


def sizes_are_kept(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines >= 400:
        yield f"1 {lines} lines"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length >= 60:
                yield f"{node.lineno} {node.name} has {length} lines"


def modules_say_their_duty(module: Module) -> Iterator[str]:
    if not (ast.get_docstring(module.tree) or "").strip():
        yield "1 no docstring"


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    imports_go_strictly_down,
    some_rooms_never_meet,
    torch_stays_where_it_belongs,
    local_imports_are_of_three_kinds,
    each_concern_has_one_home,
    nothing_runs_what_it_reads,
    no_type_checking_back_doors,
    names_are_nouns_of_the_field,
    sizes_are_kept,
    modules_say_their_duty,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_whole_package_keeps_the_rule(rule: Callable[[Module], Iterator[str]]) -> None:
    modules = our_modules()
    assert len(modules) > 20
    broken = [f"{module.name}:{text}" for module in modules for text in rule(module)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (imports_go_strictly_down, "text.bpe", "from penjing.sources.rows import read_rows"),
        (imports_go_strictly_down, "artifacts.stage", "import penjing.config.schema"),
        (imports_go_strictly_down, "text.bpe", "from penjing.data import shards"),
        (imports_go_strictly_down, "stages.sft", "from penjing import load"),
        (imports_go_strictly_down, "text.bpe", "from .template import render"),
        (imports_go_strictly_down, "attic.trunk", ""),
        (some_rooms_never_meet, "model.size", "import penjing.text.bpe"),
        (some_rooms_never_meet, "train.fit", "from penjing import text"),
        (torch_stays_where_it_belongs, "report.page", "def f():\n    import torch.nn"),
        (torch_stays_where_it_belongs, "data.order", "from torch import Tensor"),
        (local_imports_are_of_three_kinds, "train.fit", "def f():\n    import json"),
        (each_concern_has_one_home, "train.fit", "torch.cuda.synchronize()"),
        (each_concern_has_one_home, "train.fit", "from torch import distributed"),
        (each_concern_has_one_home, "data.shards", "home = os.environ['HOME']"),
        (each_concern_has_one_home, "train.fit", "loss.total.backward()"),
        (each_concern_has_one_home, "train.fit", "self.optimizer.step()"),
        (each_concern_has_one_home, "train.fit", "print(1)"),
        (each_concern_has_one_home, "train.fit", "from penjing.config.schema import RunConfig"),
        (nothing_runs_what_it_reads, "train.fit", "import pickle"),
        (nothing_runs_what_it_reads, "train.fit", "torch.load(path)"),
        (nothing_runs_what_it_reads, "tasks.calculator", "eval(text)"),
        (nothing_runs_what_it_reads, "sandbox.launcher", "run(line, shell=True)"),
        (no_type_checking_back_doors, "train.fit", "if typing.TYPE_CHECKING: pass"),
        (names_are_nouns_of_the_field, "train.utils", ""),
        (sizes_are_kept, "train.fit", "def f():\n" + "    x = 1\n" * 59),
        (sizes_are_kept, "train.fit", "x = 1\n" * 400),
        (modules_say_their_duty, "train.fit", "x = 1"),
    ],
)
def test_each_rule_finds_what_breaks_it(
    rule: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    assert list(rule(Module(name, source)))


LOAD_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(name + " loads torch")
"""


def test_torch_free_rooms_load_no_torch_through_others_either() -> None:
    names = [
        f"penjing.{module.name}"
        for module in our_modules()
        if module.room in TORCH_FREE and module.name not in WITH_TORCH
    ]
    answer = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, "penjing", *names],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
