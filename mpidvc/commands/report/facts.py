"""The numbers of a report: everything that ``report.json`` holds, and the verdict made of them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc import __version__
from mpidvc.arrays import Array
from mpidvc.cli.command import Command
from mpidvc.commands.report.gather import Gathered, Table
from mpidvc.commands.report.numbers import Text, shown
from mpidvc.commands.report.residual import Compared, compare, label_planes
from mpidvc.commands.report.verdict import judge_result
from mpidvc.core import deformation
from mpidvc.core.bands import Band, find_band
from mpidvc.core.motion import MotionFit, fit_all
from mpidvc.core.strain import components
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image, open_image
from mpidvc.tasks.grey import with_limits
from mpidvc.workflow.determines import plain
from mpidvc.workflow.gauge import correlation_window
from mpidvc.workflow.history import Step, find_images, find_labels, removed_before, steps_before
from mpidvc.workflow.plot import Slice
from mpidvc.workflow.quantities import RADIUS, Quantities, in_plane, statuses_of
from mpidvc.workflow.verdict import NOT_COMPARED

__all__ = ["FORMAT", "Material", "collect"]

FORMAT = "mpidvc report 1"
#: Classes of a histogram.
CLASSES = 40


@dataclass
class Material:
    """What a page is made of.

    Attributes
    ----------
    facts : dict
        All numbers; strict JSON.
    verdict : list of Text
        Sentences.
    given, strains : Quantities or None
        The field, and that with its strain, which may be the same; None for a registration.
    values, strain_values : dict of (n,) arrays
        By the names of quantities.
    residual : Compared or None
    labels : list of Slice
        The labels in some planes, if the points are labels, whose image is there.
    """

    facts: dict[str, Any]
    verdict: list[Text] = field(default_factory=list)
    given: Quantities | None = None
    strains: Quantities | None = None
    values: dict[str, Array] = field(default_factory=dict)
    strain_values: dict[str, Array] = field(default_factory=dict)
    residual: Compared | None = None
    labels: list[Slice] = field(default_factory=list)


def collect(gathered: Gathered, commands: Mapping[str, Command], given_images: Sequence[str] | None) -> Material:
    """Collect the numbers of a report.

    Parameters
    ----------
    gathered : Gathered
    commands : mapping of str to Command
    given_images : 2 str or None
        Names of the images, instead of those that the result tells.

    Raises
    ------
    UserError
        If the result, or an image that was given, cannot be read.
    """
    main = gathered.main
    phi_field = main.read()
    facts: dict[str, Any] = {"format": FORMAT, "version": __version__, "title": gathered.title, "verdict": {}}
    material = Material(facts)
    facts["result"] = _result(main, phi_field)
    good = _good(phi_field)
    facts["statuses"], facts["convergence"] = _statuses(phi_field, main.command, good)
    images = _images(main, commands, given_images)
    if len(phi_field) > 1 and phi_field.layout != "registration":
        _measure(material, gathered, phi_field)
    steps = [main, *steps_before(main, commands)]
    removed = removed_before(main, commands)
    facts["removed"] = [_removed(motion) for motion in removed]
    facts["motion"] = _motion(phi_field, good)
    facts["images"] = [
        {"name": _name(image, main), "shape": list(image.shape), "dtype": image.dtype.name} for image in images or ()
    ]
    labels = find_labels(main, commands) if phi_field.layout == "labels" else None
    if labels is not None:
        material.labels = label_planes(labels, phi_field)
    if images is not None:
        material.residual = _residual(images, phi_field, good, steps, labels, removed)
    facts["residual"] = _residual_facts(material.residual)
    facts["series"] = _table(gathered.series)
    facts["study"] = _table(gathered.study)
    if gathered.strain is not None:
        steps.insert(0, gathered.strain)
    facts["steps"] = [_step(step) for step in reversed(steps)]
    facts["files"] = [_file(step) for step in gathered.files]
    facts["refused"] = gathered.refused
    sigmas = [name for name in material.values if name.startswith("sigma")]
    material.verdict = judge_result(facts, main, phi_field, images, sigmas)
    material.facts = _strict(facts)
    material.facts["verdict"]["text"] = "".join(
        part if isinstance(part, str) else shown(material.facts, part) for part in itertools.chain(*material.verdict)
    )
    return material


# ---- the field


def _good(phi_field: PhiField) -> NDArray[np.bool_]:
    good = np.array(phi_field.good)
    if phi_field.layout == "labels":
        # the background
        good[0] = False
    return good


def _result(step: Step, phi_field: PhiField) -> dict[str, Any]:
    try:
        window = correlation_window(str(step.path))
    except (ValueError, TypeError):
        # damaged settings
        window = None
    return {
        "file": step.path.name,
        "command": step.command,
        "layout": phi_field.layout,
        "points": len(phi_field),
        "dims": None if phi_field.dims is None else list(phi_field.dims),
        "spacing": None if phi_field.spacing is None else list(phi_field.spacing),
        "window": None if window is None else list(window),
        "columns": list(phi_field.columns),
    }


def _statuses(phi_field: PhiField, command: str, good: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Number of the points by their return status, and of those that were compared and are good."""
    # the background, row 0, is no label
    rest = slice(1, None) if phi_field.layout == "labels" else slice(None)
    good = good[rest]
    n = len(good)
    if "returnStatus" not in phi_field:
        count = int(good.sum())
        return [], {"points": n, "compared": n, "good": count, "share": count / n if n else None}
    status = np.asarray(phi_field["returnStatus"], np.float64)[rest]
    known = statuses_of(phi_field, command)
    rows = []
    for value, count in sorted(zip(*np.unique(np.nan_to_num(status), return_counts=True), strict=True), reverse=True):
        about = known.get(int(value))
        rows.append(
            {
                "value": int(value),
                "name": about.name if about else "",
                "meaning": about.meaning if about else "",
                "count": int(count),
                "share": int(count) / n,
            }
        )
    compared = ~np.isin(status, NOT_COMPARED)
    number = int(compared.sum())
    count = int((good & compared).sum())
    return rows, {"points": n, "compared": number, "good": count, "share": count / number if number else None}


def _measure(material: Material, gathered: Gathered, phi_field: PhiField) -> None:
    """The quantities of the points: statistics, histograms, profiles, and the band of localised strain."""
    facts, main = material.facts, gathered.main
    given = material.given = Quantities(phi_field, main.texts)
    strains: Quantities | None = given if given.has_strain else None
    told = "none"
    if gathered.strain is not None:
        strains = Quantities(gathered.strain.read(), gathered.strain.texts)
        told = f"file {gathered.strain.path.name}"
    elif strains is not None:
        told = f"linear fits within {RADIUS} node spacings"
        if main.command == "regularStrain":
            told = f"file {main.path.name}"
    material.strains = strains
    axes = "YX" if given.flat else "ZYX"
    names = [*(f"{axis}disp" for axis in axes), *(f"{axis}nonrigid" for axis in axes), "disp", "nonrigid"]
    columns = ("zncc", "pixelSearchCC", "error", "iterations")
    names += [name for name in columns if name in phi_field]
    names += [name for name in phi_field.columns if name.startswith("sigma") and (in_plane(name) or not given.flat)]
    material.values = given.compute(names)
    strain_names: list[str] = []
    if strains is not None:
        pairs = ("yy", "yx", "xx") if strains.flat else ("zz", "zy", "zx", "yy", "yx", "xx")
        strain_names = ["vol", "dev", *(f"GL{pair}" for pair in pairs)]
        material.strain_values = strains.compute(strain_names)
    facts["strain_from"] = told
    everything = {**material.values, **material.strain_values}
    facts["quantities"] = {
        name: {**(strains if name in strain_names and strains else given).about(name)._asdict(), **_statistics(values)}
        for name, values in everything.items()
    }
    facts["histograms"] = {name: _histogram(name, values) for name, values in everything.items()}
    facts["profiles"] = [
        *_profiles(given, {f"{axis}disp": material.values[f"{axis}disp"] for axis in axes}),
        *(_profiles(strains, {name: material.strain_values[name] for name in ("vol", "dev")}) if strains else []),
    ]
    facts["band"] = None
    if strains is not None and strains.field.dims is not None:
        dev, positions = material.strain_values["dev"], strains.field.positions
        found = find_band(strains.field.grid(dev), strains.field.grid(positions))
        facts["band"] = None if found is None else _band(found)


def _statistics(values: Array) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return {"n": 0, **dict.fromkeys(("mean", "sd", "min", "q01", "median", "q99", "max"))}
    low, middle, high = np.percentile(finite, [1, 50, 99]).tolist()
    return {
        "n": int(finite.size),
        "mean": float(finite.mean()),
        "sd": float(finite.std()),
        "min": float(finite.min()),
        "q01": low,
        "median": middle,
        "q99": high,
        "max": float(finite.max()),
    }


def _histogram(name: str, values: Array) -> dict[str, Any]:
    """Classes from the quantile of 1 % to that of 99 %, and the numbers of values below and above."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return {"edges": [], "counts": [], "below": 0, "above": 0}
    if name == "iterations":
        edges = np.arange(finite.min() - 0.5, min(finite.max(), finite.min() + 100) + 1)
    else:
        low, high = np.percentile(finite, [1, 99]).tolist()
        least = 1e-12 * max(abs(low), abs(high), 1e-300)
        edges = np.linspace(low - least, high + least, CLASSES + 1)
    counts, _ = np.histogram(finite, edges)
    below, above = int((finite < edges[0]).sum()), int((finite > edges[-1]).sum())
    return {"edges": edges.tolist(), "counts": counts.tolist(), "below": below, "above": above}


def _profiles(given: Quantities, values: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Mean and standard deviation of quantities in the layers of a grid across each axis."""
    field_ = given.field
    found = []
    for axis, n in enumerate(field_.dims or ()):
        if n < 2:
            continue
        places = np.moveaxis(field_.grid(field_.positions), axis, 0)[:, 0, 0, axis]
        profile: dict[str, Any] = {"axis": "zyx"[axis], "positions": places.tolist(), "quantities": {}}
        for name, column in values.items():
            layers = np.moveaxis(field_.grid(column), axis, 0).reshape(n, -1)
            known = np.isfinite(layers)
            count = known.sum(axis=1)
            some = np.maximum(count, 1)
            mean = np.where(known, layers, 0).sum(axis=1) / some
            sd = np.sqrt((np.where(known, layers - mean[:, None], 0) ** 2).sum(axis=1) / some)
            profile["quantities"][name] = {
                "n": count.tolist(),
                "mean": np.where(count > 0, mean, np.nan).tolist(),
                "sd": np.where(count > 0, sd, np.nan).tolist(),
            }
        found.append(profile)
    return found


def _band(found: Band) -> dict[str, Any]:
    return {
        "threshold": found.threshold,
        "points": found.points,
        "share": found.share,
        "strain_share": found.strain_share,
        "mean": found.mean,
        "rest": found.rest,
        "centre": found.centre.tolist(),
        "flat": found.flat,
        "normal": found.normal.tolist() if found.flat else None,
        "thickness": found.thickness if found.flat else None,
    }


def _motion(phi_field: PhiField, good: Any) -> dict[str, Any] | None:
    """The motion of all good points as one: affine, rigid, and the mean of their own F."""
    if not good.any():
        return None
    positions, moved = phi_field.positions[good], phi_field.displacements[good]
    if len(phi_field) == 1:
        fit = MotionFit(phi_field.phi[0], phi_field.positions[0], 0.0)
        rotation, rigid_rms = deformation.rotation_vector(deformation.polar(fit.F)[0]), None
    else:
        fit = fit_all(positions, moved, "affine")
        rigid = Quantities(phi_field).rigid
        assert rigid is not None
        rotation, rigid_rms = deformation.rotation_vector(rigid.F), rigid.rms
    flat = bool(np.ptp(positions[:, 0]) == 0) if len(positions) > 1 else not positions[:, 0].any()
    values, _ = components(np.stack([fit.F, phi_field.F[good].mean(axis=0)]), ("vol", "GL"), flat)
    names = ("zz", "zy", "zx", "yy", "yx", "xx")
    shown_names = names[3:] if flat else names
    lagrange = [{name: row[1 + names.index(name)] for name in shown_names} for row in values.tolist()]
    return {
        "points": int(good.sum()),
        "in_plane": flat,
        "centre": fit.centre.tolist(),
        "translation": fit.translation.tolist(),
        "F": fit.F.tolist(),
        "volume": float(values[0, 0]),
        "green_lagrange": lagrange[0],
        "rms": fit.rms,
        "rotation": rotation.tolist(),
        "rigid_rms": rigid_rms,
        "mean_displacement": moved.mean(axis=0).tolist(),
        "mean_F": phi_field.F[good].mean(axis=0).tolist(),
        "mean_F_volume": float(values[1, 0]),
        "mean_F_green_lagrange": lagrange[1],
    }


def _removed(motion: Mapping[str, Any]) -> dict[str, Any]:
    """A motion that was removed from the field, about its centre."""
    phi = np.array(motion["phi"])
    return {
        "kind": motion["kind"],
        "centre": list(motion["centre"]),
        "translation": phi[:3, 3].tolist(),
        "rotation": deformation.rotation_vector(deformation.polar(phi[:3, :3])[0]).tolist(),
        "F": phi[:3, :3].tolist(),
    }


# ---- images


def _images(main: Step, commands: Mapping[str, Command], given: Sequence[str] | None) -> tuple[Image, Image] | None:
    if given is None:
        return find_images(main, commands)
    one, two = (with_limits(open_image(name)) for name in given)
    if one.shape != two.shape:
        raise UserError(f"--images {' '.join(given)}: differ in shape, {one.shape} and {two.shape}")
    return one, two


def _name(image: Image, main: Step) -> str:
    """Name of an image: from the folder of the result on, if it lies there."""
    folder = f"{main.path.parent.resolve()}{os.sep}"
    return str(Path(image.path).resolve()).removeprefix(folder) if "::" not in image.path else image.path


def _residual(
    images: tuple[Image, Image],
    phi_field: PhiField,
    good: Any,
    steps: Sequence[Step],
    labels: Image | None,
    removed: Sequence[Mapping[str, Any]],
) -> Compared | None:
    if images[0].two_d != images[1].two_d:
        return None
    # that of the correlation, which a filter does not tell
    order = 3 if next((one.settings["-o"] for one in steps if "-o" in one.settings), 1) == 3 else 1
    return compare(images, phi_field, good, order, labels, removed)


def _residual_facts(found: Compared | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "planes": [{"axis": "zyx"[part.axis], "place": part.place} for part in found.one],
        "voxels": found.voxels,
        "gain": found.gain,
        "bias": found.bias,
        **{name.replace(" ", "_"): numbers for name, numbers in found.numbers.items()},
    }


# ---- where it comes from


def _table(table: Table | None) -> dict[str, Any] | None:
    return None if table is None else {"file": table.name, "columns": table.columns, "rows": table.rows}


def _step(step: Step) -> dict[str, Any]:
    run = step.run
    return {
        "file": step.path.name,
        "command": step.command,
        "command_line": run.command_line,
        "folder": run.folder,
        "settings": plain(step.settings),
        "texts": {name: text for name, text in step.texts.items() if name not in ("determines", "command")},
        "run": {
            "seconds": None if run.seconds is None else run.seconds_before + run.seconds,
            "ranks": run.ranks,
            "resumes": run.resumes,
            "hosts": run.hosts,
            "lost": run.lost,
        },
    }


def _file(step: Step) -> dict[str, Any]:
    """A line of the list of files."""
    found: dict[str, Any] = {"file": step.path.name, "command": step.command, "points": None, "good": None}
    try:
        phi_field = step.read()
    except UserError:
        return found
    return {**found, "points": len(phi_field), "good": int(_good(phi_field).sum())}


def _strict(value: Any) -> Any:
    """Facts as strict JSON holds them: what is not finite is None."""
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
