"""Files of token ids that others made."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.errors import DataError
from penjing.sources import token_files
from penjing.sources.token_files import token_documents

END = 9


def read(path: Path, dtype: str = "uint16") -> list[list[int]]:
    found = []
    for batch in token_documents(path, path.name, dtype, END):
        ends = np.cumsum(batch.lengths)[:-1].tolist()
        found += [ids.tolist() for ids in np.split(batch.ids, ends)]
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=9), min_size=1, max_size=9),
    st.booleans(),
    st.integers(1, 12),
)
def test_documents_are_found_in_every_form_and_window(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    first: bool,
    window: int,
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    ids = [one for d in documents for one in ([END, *d] if first else [*d, END])]
    np.array(ids, "<u2").tofile(folder / "a.bin")
    np.array(ids, "<u4").tofile(folder / "b.bin")
    np.save(folder / "c.npy", np.array(ids, "<u2"))
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(ids)
    (folder / "d.bin").write_bytes(header.tobytes() + np.array(ids, "<u2").tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "WINDOW", window)
        assert read(folder / "a.bin") == documents
        assert read(folder / "b.bin", "uint32") == documents
        assert read(folder / "c.npy") == documents
        assert read(folder / "d.bin") == documents


def test_files_that_are_cut_or_hold_something_else_are_told(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "empty.bin").write_bytes(b"")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 50
    (tmp_path / "short.bin").write_bytes(header.tobytes() + b"ab")
    np.save(tmp_path / "table.npy", np.zeros((2, 3)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, told in (
        ("odd.bin", "has 3 bytes: wanted ids of 2 bytes each"),
        ("empty.bin", "has 0 bytes"),
        ("short.bin", "its header says 50 ids, and 1.0 follow"),
        ("table.npy", r"float64 of shape \(2, 3\)"),
        ("objects.npy", "is no array of numbers"),
    ):
        with pytest.raises(DataError, match=f"{name}: .*{told}"):
            read(tmp_path / name)
