"""Options of reg and ldic: spam's names, abbreviations and defaults, our own, and what is refused without a file."""

from __future__ import annotations

import argparse
import math
from types import ModuleType

import pytest

from mpidvc.cli.options import image_mode
from mpidvc.cli.parser import Parser, UnknownOptionError, UsageError
from mpidvc.commands.ldic import options as ldic
from mpidvc.commands.reg import options as reg
from mpidvc.errors import UserError


def parse(module: ModuleType, line: str) -> argparse.Namespace:
    parser = Parser(f"mpidvc {module.__name__.split('.')[2]}", module.HELP, module.EXAMPLES)
    module.add_options(parser)
    return parser.parse_args([word.replace("''", "") for word in line.split()])


def run_ldic(line: str) -> argparse.Namespace:
    return parse(ldic, f"a b -ns 20 -hws 10 {line}")


def test_defaults_of_reg() -> None:
    assert vars(parse(reg, "a b")) == {
        "command_line": "mpidvc reg a b",
        "im1": "a",
        "im2": "b",
        "mask1": None,
        "return_phi_mask_centre": False,
        "phi_file": None,
        "phi_file_bin_ratio": 1.0,
        "coarse": False,
        "max_angle": 180.0,
        "bin_begin": 4,
        "bin_end": 1,
        "margin": None,
        "rigid": False,
        "max_iterations": 50,
        "min_delta_phi": 1e-4,
        "interpolation_order": 1,
        "update_gradient": False,
        "shift": False,
        "gradient_method": "finite_differences",
        "gaussian_sigma": 1.0,
        "criterion": "auto",
        "out_dir": None,
        "prefix": None,
        "save_deformed_image1": False,
        "journal": False,
        "graph": False,
        "lazy": False,
        "image_mode": None,
        "memory": None,
        "processes": None,
        "log": None,
        "all_settings": False,
    }


def test_defaults_of_ldic() -> None:
    assert vars(parse(ldic, "a b c")) == {
        "command_line": "mpidvc ldic a b c",
        "images": ["a", "b", "c"],
        "mask1": None,
        "phi_file": None,
        "phi_file_bin_ratio": 1.0,
        "apply_F": "all",
        "start_from": "guess",
        "skip": False,
        "series_incremental": False,
        "warm_start": False,
        "update_reference": False,
        "node_spacing": None,
        "half_window_size": None,
        "margin": (3, 3, 3),
        "grey_low_threshold": -math.inf,
        "grey_high_threshold": math.inf,
        "mask_coverage": 0.5,
        "rigid": False,
        "max_iterations": 50,
        "min_delta_phi": 1e-3,
        "interpolation_order": 1,
        "update_gradient": False,
        "shift": False,
        "criterion": "auto",
        "sigma": False,
        "noise_from": None,
        "noise_mask": None,
        "adaptive": None,
        "adaptive_from": None,
        "out_dir": None,
        "prefix": None,
        "vtk": False,
        "tsv": True,
        "tif": False,
        "resume": False,
        "overwrite": False,
        "h5": True,
        "hdf5_driver": "auto",
        "voxel_size": 1.0,
        "unit": "voxel",
        "lazy": False,
        "image_mode": None,
        "memory": None,
        "processes": None,
        "log": None,
        "all_settings": False,
    }


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("-ns 5 -ns3 1 2 3", "node_spacing", (1, 2, 3)),
        ("-ns3 1 2 3 -ns 5", "node_spacing", (5, 5, 5)),
        ("--node-spacing-3 1 2 3", "node_spacing", (1, 2, 3)),
        ("-hws3 0 2 3", "half_window_size", (0, 2, 3)),
        ("-m3 1 2 3 -m 4", "margin", (4, 4, 4)),
        ("-margin 4.7", "margin", (4, 4, 4)),
        ("-mar3 1 2 3", "margin", (1, 2, 3)),
        ("-margin3 1 2 3", "margin", (1, 2, 3)),
        # Negative numbers are values.
        ("-glt -5", "grey_low_threshold", -5.0),
        ("-glt -1e-4", "grey_low_threshold", -1e-4),
        ("-glt -.5", "grey_low_threshold", -0.5),
        ("-glt -inf", "grey_low_threshold", -math.inf),
        # Abbreviations, with one dash and with two.
        ("--min-d 0.1", "min_delta_phi", 0.1),
        ("--half-window-size 7", "half_window_size", (7, 7, 7)),
        ("-not", "tsv", False),
        ("-phi guess.tsv", "phi_file", "guess.tsv"),
        ("--phiFile-b 2", "phi_file_bin_ratio", 2.0),
        ("-phiFile guess.tsv", "phi_file", "guess.tsv"),
        ("--phiFile guess.tsv", "phi_file", "guess.tsv"),
        ("--max-iterations=7", "max_iterations", 7),
        ("-o3", "interpolation_order", 3),
        ("-m5", "margin", (5, 5, 5)),
        ("-m4.7", "margin", (4, 4, 4)),
        ("-Frigid", "apply_F", "rigid"),
        ("-tiff", "tif", True),
        ("--TIFout", "tif", True),
        ("--TI", "tif", True),
        ("--skip -pf f.tsv", "skip", True),
        # Our own, exactly.
        ("--criterion znssd", "criterion", "znssd"),
        ("--log=x.log", "log", "x.log"),
        ("-np 2", "processes", 2),
        ("--number-of 2", "processes", 2),
        ("-notsv", "tsv", False),
        ("-od out -pre P", "out_dir", "out"),
    ],
)
def test_spellings(line: str, name: str, value: object) -> None:
    assert getattr(run_ldic(line), name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--node 5", "ambiguous option: --node could match --node-spacing, --node-spacing-3"),
        ("-n", "ambiguous option: -n could match"),
        ("-ma 5", "ambiguous option: -ma could match"),
        ("--crit ssd", "unknown option --crit (did you mean --criterion?)"),
        ("--lo x.log", "unknown option --lo (did you mean --log?)"),
        ("-o2", "argument -o/--interpolation-order: invalid choice: "),
        ("-o 2", "argument -o/--interpolation-order: invalid choice: "),
        ("-F foo", "argument -F/--apply-F: invalid choice: 'foo'"),
        ("-it x", "argument -it/--max-iterations: invalid int value: 'x'"),
        ("-m nan", "argument -m/-mar/-margin: invalid number value: 'nan'"),
        ("-m inf", "argument -m/-mar/-margin: invalid number value: 'inf'"),
        ("-ns3 1 2", "argument -ns3/--node-spacing-3: expected 3 arguments"),
    ],
)
def test_refused_by_the_parser(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_ldic(line)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(("(see mpidvc ldic --help)", "?)"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-outdir x", "unknown option -outdir (did you mean -od, --out-dir?)"),
        ("--outdir=x", "unknown option --outdir (did you mean -od, --out-dir?)"),
        ("-HWS 10", "unknown option -HWS (did you mean -hws, --half-window-size?)"),
        # argparse takes a value without a blank for options of one letter only, and -h for --help
        ("-hws10", "unknown option -hws10 (did you mean -hws 10?)"),
        ("-np2", "unknown option -np2 (did you mean -np 2?)"),
        ("-help", "unknown option -help (did you mean -h, --help?)"),
        ("-mx", "unknown option -mx (see mpidvc ldic --help)"),
        ("-Fal", "unknown option -Fal (see mpidvc ldic --help)"),
    ],
)
def test_unknown_options(line: str, message: str) -> None:
    with pytest.raises(UnknownOptionError) as caught:
        run_ldic(line)
    assert str(caught.value) == message


def test_unknown_option_is_told_before_what_follows_from_it() -> None:
    with pytest.raises(UnknownOptionError, match="-outdir"):
        parse(ldic, "-outdir")


def test_flags_of_one_letter_may_be_joined() -> None:
    args = parse(reg, "a b -gjo3")
    assert (args.graph, args.journal, args.interpolation_order) == (True, True, 3)
    for word in ("-gx", "-gjx", "-gox"):
        with pytest.raises(UnknownOptionError, match=f"unknown option {word} "):
            parse(reg, f"a b {word}")


def test_reg_has_exact_np() -> None:
    assert parse(reg, "a b -np 2").processes == 2
    with pytest.raises(UsageError, match="unknown option --number"):
        parse(reg, "a b --number 2")
    # What spam accepts as the abbreviation of one option stays one.
    assert parse(reg, "a b --l").lazy


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a -ns 20 -hws 10", "a alone: at least two images"),
        ("a b -ns 20", "give -hws or -hws3"),
        ("a b -hws 10", "give -ns or -ns3"),
        ("a b -ns 0 -hws 10", "-ns 0: has to be at least 1"),
        ("a b -ns 20 -hws3 5 0 5", "-hws3 5 0 5: has to be at least 1"),
        ("a b -ns 20 -hws 10 -m -1", "-m -1: may not be negative"),
        ("a b -ns 20 -hws 10 -mc 1.5", "-mc 1.5: has to be between 0 and 1"),
        ("a b -ns 20 -hws 10 -mc nan", "-mc nan: has to be between 0 and 1"),
        ("a b -ns 20 -hws 10 -it -1", "-it -1: may not be negative"),
        ("a b -ns 20 -hws 10 -dp nan", "-dp nan: is not a number"),
        ("a b -ns 20 -hws 10 -pfb 0", "-pfb 0.0: has to be above 0"),
        ("a b -ns 20 -hws 10 -glt 9 -ght 9", "-glt 9.0: has to be below -ght (9.0)"),
        ("a b -ns 20 -hws 10 -np 0", "-np 0: at least one process"),
        ("a b -ns 20 -hws 10 -od ''", '-od "": is no folder'),
        ("a b -ns 20 -hws 10 -skp", "-skp needs the field"),
        ("a b -ns 20 -hws 10 --memory much", "--memory much: is no size; give for example 500M"),
        ("a b -ns 20 -hws 10 --memory 0", "--memory 0: has to be above 0"),
        (
            "a b -ns 20 -hws 10 -lazy --image-mode boxes",
            "-lazy: is --image-mode mapped, but --image-mode boxes is given",
        ),
    ],
)
def test_refused_by_ldic(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        ldic.check(parse(ldic, line))
    assert message in str(caught.value)


def test_image_mode() -> None:
    modes = {"": "auto", "-lazy": "mapped", "-lazy --image-mode mapped": "mapped", "--image-mode shared": "shared"}
    for line, mode in modes.items():
        assert ldic.check(run_ldic(line)) == []
        assert image_mode(run_ldic(line)) == mode
    with pytest.raises(UsageError, match="unknown option --image"):
        run_ldic("--image boxes")


def test_accepted_by_ldic() -> None:
    assert ldic.check(run_ldic("")) == []
    assert ldic.check(parse(ldic, "a b -hws 5 -pf field.tsv -skp")) == []
    assert ldic.check(run_ldic("-sei")) == []
    assert "-mf1" in ldic.check(run_ldic("-sei -mf1 m.tif"))[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-bb 1 -be 2", "-bb 1: may not be below -be (2)"),
        ("-bb 0", "-bb 0: has to be at least 1"),
        ("-be -2", "-be -2: has to be at least 1"),
        ("-gs 0", "-gs 0.0: has to be above 0"),
        ("-rmc", "-rmc needs a mask"),
        ("-m3 -1 0 0", "-m3 -1 0 0: may not be negative"),
        ("--coarse -pf guess.tsv", "--coarse looks for the first guess that -pf gives; leave one of them out"),
        ("--max-angle 20", "--max-angle 20.0: is an option of --coarse; add it"),
        ("--coarse --max-angle 0", "--max-angle 0.0: has to be above 0 and at most 180 degrees"),
        ("--coarse --max-angle 181", "--max-angle 181.0: has to be above 0 and at most 180 degrees"),
        ("--coarse --max-angle nan", "--max-angle nan: has to be above 0 and at most 180 degrees"),
    ],
)
def test_refused_by_reg(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        reg.check(parse(reg, f"a b {line}"))
    assert message in str(caught.value)


def test_binning_is_rounded_to_a_power_of_two() -> None:
    args = parse(reg, "a b -bb 3")
    assert reg.check(args) == ["-bb 3 is not a power of two, using 4"]
    assert args.bin_begin == 4


@pytest.mark.parametrize("module", [reg, ldic])
def test_help(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(module, "--help")
    assert "examples:" in capsys.readouterr().out
