"""Directories appear whole or not at all, and damage is found."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.artifacts import disk
from penjing.artifacts.directories import (
    discard,
    newest_verified,
    require_free_bytes,
    staged,
    sweep_partials,
    verified,
)
from penjing.artifacts.lines import write_atomic
from penjing.errors import ArtifactError

EFFECTS = ("write_file", "append", "sync", "rename", "remove")


class Killed(BaseException):
    """The process ends here: nothing that follows happens, no cleaning up either."""


class Faults:
    """Counts disk effects; from the `fatal`-th on, each one raises, the first half done."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fatal: int, error: BaseException, *, dead: bool
    ) -> None:
        self.count = 0
        self._fatal, self._error, self._dead = fatal, error, dead
        for name in EFFECTS:
            monkeypatch.setattr(disk, name, self._wrap(name, getattr(disk, name)))

    def _wrap(self, name: str, effect: Callable[..., None]) -> Callable[..., None]:
        def wrapped(first: Any, *rest: Any) -> None:
            self.count += 1
            if self.count == self._fatal and name in ("write_file", "append"):
                effect(first, rest[0][: len(rest[0]) // 2])
            if self.count == self._fatal or (self._dead and self.count > self._fatal):
                raise self._error
            effect(first, *rest)

        return wrapped


def write_step(final: Path, content: bytes = b"weights") -> Path:
    with staged(final) as directory:
        (directory / "model.safetensors").write_bytes(content * 40)
        (directory / "nested").mkdir()
        (directory / "nested" / "state.json").write_bytes(b'{"position": 3}')
        (directory / "empty").write_bytes(b"")
    return final


def effects_of(action: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        faults = Faults(patch, 0, Killed(), dead=False)
        action()
    return faults.count


def test_a_staged_directory_is_whole_and_verifies(tmp_path: Path) -> None:
    final = write_step(tmp_path / "step-000001")
    assert verified(final) == final
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    final = write_step(tmp_path / "step-000001")
    with pytest.raises(ArtifactError, match="exists already"), staged(final):
        pass
    verified(final)


@pytest.mark.parametrize("dead", [True, False])
def test_a_crash_at_any_disk_operation_leaves_nothing_or_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    operations = effects_of(lambda: write_step(tmp_path / "count"), monkeypatch)
    assert operations > 6
    whole = 0
    for fatal in range(1, operations + 1):
        final = tmp_path / str(fatal) / "step-000001"
        error: BaseException = Killed() if dead else OSError(28, "No space left on device")
        with monkeypatch.context() as patch, pytest.raises((Killed, OSError)):
            Faults(patch, fatal, error, dead=dead)
            write_step(final)
        if not dead and final.parent.exists():
            assert not list(final.parent.glob(".*"))
        sweep_partials(final.parent)
        if final.exists():
            verified(final)
            whole += 1
        else:
            assert not final.parent.exists() or not list(final.parent.iterdir())
            verified(write_step(final))
    assert whole == 1  # only when the last fsync, after the rename, fails


@pytest.mark.parametrize("dead", [True, False])
def test_a_crash_while_replacing_a_file_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    path = tmp_path / "stage.json"
    for fatal in range(1, 4):
        path.write_bytes(b"old")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            Faults(patch, fatal, Killed(), dead=dead)
            write_atomic(path, b"new and longer")
        assert path.read_bytes() == (b"old" if fatal < 3 else b"new and longer")
        sweep_partials(tmp_path)
        assert list(tmp_path.iterdir()) == [path]


def test_a_crash_while_discarding_leaves_no_half_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "step-000001"
    for fatal in (1, 2, 3):
        if not final.exists():
            write_step(final)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            Faults(patch, fatal, Killed(), dead=True)
            discard(final)
        assert newest_verified(tmp_path) == (final if fatal < 3 else None)
    sweep_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_exception_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "x") as directory:
        (directory / "half").write_text("...")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def damage(directory: Path, chance: random.Random) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    kind = chance.choice(["flip", "truncate", "delete", "grow", "swap"])
    if kind == "delete" or (kind in ("flip", "truncate") and not data):
        path.unlink()
    elif kind == "flip":
        bit = chance.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
    elif kind == "truncate":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif kind == "grow":
        path.write_bytes(data + b"\n")
    else:
        path.unlink()
        path.mkdir()
    return f"{kind} {path.name}"


def test_100_random_corruptions_are_all_found(tmp_path: Path) -> None:
    chance = random.Random(1)
    original = write_step(tmp_path / "original")
    for index in range(100):
        copy = tmp_path / f"copy-{index}"
        shutil.copytree(original, copy)
        what = damage(copy, chance)
        with pytest.raises(ArtifactError) as caught:
            verified(copy)
        assert str(copy) in str(caught.value), what
    verified(original)


def test_flipped_bits_of_the_listing_are_found(tmp_path: Path) -> None:
    final = write_step(tmp_path / "x")
    listing = final / "files.json"
    data = listing.read_bytes()
    for bit in range(0, len(data) * 8, 11):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        listing.write_bytes(changed)
        with pytest.raises(ArtifactError):
            verified(final)


def test_a_corrupt_checkpoint_falls_back_and_is_kept(tmp_path: Path) -> None:
    old, new = write_step(tmp_path / "step-000100"), write_step(tmp_path / "step-000200")
    (tmp_path / "step-000200.corrupt").mkdir()
    (new / "model.safetensors").write_bytes(b"damaged")
    assert newest_verified(tmp_path) == old
    kept = tmp_path / "step-000200.corrupt-2"
    assert (kept / "model.safetensors").read_bytes() == b"damaged"
    assert newest_verified(tmp_path) == old


def test_the_newest_step_is_the_largest_number(tmp_path: Path) -> None:
    assert newest_verified(tmp_path) is None
    write_step(tmp_path / "step-999999")
    newest = write_step(tmp_path / "step-1000000")
    assert newest_verified(tmp_path) == newest


def test_a_full_disk_is_refused_before_writing(tmp_path: Path) -> None:
    require_free_bytes(tmp_path / "not" / "yet", 1)
    with pytest.raises(ArtifactError, match=r"needs 1000000000\.00 GB, but the disk has"):
        require_free_bytes(tmp_path / "not" / "yet", 10**18)
