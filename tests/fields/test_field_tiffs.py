import numpy as np
import pytest
import tifffile

from mpidvc.fields.tiff import write_field_tiffs


@pytest.mark.parametrize(
    "dims", [(3, 4, 4), (4, 5, 6), (4, 4, 3), (5, 3, 3), (1, 3, 4), (1, 4, 3), (1, 1, 1), (7, 6, 5)]
)
def test_grids_stay_grey_volumes(tmp_path, dims):
    values = np.random.default_rng(0).normal(size=dims)
    values.flat[0] = np.nan
    write_field_tiffs(tmp_path / "a-b.c", dims, [("Zdisp", values.ravel()), ("returnStatus", np.full(values.size, 2))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-b.c-Zdisp.tif", "a-b.c-returnStatus.tif"]
    with tifffile.TiffFile(tmp_path / "a-b.c-Zdisp.tif") as tif:
        assert tif.series[0].shape == dims
        assert tif.series[0].axes == "ZYX"
        assert tif.series[0].dtype == np.float32
        assert tif.pages[0].samplesperpixel == 1
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a-b.c-Zdisp.tif"), values.astype("f4"))
    assert (tifffile.imread(tmp_path / "a-b.c-returnStatus.tif") == 2).all()


def test_wrong_size_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="reshape"):
        write_field_tiffs(tmp_path / "a", (2, 2, 2), [("Zdisp", np.zeros(7))])
    assert list(tmp_path.iterdir()) == []
