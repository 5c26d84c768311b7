"""The verdict of a report: whether its result is one to trust, and what it says, in a paragraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpidvc.commands.report.numbers import Number, Text
from mpidvc.core.outliers import error_outliers
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.workflow.history import Step
from mpidvc.workflow.verdict import LEAST_CONVERGED, MATCHED, judge

__all__ = ["judge_result"]

#: Commands whose return statuses a verdict judges.
JUDGED = ("ldic", "ddic", "series")


def judge_result(
    facts: dict[str, Any], main: Step, phi_field: PhiField, images: tuple[Image, Image] | None, sigmas: Sequence[str]
) -> list[Text]:
    """The verdict on a result: its warnings and advice go to the facts, its sentences are returned.

    Parameters
    ----------
    facts : dict
        Of the report.
    main : Step
    phi_field : PhiField
        Its field.
    images : 2 Images or None
    sigmas : sequence of str
        Names of the columns with random errors.
    """
    convergence = facts["convergence"]
    trusted: bool | None = convergence["share"] is not None and convergence["share"] >= LEAST_CONVERGED
    warnings: list[str] = []
    advice: list[str] = []
    correlated = main.command in JUDGED or (not main.command and "deltaPhiNorm" in phi_field)
    searched = "pixelSearchCC" in phi_field and "LabelDilate" not in phi_field
    if correlated and not searched and phi_field.layout != "registration" and "returnStatus" in phi_field:
        rows = slice(1, None) if phi_field.layout == "labels" else slice(None)
        status = np.asarray(phi_field["returnStatus"], np.float64)[rows]
        found = judge(
            _shape(main, phi_field),
            None if images is None else images[0],
            phi_field.positions[rows],
            status,
            _hws(main, phi_field),
            _whole(main.settings.get("-it"), 50),
            _criterion(main.settings),
            phi_field.layout == "labels",
        )
        trusted = found.status == 0
        warnings += [found.warning] if found.warning else []
        advice += found.advice
        warnings += _outliers(phi_field)
    facts["verdict"] = {"trusted": trusted, "warnings": warnings, "advice": advice}
    return _sentences(facts, trusted, sigmas, correlated and not searched)


def _shape(main: Step, phi_field: PhiField) -> Any:
    told = main.settings.get("image 1")
    shape = told.get("shape") if isinstance(told, dict) else None
    if isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape):
        return tuple(shape)
    finite = phi_field.positions[np.isfinite(phi_field.positions).all(axis=1)]
    return tuple(int(n) + 1 for n in finite.max(axis=0)) if len(finite) else (1, 1, 1)


def _hws(main: Step, phi_field: PhiField) -> Any:
    hws = main.settings.get("-hws")
    if isinstance(hws, list) and len(hws) == 3 and all(isinstance(n, int) and n >= 0 for n in hws):
        return tuple(hws)
    return (0, 0, 0)


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _criterion(settings: Mapping[str, Any]) -> str:
    told = settings.get("--criterion")
    return "ssd" if isinstance(told, list) and told[:1] == ["ssd"] else "znssd"


def _outliers(phi_field: PhiField) -> list[str]:
    """A warning of converged points with an error that the others do not explain."""
    if "zncc" not in phi_field or "error" not in phi_field:
        return []
    converged = np.asarray(phi_field["returnStatus"]) == 2
    zncc = np.asarray(phi_field["zncc"], np.float64)[converged]
    error = np.asarray(phi_field["error"], np.float64)[converged]
    count = int((error_outliers(error, zncc) & ~(zncc >= MATCHED)).sum())
    if not count:
        return []
    return [
        f"{count} of {int(converged.sum())} points that converged have an error far above that of the others, and may "
        "be wrong: mpidvc filterPhiField --outliers finds them"
    ]


def _sentences(facts: Mapping[str, Any], trusted: bool | None, sigmas: Sequence[str], correlated: bool) -> list[Text]:
    """The verdict in a paragraph."""
    result, motion = facts["result"], facts["motion"]
    points = "labels" if result["layout"] == "labels" else "points"
    command = result["command"] or "the file"
    zncc: Text = [", with a median ZNCC of ", Number("quantities/zncc/median", ".3f")] if _has(facts, "zncc") else []
    of_all: Text = [" (of ", Number("convergence/points", "d"), " in all)"] if _skipped(facts) else []
    found: list[Text] = [["The result is one to trust: " if trusted else "The result is not one to trust: "]]
    if result["points"] == 1:
        end = "converged" if facts["convergence"]["good"] else "did not converge"
        found.append([f"{command} is a registration, one motion for the whole image, that {end}. "])
    elif facts["convergence"]["compared"] == 0:
        found.append(["none of the ", Number("result/points", "d"), f" {points} of {command} was compared. "])
    else:
        found.append(
            [
                *(Number("convergence/share", ".1%"), " of the ", Number("convergence/compared", "d")),
                f" {points}{f' that {command} compared' if result['command'] else ''} ",
                "converged" if correlated else "are good",
                *of_all,
                *zncc,
                ". ",
            ]
        )
    if motion is None:
        return [*found, ["There is no point from which motion or strain could be told."]]
    axes = "yx" if motion["in_plane"] and motion["translation"][0] == 0 else "zyx"
    found.append(["On the whole it moved by ", *_moved("motion", axes)])
    if result["points"] > 1:
        found.append(["; without this rigid motion ", Number("motion/rigid_rms", ".3f"), " voxels (rms) are left"])
    found.append([". "])
    for k, removed in enumerate(facts["removed"]):
        what = f"Before, a motion of the whole ({removed['kind']}) was taken off: it moved by "
        found.append([what, *_moved(f"removed/{k}", axes), ". "])
    if _has(facts, "dev"):
        found.append(
            [
                *("The mean volumetric strain is ", Number("quantities/vol/mean", "+.3%")),
                *(", the mean deviatoric strain ", Number("quantities/dev/mean", ".3%"), ". "),
            ]
        )
    displaced = [name for name in sigmas if name.endswith("disp")]
    if displaced:
        told: Text = []
        for k, name in enumerate(displaced):
            told += [", " if k else "", Number(f"quantities/{name}/median", ".2g")]
        along = ", ".join(name.removeprefix("sigma")[0].lower() for name in displaced)
        found.append(
            ["The random error of the displacement (one standard deviation, median) is ", *told, f" voxels ({along}). "]
        )
    found += _band_sentences(facts, axes)
    if facts["residual"] is not None and "after" in facts["residual"]:
        found.append(
            [
                *("The standard deviation of the difference of both images falls from ",),
                *(Number("residual/before/sd", ".4g"), " to ", Number("residual/after/sd", ".4g"), " grey levels "),
                *("(image 1 itself: ", Number("residual/image_1/sd", ".4g"), ")."),
            ]
        )
    return found


def _band_sentences(facts: Mapping[str, Any], axes: str) -> list[Text]:
    # without a grid none is looked for
    if facts["result"]["dims"] is None or not _has(facts, "dev"):
        return []
    band = facts["band"]
    if band is None:
        return [["No band of localised strain is found. "]]
    place = [" at ", *_triple("band/centre", axes, ".0f"), f" ({', '.join(axes)})"]
    shape: Text = ["Strain is localised in a region", *place]
    if band["flat"]:
        shape = ["Strain is localised in a band", *place, ", with the normal ", *_triple("band/normal", axes, ".2f")]
        shape += [" and a thickness of ", Number("band/thickness", ".0f"), " voxels"]
    return [
        [
            *shape,
            *(": it holds ", Number("band/share", ".1%"), " of the points and ", Number("band/strain_share", ".1%")),
            *(" of the deviatoric strain, ", Number("band/mean", ".3%"), " on average against "),
            *(Number("band/rest", ".3%"), " elsewhere. "),
        ]
    ]


def _moved(place: str, axes: str) -> Text:
    """The translation and the rotation of a motion."""
    told: Text = [*_triple(f"{place}/translation", axes, ".3f"), f" voxels ({', '.join(axes)}) and turned by "]
    if axes == "zyx":
        return [*told, *_triple(f"{place}/rotation", axes, ".3f"), " degrees (z, y, x)"]
    return [*told, Number(f"{place}/rotation/0", ".3f"), " degrees"]


def _triple(path: str, axes: str, form: str) -> Text:
    numbers: Text = ["("]
    for axis in axes:
        numbers += [Number(f"{path}/{'zyx'.index(axis)}", form), ", "]
    return [*numbers[:-1], ")"]


def _has(facts: Mapping[str, Any], name: str) -> bool:
    return bool(facts.get("quantities", {}).get(name, {}).get("n", 0) > 0)


def _skipped(facts: Mapping[str, Any]) -> bool:
    return bool(facts["convergence"]["compared"] < facts["convergence"]["points"])
