import numpy as np

from mpidvc.fields.phifield import PhiField
from mpidvc.tasks.ldic import records_of


def test_what_a_text_does_not_have_is_not_known():
    phi = np.tile(np.eye(4), (3, 1, 1))
    phi[:, :3] = np.arange(36).reshape(3, 3, 4)
    columns = {"error": np.array([0.5, 1.5, 2.5]), "returnStatus": np.array([2.0, -1, 1]), "mine": np.ones(3)}
    field = PhiField(np.zeros((3, 3)), phi, columns)
    records = records_of(field, np.array([2, 0]))
    assert np.array_equal(records["phi"], phi[[2, 0], :3])
    # error, iterations, returnStatus, deltaPhiNorm, coverage, zncc
    assert np.array_equal(records["result"], [[2.5, 0, 1, 0, np.nan, np.nan], [0.5, 0, 2, 0, np.nan, np.nan]], True)
    field.columns["zncc"] = np.array([0.1, 0.2, 0.3])
    assert records_of(field, np.array([1]))["result"][0, 5] == 0.2
