"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.waiting import LONGEST

NOTEBOOK = Path(__file__).parents[1] / "docs/python.ipynb"


# what the kernel's own libraries deprecate is not ours
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestWarning")
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "store the notebook without outputs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where = {"metadata": {"path": str(tmp_path)}}
        client = nbclient.NotebookClient(notebook, timeout=LONGEST, startup_timeout=LONGEST, resources=where)
        client.execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "standard deviation" in printed
    assert list(tmp_path.iterdir()) == []
