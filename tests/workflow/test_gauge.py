"""The correlation window that results files tell."""

from __future__ import annotations

import json

import pytest

from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.workflow.gauge import WINDOW, correlation_window
from tests.tasks.given import phi_of, scattered

FIELD = PhiField(scattered((9, 9, 9), 5)[0], phi_of(scattered((9, 9, 9), 5)[0]))


@pytest.mark.parametrize(
    ("attributes", "window"),
    [
        ({"determines": {"command": "ldic", "-hws": [4, 5, 6]}}, (7, 9, 11)),
        ({"determines": {"command": "ldic", "-hws": [0, 5, 6]}}, (1, 9, 11)),
        ({"determines": {"command": "pixelSearch", "-hws": [4, 5, 6]}}, (9, 11, 13)),
        ({"determines": {"command": "passPhiField"}}, None),
        ({"determines": {"command": "filterPhiField"}, WINDOW: [7, 9, 11]}, (7, 9, 11)),
        ({}, None),
    ],
)
def test_window(attributes, window, tmp_path):
    told = {name: json.dumps(value) for name, value in attributes.items()}
    write_hdf5(tmp_path / "a.h5", FIELD, attributes=told)
    assert correlation_window(str(tmp_path / "a.h5")) == window


def test_text_does_not_tell(tmp_path):
    (tmp_path / "a.tsv").write_text("Zpos\n")
    assert correlation_window(str(tmp_path / "a.tsv")) is None
