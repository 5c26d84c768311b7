"""Keys of command lines: other words, or other files under the same names, have another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mpidvc.workflow.line import key_of


@pytest.mark.parametrize("word", ["im1.tif", "--mask=im1.tif", "im1.tif::/entry/data", "slices", "-mf1=slices"])
def test_files_that_a_line_names(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slices").mkdir()
    files = tmp_path / "im1.tif", tmp_path / "slices" / "0.tif"
    keys = [key_of(["ldic", word])]
    for file in files:
        file.write_bytes(b"one")
    keys.append(key_of(["ldic", word]))
    # in place: a folder keeps its date
    for file in files:
        os.utime(file, ns=(0, 0))
    keys.append(key_of(["ldic", word]))
    assert key_of(["ldic", word]) == keys[-1]
    for file in files:
        file.write_bytes(b"two and three")
        os.utime(file, ns=(0, 0))
    keys.append(key_of(["ldic", word]))
    assert len(set(keys)) == 4


def test_a_folder_called_like_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a step's results, where a run writes to the working folder: it fills while the step is at work."""
    monkeypatch.chdir(tmp_path)
    before = key_of(["ldic", "a.tif"])
    (tmp_path / "ldic").mkdir()
    (tmp_path / "ldic" / "a.h5").touch()
    assert key_of(["ldic", "a.tif"]) == before


def test_words_and_more() -> None:
    assert len({key_of(["a", "b"]), key_of(["b", "a"]), key_of(["ab"]), key_of(["a", "b"], "host"), key_of([])}) == 5
