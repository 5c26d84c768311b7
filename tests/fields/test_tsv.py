import time

import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.fields import stream, tsv
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import (
    COLUMNS,
    format_rows,
    header,
    length_of_rows,
    read_tsv,
    tsv_columns,
    write_tsv,
    write_tsv_parts,
)

STATUS = ("error", "iterations", "returnStatus", "deltaPhiNorm", "pixelSearchCC", "LabelDilate", "bin")


def printed(values):
    """What is left of numbers after printing."""
    return np.array([float(("%.7e" if 0 < abs(v) < 1e-3 else "%.7f") % v) for v in np.ravel(values)]).reshape(
        np.shape(values)
    )


def example(dims=(2, 3, 4), seed=0):
    random = np.random.default_rng(seed)
    axes = [10.0 * (1 + np.arange(n)) for n in dims]
    field = PhiField.from_positions(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
    field.phi[:, :3] += random.normal(size=(len(field), 3, 4)) * 10.0 ** random.integers(-9, 3, (len(field), 3, 4))
    field.columns = {name: random.normal(size=len(field)) for name in STATUS}
    field.phi[1, :3, 3] = np.nan
    field.columns["error"][1] = np.inf
    field.columns["deltaPhiNorm"][1] = -np.inf
    return field


def rows_of(field, part, layout):
    columns = {name: values[part] for name, values in field.columns.items()}
    return PhiField(field.positions[part], field.phi[part], columns, layout)


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *((family, layout) for family in ("LDIC", "SEARCH") for layout in ("grid", "points", "labels", "registration")),
        ("DDIC", "labels"),
        ("EREG", "registration"),
    ],
)
def test_round_trip(tmp_path, family, layout):
    field = example()
    if layout == "points":
        field = rows_of(field, slice(0, -1), layout)
    elif layout != "grid":
        field = rows_of(field, slice(0, 1 if layout == "registration" else None), layout)
    write_tsv(tmp_path / "a.tsv", field, family)
    back = read_tsv(tmp_path / "a.tsv")
    assert back.layout == layout
    assert (back.dims, back.spacing) == (field.dims, field.spacing)
    np.testing.assert_array_equal(back.positions, field.positions)
    np.testing.assert_array_equal(back.phi, printed(field.phi))
    names = {tsv.OLD_NAMES.get(name, name) for name in COLUMNS[family]} & set(STATUS)
    assert set(back.columns) - {"Label"} == names
    for name in names:
        np.testing.assert_array_equal(back.columns[name], printed(field.columns[name]))
    lines = (tmp_path / "a.tsv").read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert len(lines) == len(field) + 2
    first = lines[0].split(b"\t")[0]
    assert first == {"EREG": b"Zpos", "DDIC": b"Label"}.get(family, b"Label" if layout == "labels" else b"NodeNumber")
    if family != "EREG" and layout != "registration":
        assert [line.split(b"\t")[0] for line in lines[1:-1]] == [b"%d.0000000" % i for i in range(len(field))]


def test_exact_bytes(tmp_path):
    field = PhiField(np.array([[0, 9.5, 14.5]]), np.eye(4)[None], {"returnStatus": np.array([2])}, "registration")
    field.phi[0, :3, 3] = (0, -1.23456789, 0.000123456789)
    write_tsv(tmp_path / "a.tsv", field, "LDIC")
    assert (tmp_path / "a.tsv").read_bytes() == (
        b"NodeNumber\tZpos\tYpos\tXpos\tFzz\tFzy\tFzx\tZdisp\tFyz\tFyy\tFyx\tYdisp\tFxz\tFxy\tFxx\tXdisp\t"
        b"error\titerations\treturnStatus\tdeltaPhiNorm\n"
        b"1.0000000\t0.0000000\t9.5000000\t14.5000000\t1.0000000\t0.0000000\t0.0000000\t0.0000000\t"
        b"0.0000000\t1.0000000\t0.0000000\t-1.2345679\t0.0000000\t0.0000000\t1.0000000\t1.2345679e-04\t"
        b"0.0000000\t0.0000000\t2.0000000\t0.0000000\n"
    )


def test_each_component_has_its_column():
    field = PhiField(np.array([[1.0, 2, 3]]), np.arange(16.0).reshape(1, 4, 4) + 10, {"pixelSearchCC": np.array([7.0])})
    row = dict(zip(COLUMNS["DDIC"], np.ravel(tsv_columns(field, "DDIC")), strict=True))
    assert [row[n] for n in ("Zpos", "Ypos", "Xpos", "Zdisp", "Ydisp", "Xdisp")] == [1, 2, 3, 13, 17, 21]
    assert [row[f"F{a}{b}"] for a in "zyx" for b in "zyx"] == [10, 11, 12, 14, 15, 16, 18, 19, 20]
    assert row["PSCC"] == 7
    assert row["LabelDilate"] == 0


def test_strain_family(tmp_path):
    field = example()
    field.columns["ezz"] = np.arange(24.0)
    family = (*COLUMNS["STRAIN"], "ezz")
    assert header(family) == b"StrainPointNumber\tZpos\tYpos\tXpos\tezz\n"
    table = np.stack(tsv_columns(field, family, 5, 8), axis=1)
    np.testing.assert_array_equal(table[:, 0], [5, 6, 7])
    np.testing.assert_array_equal(table[:, 1:4], field.positions[5:8])
    np.testing.assert_array_equal(table[:, 4], [5, 6, 7])


def test_header_of_labels():
    assert header("SEARCH", "Label").startswith(b"Label\tZpos\t")
    assert header("SEARCH").startswith(b"NodeNumber\tZpos\t")


@pytest.mark.parametrize("layout", ["points", "labels", "registration"])
def test_parts_make_the_whole(tmp_path, monkeypatch, layout):
    field = example()
    if layout == "registration":
        field = PhiField(field.positions[:1], field.phi[:1], {}, layout)
    else:
        field = PhiField(field.positions, field.phi, field.columns, layout)
    write_tsv(tmp_path / "a.tsv", field, "SEARCH")
    monkeypatch.setattr(tsv, "BLOCK", 5)
    write_tsv(tmp_path / "b.tsv", field, "SEARCH")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("old")

    def parts():
        yield example()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tsv_parts(path, parts(), "LDIC")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("family", COLUMNS)
def test_columns_of_whole_numbers_and_those_that_are_missing(family):
    field = PhiField(np.array([[1, 2, 3]]), np.eye(4)[None], {"returnStatus": np.array([2])}, "points")
    columns = tsv_columns(field, family, first=4)
    assert length_of_rows(columns) == len(format_rows(columns))
    told = dict(zip(COLUMNS[family], format_rows(columns).split(), strict=True))
    assert told["Xpos"] == b"3.0000000"
    assert told.get("error", b"0.0000000") == b"0.0000000"
    assert told.get("returnStatus", b"2.0000000") == b"2.0000000"
    assert told.get("NodeNumber", b"4.0000000") == b"4.0000000"


NAMES = COLUMNS["SEARCH"]


def write_by_hand(path, names=NAMES, rows=2, end="\n", last="\n", start="", fill=None):
    fill = fill or {}
    table = [[fill.get(name, str(float(i))) for name in names] for i in range(rows)]
    path.write_bytes((start + end.join("\t".join(row) for row in [list(names), *table]) + last).encode())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"end": "\r\n", "last": "\r\n"},
        {"last": ""},
        {"last": "\n\n  \n"},
        {"start": "# "},
        {"start": "#"},
        {"start": "\ufeff"},
        {"names": NAMES[::-1]},
        {"names": (*NAMES, "mine")},
        {"names": ("comment", *NAMES), "fill": {"comment": "good point"}},
        {"names": (*NAMES[1:], "NodeNumber", "Label")},
        {"names": [old.get(n, n) for old in [{v: k for k, v in tsv.OLD_NAMES.items()}] for n in NAMES]},
    ],
)
def test_read_variants(tmp_path, options):
    write_by_hand(tmp_path / "a.tsv", **options)
    field = read_tsv(tmp_path / "a.tsv")
    assert field.layout == "points"
    np.testing.assert_array_equal(field.positions, [[0] * 3, [1] * 3])
    np.testing.assert_array_equal(field.phi[:, :3], [np.zeros((3, 4)), np.ones((3, 4))])
    np.testing.assert_array_equal(field.phi[:, 3], [[0, 0, 0, 1]] * 2)
    expected = {"pixelSearchCC", "returnStatus", "error", "deltaPhiNorm", "iterations"}
    assert set(field.columns) - {"mine", "Label"} == expected
    assert ("mine" in field.columns) == ("mine" in options.get("names", ()))
    for values in field.columns.values():
        np.testing.assert_array_equal(values, [0, 1])


def test_scientific_notation_and_special_values(tmp_path):
    write_by_hand(
        tmp_path / "a.tsv", fill={"Fzy": "-1.5e-09", "Zdisp": "nan", "error": "inf", "Fxx": "1E2", "Fyy": " 3 "}
    )
    field = read_tsv(tmp_path / "a.tsv")
    assert (field.F[:, 0, 1] == -1.5e-9).all()
    assert (field.F[:, 2, 2] == 100).all()
    assert (field.F[:, 1, 1] == 3).all()
    assert np.isnan(field.displacements[:, 0]).all()
    assert np.isinf(field.columns["error"]).all()


def test_bin_ratio(tmp_path):
    field = example()
    write_tsv(tmp_path / "a.tsv", field, "LDIC")
    one, two = read_tsv(tmp_path / "a.tsv"), read_tsv(tmp_path / "a.tsv", 2)
    np.testing.assert_array_equal(two.positions, 2 * one.positions)
    np.testing.assert_array_equal(two.displacements, 2 * one.displacements)
    np.testing.assert_array_equal(two.F, one.F)
    assert two.spacing == (20, 20, 20)


def test_registration_needs_no_number(tmp_path):
    write_by_hand(tmp_path / "a.tsv", NAMES[1:], rows=1)
    assert read_tsv(tmp_path / "a.tsv").layout == "registration"
    write_by_hand(tmp_path / "a.tsv", ("Label", *NAMES[1:]), rows=1)
    assert read_tsv(tmp_path / "a.tsv").layout == "registration"


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        read_tsv(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_errors(tmp_path):
    path = tmp_path / "a.tsv"
    refused(path, "does not exist")
    refused(tmp_path, "cannot be read")
    for content in ("", "\n", "\t".join(NAMES) + "\n"):
        path.write_text(content)
        refused(path, "is empty")
    path.write_bytes(bytes(range(256)) * 3)
    refused(path, "is no text", "NUL byte")
    path.write_bytes(bytes(range(1, 256)) * 3)
    refused(path, "lacks the column(s)")
    write_by_hand(path, [name for name in NAMES if name not in ("Fzy", "Xdisp")])
    refused(path, "lacks the column(s) Xdisp Fzy")
    write_by_hand(path, (*NAMES, "Fzy"))
    refused(path, "Fzy", "more than once")
    write_by_hand(path, rows=5)
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:3], lines[3] + "\t1", *lines[4:]]))
    refused(path, "line 4 has 22 values", "21 columns")
    path.write_text("\n".join([*lines[:3], lines[3].rsplit("\t", 1)[0], *lines[4:]]))
    refused(path, "line 4 has 20 values")
    path.write_text("\n".join([*lines[:4], lines[4].replace("3.0", "3,0", 1), *lines[5:]]))
    refused(path, "line 5 has '3,0' in the column NodeNumber")
    path.write_text("\n".join([*lines[:4], "1.0\t\t" + lines[4].split("\t", 2)[2], *lines[5:]]))
    refused(path, "line 5 has '' in the column Zpos")
    for digits in ("٣", "３", "1_0", "0x10", "1d5"):
        path.write_text("\n".join([*lines[:4], lines[4].replace("3.0", digits, 1), *lines[5:]]))
        refused(path, f"line 5 has {digits!r} in the column NodeNumber")
    path.write_text("\n".join([*lines[:4], "", *lines[4:]]))
    refused(path, "line 5 has 1 values")
    path.write_text("\n".join([*lines[:2], lines[2] + "\0", *lines[3:]]))
    refused(path, "is no text, line 3 has a NUL byte")
    path.write_text("\n".join([*lines[:2], lines[2] + "0" * 2**21, *lines[3:]]))
    refused(path, "is no table, line 3 has more than 1048576 characters")
    path.write_text("x" * 2**21)
    refused(path, "is no table, line 1 has more than 1048576 characters")
    path.write_text("\n".join(lines[1:]))
    refused(path, "its first line has numbers, but has to name the columns: Zpos Ypos")
    path.write_text("\n" + "\n".join(lines))
    refused(path, "its first line is")
    path.write_text("\n".join(lines), encoding="utf-16")
    refused(path, "is no text")


def test_lines_across_blocks(tmp_path, monkeypatch):
    """Whatever the size of the blocks in which a file is read, line ends between them included."""
    field = example()
    write_tsv(tmp_path / "a.tsv", field, "SEARCH")
    content = (tmp_path / "a.tsv").read_bytes()
    for end in (b"\n", b"\r\n", b"\r"):
        (tmp_path / "b.tsv").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", end) + 3 * end)
        for size in (1, 7, 64, 1000, 2**20):
            monkeypatch.setattr(stream, "CHUNK", size)
            back = read_tsv(tmp_path / "b.tsv")
            assert back.phi.tobytes() == printed(field.phi).tobytes()
            assert back["error"].tobytes() == printed(field["error"]).tobytes()
    monkeypatch.setattr(stream, "CHUNK", 64)
    lines = content.split(b"\n")
    for at in (5, 17):
        (tmp_path / "b.tsv").write_bytes(b"\n".join([*lines[: at - 1], b"", b" ", *lines[at - 1 :], b"", b""]))
        with pytest.raises(UserError, match=f"line {at} (is empty|has 1 values)"):
            read_tsv(tmp_path / "b.tsv")


def test_large_fields_are_fast(tmp_path):
    field = example((40, 40, 40))
    start = time.process_time()
    write_tsv(tmp_path / "a.tsv", field, "SEARCH")
    back = read_tsv(tmp_path / "a.tsv")
    assert time.process_time() - start < 5
    assert back.dims == (40, 40, 40)
