#!/usr/bin/env python3
"""Make the pictures of the documentation: python docs/make_pictures.py [NAME …]

All of them without a name. The pictures of real specimens need the folder with their images in MPIDVC_DATA, and are
left as they are without it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import map_coordinates

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grains import AnalyticGrains
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.images.image import open_image
from mpidvc.main import main
from mpidvc.tasks.deform import DeformTask, WholeMotion

IMAGES = Path(__file__).resolve().parent / "images"
DATA = Path(os.environ["MPIDVC_DATA"]).resolve() if os.environ.get("MPIDVC_DATA") else None


def run(*arguments: str, may_fail: bool = False) -> None:
    """Run a command on one process, without its output; `may_fail`: also for a result that is not to be trusted."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = main([*arguments, "-np", "1"])
    if status > may_fail:
        raise SystemExit(f"mpidvc {' '.join(arguments)}: exit status {status}, no picture")


def run_alone(*arguments: str) -> None:
    """Run a command that has no number of processes."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = main([*arguments])
    if status:
        raise SystemExit(f"mpidvc {' '.join(arguments)}: exit status {status}, no picture")


def read(name: str) -> dict[str, Any]:
    """All datasets of a results file."""
    with h5py.File(name) as file:
        return {key: values[()] for key, values in file["mpidvc"].items()}


def real(name: str) -> Path:
    """A folder with images of a real specimen."""
    if DATA is None:
        raise SystemExit(f"{name}: MPIDVC_DATA is not set")
    return DATA / name


def figure(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    made = Figure((width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, name: str) -> None:
    """Write a picture without the date, so that the same figure is the same file."""
    made.savefig(IMAGES / name, dpi=90, metadata={"Software": None})


def show(axes: Any, values: Any, title: str, spacing: int = 1, colours: bool = True, **settings: Any) -> None:
    """A map of nodes, or an image where the spacing is 1; axes are voxels."""
    ny, nx = values.shape
    first = spacing / 2 if spacing > 1 else -0.5
    extent = (first, first + nx * spacing, first + ny * spacing, first)
    drawn = axes.imshow(values, extent=extent, interpolation="nearest", **settings)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=7)
    if colours:
        axes.figure.colorbar(drawn, ax=axes, shrink=0.7).ax.tick_params(labelsize=7)


def demo() -> None:
    """The picture that the demonstration makes."""
    run("demo", ".")
    shutil.copyfile("im1-im2-field.png", IMAGES / "demo.png")


def grains() -> None:
    """The picture of the demonstration with grains."""
    run("demo", ".", "--grains")
    shutil.copyfile("grains1-grains2-field.png", IMAGES / "grains.png")


def grid() -> None:
    """Nodes and windows of the correlation grid, for overlapping and for touching windows."""
    ny, nx = 46, 64
    image = AnalyticPair((1, ny, nx), seed=5).image1()[0]
    made = figure(10, 3.7)
    for axes, (spacing, hws) in zip(made.subplots(1, 2), ((10, 10), (10, 5)), strict=True):
        axes.imshow(image, cmap="gray", alpha=0.6)
        nodes = [(y, x) for y in range(spacing, ny, spacing) for x in range(spacing, nx, spacing)]
        overlapping, at_border = [(20, 20), (20, 30)], (40, 60)
        for y, x in [*overlapping, at_border] if hws == spacing else nodes:
            colour = "tab:red" if (y, x) == at_border else "tab:orange"
            for half, style in ((hws, ":"), (hws - 1, "-")):
                corner, side = (x - half - 0.5, y - half - 0.5), 2 * half + 1
                axes.add_patch(Rectangle(corner, side, side, fill=False, ls=style, color=colour, lw=1.3))
        axes.plot([x for _, x in nodes], [y for y, _ in nodes], "o", color="tab:blue", ms=4)
        axes.set(xlim=(-1.5, nx + 8), ylim=(ny + 6, -1.5), xlabel="x (voxels)", ylabel="y (voxels)")
        axes.set_title(f"-ns {spacing} -hws {hws}", fontsize=10)
    save(made, "grid.png")


def windows() -> None:
    """The same displacement measured with small, suitable and large windows."""
    pair = AnalyticPair(
        *((1, 300, 300), 3, (0, 0, 0), (0, 0, 0), (0, 0.3, -0.4)), amplitude=0.5, wavelength=90, noise=0.03
    )
    tifffile.imwrite("im1.tif", pair.image1()[0])
    tifffile.imwrite("im2.tif", pair.image2()[0])
    made = figure(12, 2.9)
    axes = made.subplots(1, 4)
    limits: dict[str, Any] = {"vmin": -1.1, "vmax": 0.3, "cmap": "viridis"}
    for place, hws in zip(axes[1:], (4, 12, 30), strict=True):
        run("ldic", "im1.tif", "im2.tif", "-ns", "6", "-hws", str(hws), "-o", "3", "-pre", f"h{hws}")
        field = read(f"h{hws}-ldic.h5")
        good = field["returnStatus"] == 2
        found = np.where(good, field["displacement"][..., 0], np.nan)
        show(place, found, f"-hws {hws}", 6, hws == 30, **limits)
    show(axes[0], pair.displacement(field["positions"])[..., 2], "true x displacement", 6, False, **limits)
    save(made, "window-size.png")


def rock() -> None:
    """A sandstone before and after loading: what reg and ldic make of a real scan (3D)."""
    folder = real("3d/v4_sandstone")
    one, two = str(folder / "V4_bin2_Intact.tif"), str(folder / "V4_bin2_Deformed.tif")
    run("reg", one, two, "-od", ".", "-pre", "v4")
    run(
        "ldic",
        one,
        two,
        "-od",
        ".",
        "-pre",
        "v4",
        "-pf",
        "v4-registration.tsv",
        *["-ns", "10", "-hws", "7", "-glt", "8000"],
    )
    field = read("v4-ldic.h5")
    status = field["returnStatus"][:, 11]
    good = status == 2
    made = figure(12, 3.2)
    axes = made.subplots(1, 5)
    for place, name, title in zip(axes, (one, two), ("image 1", "image 2"), strict=False):
        plane = tifffile.imread(name)[:, 112].astype(float)
        lowest, highest = np.quantile(plane, (0.02, 0.98))
        show(place, plane, title, colours=False, cmap="gray", vmin=lowest, vmax=highest)
    show(axes[2], status, "returnStatus", 10, cmap="RdYlGn", vmin=-5, vmax=2)
    error = np.where(good, field["error"][:, 11], np.nan)
    show(axes[3], error, "error", 10, cmap="magma", vmin=0, vmax=25)
    moved = np.where(good, field["displacement"][:, 11, :, 2], np.nan)
    show(axes[4], moved, "z displacement", 10)
    save(made, "workflow-3d.png")


def sandstone() -> None:
    """The pictures that the lines of the tutorial make."""
    folder = real("3d/v4_sandstone")
    for number, state in enumerate(("Intact", "Deformed"), 1):
        shutil.copyfile(folder / f"V4_bin2_{state}.tif", f"sandstone{number}.tif")
    text = (IMAGES.parent / "tutorial-sandstone.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^mpidvc (.+)$", block, re.MULTILINE):
            run(*line.split())
    for name in ("displacement", "strain"):
        shutil.copyfile(f"{name}.png", IMAGES / f"tutorial-{name}.png")


def plate() -> None:
    """A plate with a hole in tension: the same line without and with a first guess (2D)."""
    folder = real("2d/dic_challenge_12")
    one, two = str(folder / "oht_cfrp_00.tiff"), str(folder / "oht_cfrp_11.tiff")
    line = ["ldic", one, two, "-od", ".", *["-ns", "20", "-hws", "14", "-o", "3"]]
    run("reg", one, two, "-od", ".", "-pre", "plate")
    run(*line, "-pre", "none", may_fail=True)
    run(*line, "-pre", "plate", "-pf", "plate-registration.tsv", "-glt", "30")
    made = figure(12, 4.2)
    axes = made.subplots(1, 6)
    show(axes[0], tifffile.imread(one), "image 1", colours=False, cmap="gray")
    for k, (name, told) in enumerate((("none", "no guess"), ("plate", "guess of reg"))):
        field = read(f"{name}-ldic.h5")
        good = field["returnStatus"] == 2
        moved = np.where(good, field["displacement"][..., 1], np.nan)
        show(axes[1 + 2 * k], moved, f"{told}:\ny displacement", 20, vmin=-14, vmax=0)
        if k == 0:
            error = np.where(good, field["error"], np.nan)
            show(axes[2], error, f"{told}:\nerror", 20, cmap="magma", vmin=0, vmax=1)
    error = np.where(good, field["error"], np.nan)
    show(axes[4], error, f"{told}:\nerror", 20, cmap="magma", vmin=0, vmax=1)
    show(axes[5], field["returnStatus"], f"{told}:\nreturnStatus", 20, cmap="RdYlGn", vmin=-5, vmax=2)
    save(made, "workflow-2d.png")
    made = figure(9, 4.2)
    axes = made.subplots(1, 4)
    for k, start in enumerate(("guess", "neighbours")):
        run(*line, "-pre", start, "-glt", "30", "--start-from", start, may_fail=True)
        field = read(f"{start}-ldic.h5")
        good = field["returnStatus"] == 2
        moved = np.where(good, field["displacement"][..., 1], np.nan)
        show(axes[2 * k], moved, f"from {start}:\ny displacement", 20, vmin=-14, vmax=0)
        zncc = np.where(good, field["zncc"], np.nan)
        show(axes[2 * k + 1], zncc, f"from {start}:\nZNCC", 20, cmap="magma", vmin=0, vmax=1)
    save(made, "start-from.png")


def residual() -> None:
    """What is left between the images: as they are, with image 1 deformed by a registration, and by a field (3D)."""
    pair = AnalyticPair(
        (60, 120, 140), seed=4, amplitude=0.8, wavelength=90.0, translation=(0.7, -1.4, 1.6), noise=0.02
    )
    for name, image in (("im1", pair.image1()), ("im2", pair.image2())):
        tifffile.imwrite(f"{name}.tif", image, photometric="minisblack", metadata={"axes": "ZYX"})
    run("reg", "im1.tif", "im2.tif", "-pre", "whole")
    run("ldic", "im1.tif", "im2.tif", "-pf", "whole-registration.tsv", "-ns", "10", "-hws", "8", "-pre", "field")
    run("deformImage", "im1.tif", "-pf", "whole-registration.tsv", "--residual", "im2.tif", "-pre", "whole")
    run("deformImage", "im1.tif", "-pf", "field-ldic.h5", "--residual", "im2.tif", "-pre", "field")
    layer = 30
    one, two = (tifffile.imread(f"{name}.tif")[layer].astype(float) for name in ("im1", "im2"))
    left = {"before": one - two}
    left["after reg"] = tifffile.imread("whole-reg-def-residual.tif")[layer]
    left["after ldic"] = tifffile.imread("field-def-residual.tif")[layer]
    made = figure(12, 3.0)
    axes = made.subplots(1, 5)
    grey: dict[str, Any] = {"colours": False, "cmap": "gray", "vmin": one.min(), "vmax": one.max()}
    show(axes[0], one, "image 1", **grey)
    show(axes[1], tifffile.imread("field-def.tif")[layer], "image 1, deformed by ldic", **grey)
    known = np.isfinite(left["after reg"]) & np.isfinite(left["after ldic"])
    limit = float(np.quantile(np.abs(left["before"]), 0.98))
    for place, (name, values) in zip(axes[2:], left.items(), strict=True):
        title = f"residual {name}:\nstandard deviation {values[known].std():.0f}"
        place.set_facecolor("0.7")
        show(place, values, title, colours=name == "after ldic", cmap="RdBu_r", vmin=-limit, vmax=limit)
    save(made, "residual.png")


def fields() -> None:
    """Fields of the plate: passed to other points, filtered, and their strain (2D)."""
    folder = real("2d/dic_challenge_12")
    one, two = str(folder / "oht_cfrp_00.tiff"), str(folder / "oht_cfrp_11.tiff")
    run("reg", one, two, "-od", ".", "-pre", "plate")
    line = [one, two, "-od", ".", "-pre", "plate", "-pf", "plate-registration.tsv", "-glt", "30"]
    run("pixelSearch", *line, "-ns", "40", "-hws", "14", "-sr", "0", "0", "-6", "6", "-6", "6")
    run("passPhiField", "-pf", "plate-pixelSearch.h5", "-im1", one, "-ns", "10", "-nr", "60", "-cps", "-od", ".")
    run("ldic", *line, "-ns", "10", "-hws", "8", "-o", "3")
    last = "plate-ldic-filtered-LQC"
    run("filterPhiField", "-pf", "plate-ldic.h5", "-srs", "--outliers", "-clqf", "-od", ".")
    run("regularStrain", f"{last}.h5", "-g", "-r", "3", "-rst", "1", "-comp", "GL", "-od", ".")

    def moved(name: str, least: int) -> Any:
        field = read(f"{name}.h5")
        return np.where(field["returnStatus"] >= least, field["displacement"][..., 1], np.nan)

    made = figure(7, 4.2)
    axes = made.subplots(1, 3)
    show(axes[0], tifffile.imread(one), "image 1", colours=False, cmap="gray")
    limits = {"vmin": -14, "vmax": 0}
    show(axes[1], moved("plate-pixelSearch", 1), "pixelSearch, -ns 40:\ny displacement", 40, **limits)
    show(axes[2], moved("plate-pixelSearch-passed-ns10", 1), "passed to -ns 10:\ny displacement", 10, **limits)
    save(made, "field-passed.png")

    # errors of half a voxel at 5 % of the nodes
    spoilt = read_field("plate-ldic.h5")
    random = np.random.default_rng(1)
    wrong = np.flatnonzero((spoilt["returnStatus"] == 2) & (random.random(len(spoilt)) < 0.05))
    angle = random.uniform(0, 2 * np.pi, len(wrong))
    spoilt.phi[wrong, 1:3, 3] += 0.5 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    write_hdf5("spoilt.h5", spoilt)
    run("filterPhiField", "-pf", "spoilt.h5", "-srs", "--outliers", "-clqf", "-od", ".")
    for name in ("spoilt", "spoilt-filtered-LQC"):
        run("passPhiField", "-pf", f"{name}.h5", "-regs", "plate-registration.tsv", "-regsF", "all", "-od", ".")
    before, after = moved("spoilt-passed-regs-all", -4), moved("spoilt-filtered-LQC-passed-regs-all", 1)
    made = figure(7, 4.2)
    axes = made.subplots(1, 3)
    limits = {"vmin": -1, "vmax": 1, "cmap": "RdBu_r"}
    show(axes[0], before, "before", 10, **limits)
    show(axes[1], before, "outliers", 10, **limits)
    y, x = np.nonzero(read("spoilt-filtered-LQC.h5")["outlier"] == 1)
    axes[1].plot(10 * (x + 1), 10 * (y + 1), "o", color="black", markersize=3, markerfacecolor="none")
    show(axes[2], after, "after", 10, **limits)
    save(made, "field-filtered.png")

    made = figure(7, 4.2)
    strain = read(f"{last}-strain-Geers.h5")
    for panel, name in zip(made.subplots(1, 3), ("GLyy", "GLxx", "GLyx"), strict=True):
        show(panel, 100 * strain[name], f"{name}, %", 10, cmap="RdBu_r", vmin=-1, vmax=1)
    save(made, "field-strain.png")


def gauges() -> None:
    """Gauges on the plate in its twelve states, and the plate's deformation without its motion (2D)."""
    folder = real("2d/dic_challenge_12")
    frames = [str(folder / f"oht_cfrp_{k:02d}.tiff") for k in range(12)]
    run("ldic", *frames, "-od", ".", "-ns", "20", "-hws", "14", "-o", "3", "-glt", "30", "--warm-start")
    states = [f"oht_cfrp_00-oht_cfrp_{k:02d}-ldic.h5" for k in range(1, 12)]
    beside, far = ((490, 100), (590, 100)), ((180, 200), (380, 200))
    box = ((160, 80), (400, 320))
    lines = [*places(*beside), *places(*far)]
    run("gauge", *states, "--extensometer", *lines, "--box", *places(*box), "--tsv", "gauge.tsv")
    readings = [line.split("\t") for line in Path("gauge.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    made = figure(11, 4)
    axes = made.subplots(1, 5, width_ratios=[1, 2.2, 1, 1, 1])
    show(axes[0], tifffile.imread(frames[0]), "frame 0", colours=False, cmap="gray")
    names = {"extensometer 1": ("strain", "beside the hole"), "extensometer 2": ("strain", "far from it")}
    names["box 1"] = ("GLyy", "mean GLyy of the box")
    for k, (gauge, (quantity, told)) in enumerate(names.items()):
        found = [row for row in readings if row[2] == gauge and row[5] == quantity]
        values, errors = (np.array([100 * float(row[column]) for row in found]) for column in (6, 7))
        axes[1].errorbar(range(1, 12), values, 2 * errors, fmt="o-", ms=3, capsize=2, color=f"C{k + 1}", label=told)
        if quantity == "strain":
            ends = (beside, far)[k]
            axes[0].plot([x for _, x in ends], [y for y, _ in ends], "o-", color=f"C{k + 1}", ms=3)
    (top, left), (bottom, right) = box
    axes[0].add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="C3"))
    axes[1].set(xlabel="frame", title="strain along y, %, and two standard errors")
    axes[1].title.set_fontsize(10)
    axes[1].legend(fontsize=8)
    run("filterPhiField", "-pf", states[-1], "--remove-motion", "rigid", "-od", ".")
    for panel, name, title in (
        (axes[2], states[-1], "y displacement"),
        (axes[3], f"{states[-1][:-3]}-filtered.h5", "without the\nrigid motion"),
    ):
        field = read(name)
        show(panel, np.where(field["returnStatus"] == 2, field["displacement"][..., 1], np.nan), title, 20)
    run("filterPhiField", "-pf", states[-1], "--remove-motion", "affine", "-od", ".", "-pre", "affine")
    field = read("affine-filtered.h5")
    show(
        axes[4],
        np.where(field["returnStatus"] == 2, field["displacement"][..., 1], np.nan),
        "without the\naffine one",
        20,
    )
    save(made, "gauge.png")


def places(*points: tuple[int, int]) -> list[str]:
    """Words of a command line for points y, x of a 2D image."""
    return [str(number) for y, x in points for number in (0, y, x)]


def series() -> None:
    """A made series, followed with and without a changing reference."""
    # the folder of the sources is not on the path of a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.series import Turning, follow

    made_series = Turning(220, 25, 15.0, 0.9)
    images = made_series.write(Path.cwd())
    made_series.write_nodes(Path("nodes.tsv"), 16, 48)
    made = figure(8, 2.8)
    axes = made.subplots(1, 4)
    for panel, state in zip(axes, (0, 24), strict=False):
        show(panel, made_series.image(state), f"state {state + 1}", colours=False, cmap="gray")
    for option, ending in (("--update-reference", "-total"), ("--warm-start", "")):
        follow(images, Path("nodes.tsv"), 40, Path(option[2:]), [option])
        found = [
            made_series.errors(read_field(Path(option[2:]) / f"s000-s{state:03d}-ldic{ending}.h5"), state)
            for state in range(1, 25)
        ]
        axes[2].semilogy(range(2, 26), [np.median(errors) for _, errors in found], label=option)
        axes[3].plot(range(2, 26), [100 * share for share, _ in found])
    axes[2].legend(fontsize=6)
    for panel, title in zip(axes[2:], ("median error, voxels", "converged, %"), strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("state", fontsize=8)
        panel.tick_params(labelsize=7)
    save(made, "workflow-series.png")


def ranking() -> None:
    """The picture of a ranking: a map that drifts, seen in three elements with more and more noise."""
    random = np.random.default_rng(3)
    grains = AnalyticPair((1, 120, 140), seed=7).image1()[0].astype(float)
    grains = (grains - grains.mean()) / grains.std()
    with h5py.File("map.h5", "w") as file:
        for name, noise in (("Ca", 1.0), ("Fe", 0.3), ("Zn", 6.0)):
            images = []
            for k in range(60):
                y, x = 10 + round(6 * np.sin(k / 9)), 10 + k // 4
                images.append(grains[y : y + 96, x : x + 100] + noise * random.normal(size=(96, 100)))
            file[f"entry/{name}"] = np.array(images, np.float32)
    run("preeval", *(f"map.h5::/entry/{name}" for name in ("Ca", "Fe", "Zn")), "--plot", "ranking.png")
    shutil.copyfile("ranking.png", IMAGES / "ranking.png")


def sure() -> None:
    """Random errors against the size of the window: predicted, observed, and of the formula for white noise."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import trust

    n, spacing, sizes = 96, 12, (5, 7, 10, 15)
    first, second = trust.texture(n, 1.6)
    made = figure(8, 3.4)
    panels = made.subplots(1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, (("white", "white noise"), ("correlated", "correlated noise")), strict=True):
        rows = []
        for hws in sizes:
            clean = trust.run(trust.image(first), trust.image(second), 3, spacing, hws)
            im1, im2 = (
                trust.image(image + 0.1 * trust.noise(n, kind, seed)) for image, seed in ((first, 11), (second, 12))
            )
            found = trust.run(im1, im2, 3, spacing, hws, sigma=True)
            inner = ((found.positions > hws + 3) & (found.positions < n - hws - 3)).all(axis=1)
            good = inner & (found["returnStatus"] == 2) & (clean["returnStatus"] == 2)
            errors = (found.displacements - clean.displacements)[good]
            sigma = [np.median(found[name][good]) for _, name in trust.DISPLACEMENTS]
            naive = trust.naive_errors(im1, found.positions[good][:60], hws, found["noise"][good][:60])
            rows.append((np.mean(sigma), errors.std(), np.median(naive)))
        predicted, observed, naively = np.array(rows).T
        voxels = [2 * hws - 1 for hws in sizes]
        axes.plot(voxels, predicted, "-", color="tab:blue", label="predicted (--sigma)")
        axes.plot(voxels, observed, "o", color="black", ms=5, label="observed")
        axes.plot(voxels, naively, "--", color="tab:red", label="formula for white noise")
        axes.set(xscale="log", yscale="log", xlabel="voxels compared per axis", title=title)
        axes.set_xticks(voxels, [str(v) for v in voxels], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("random error of u, voxels")
    panels[0].set_yticks([0.001, 0.003, 0.01, 0.03, 0.1], ["0.001", "0.003", "0.01", "0.03", "0.1"])
    panels[0].legend(fontsize=8)
    save(made, "how-sure.png")


def adaptive() -> None:
    """A volume whose contrast falls along x: random error with one window for all nodes, and with one for each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import adaptive as benchmark

    import mpidvc

    volume = benchmark.Volume((45, 45, 240))
    images = volume.noisy("white", benchmark.LEVEL, 1)
    given = {"node_spacing": 6, "interpolation_order": 3, "processes": 1}
    target, least, most = benchmark.TARGET, benchmark.LEAST, 20
    fixed = mpidvc.ldic(images, half_window_size=benchmark.FIXED, sigma=True, **given)
    chosen = mpidvc.ldic(images, half_window_size=most, adaptive=target, adaptive_from=least, **given)

    def layer(field: PhiField, values: np.ndarray) -> np.ndarray:
        """The plane of nodes in the middle."""
        return np.where(field["returnStatus"] == 2, values, np.nan).reshape(field.dims)[field.dims[0] // 2]

    def error(field: PhiField) -> np.ndarray:
        return layer(field, np.max([field[f"sigma{axis}disp"] for axis in "ZYX"], axis=0))

    made = figure(8, 2.7)
    axes = made.subplots(2, 2)
    show(axes[0, 0], images[0][22], "image 1", colours=False, cmap="gray")
    show(axes[0, 1], layer(chosen, chosen["halfWindowSize"]), "half-window size", 6)
    limits = {"vmin": 0.0, "vmax": 3 * target}
    show(axes[1, 0], error(fixed), f"sigma, -hws {benchmark.FIXED}", 6, **limits)
    show(axes[1, 1], error(chosen), f"sigma, --adaptive {target:g} -hws {most}", 6, **limits)
    save(made, "adaptive.png")


def block() -> None:
    """Correlate a block with a band across y and z, in which it is sheared along x: block-ldic.h5."""
    one = AnalyticPair((64, 120, 100), seed=9).image1().astype(np.float32)
    z, y, x = np.indices(one.shape, np.float32)
    # nothing depends on x: what moves along it comes from there
    moved = 1.6 * np.tanh(((y - 60) * np.cos(0.5) + (z - 32) * np.sin(0.5)) / 6)
    two = map_coordinates(one, [z, y, x - moved], order=3, mode="nearest")
    for name, image in (("im1", one), ("im2", two)):
        tifffile.imwrite(f"{name}.tif", np.rint(image).astype(np.uint16), photometric="minisblack")
    run("ldic", "im1.tif", "im2.tif", "-ns", "4", "-hws", "5", "-o", "3", "-pre", "block")


def slices() -> None:
    """Pictures of mpidvc plot: slices of a sheared block, and arrows over the volume of the demonstration."""
    block()
    run_alone("plot", "block-ldic.h5", "--component", "Xdisp", "dev", "returnStatus", "-o", str(IMAGES / "plot.png"))
    run("demo", ".")
    line = ["plot", "im1-im2-ldic.h5", "--quiver", "nonrigid", "--slice", "z=60"]
    run_alone(*line, "-o", str(IMAGES / "plot-quiver.png"))


def page() -> None:
    """The first screen of a report, as Chromium shows it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("page: left as it is, there is no chromium")
        return
    block()
    run_alone("report", "block-ldic.h5")
    window = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=900,1000"]
    shot = f"--screenshot={IMAGES / 'report.png'}"
    done = subprocess.run(
        [browser, *window, shot, f"file://{Path.cwd()}/block-ldic-report.html"], capture_output=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"page: {browser} ended with {done.returncode}")


def study() -> None:
    """Errors of windows on virtual states of a made volume."""
    pair = AnalyticPair((150, 150, 150), seed=1, dtype=np.float32, mean=0.4, contrast=0.1, noise=0.01)
    tifffile.imwrite("im1.tif", pair.image1(), photometric="minisblack")
    sizes = ("5", "6", "8", "10", "13", "16", "20")
    run("study", "im1.tif", "--noise", "0.01", "-hws", *sizes, "--plot", "study.png")
    shutil.copyfile("study.png", IMAGES / "study.png")


def gauge_size() -> None:
    """Amplitude that gauges leave of a wave of strain: in closed form, over voxels."""
    hws = 13
    n = 2 * hws - 1
    x = np.arange(-(hws - 1), hws)

    def mean(k: float) -> float:
        """What a window leaves of a wave of displacement with this wave number."""
        return float(np.cos(k * x).mean())

    def slope(k: float) -> float:
        """What the F of a window leaves of a wave of strain: the slope of a line through sin(k x) / k."""
        return float((x * np.sin(k * x) / k).sum() / (x**2).sum())

    def by_nodes(k: float, count: int) -> float:
        """What the line through the displacements of some nodes leaves of it; they are half a window apart."""
        places = hws * (np.arange(count) - (count - 1) / 2)
        return mean(k) * float((places * np.sin(k * places) / k).sum() / (places**2).sum())

    made = figure(5.5, 3.4)
    axes = made.subplots()
    ratios = np.geomspace(0.5, 8, 200)
    for count, title in ((1, "F of a window"), (2, "two nodes"), (5, "five nodes")):
        size = (count - 1) * hws + n
        waves = [2 * np.pi / (ratio * size) for ratio in ratios]
        left = [slope(k) if count == 1 else by_nodes(k, count) for k in waves]
        axes.semilogx(ratios, left, label=f"{title}: gauge of {size} voxels")
    axes.axhline(0.9, color="0.6", linewidth=0.8, linestyle=":")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks((0.5, 1, 2, 4, 8), ("½", "1", "2", "4", "8"))
    axes.minorticks_off()
    axes.set_xlabel("wavelength / gauge")
    axes.set_ylabel("amplitude left")
    axes.legend(fontsize=8)
    save(made, "gauge-size.png")


def eye() -> None:
    """The window of ereg on a packing of grains: as it begins, and when both images lie upon each other."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from PySide6.QtCore import Qt

    from mpidvc.gui.files import open_images
    from mpidvc.gui.start import application
    from mpidvc.gui.window import Window

    packing = AnalyticGrains((150, 190, 190), 62, seed=2, radii=(10.0, 14.0), gap=1.0, margin=14.0)
    tifffile.imwrite("im1.tif", packing.image1(), photometric="minisblack")
    motion = deformation.compute_phi((6, 14, -22), (24, -8, 10), 1.03 * np.eye(3))
    image = open_image("im1.tif")
    task = DeformTask(image, WholeMotion(motion, (np.array(image.shape) - 1) / 2, 3))
    moved = np.concatenate([task.run(chunk).planes for chunk in range(task.n_chunks)])
    tifffile.imwrite("im2.tif", np.where(moved == 0, packing.image2().min(), moved), photometric="minisblack")
    app = application()
    window = Window()
    window.show()

    def wait() -> None:
        while window.busy:
            app.processEvents()
            time.sleep(0.01)
        app.processEvents()

    def picture(name: str) -> None:
        app.processEvents()
        shown = window.grab().toImage().scaledToWidth(1200, Qt.TransformationMode.SmoothTransformation)
        shown.save(str(IMAGES / name))

    window.read(open_images("im1.tif", "im2.tif", 1))
    wait()
    model = window.model
    assert model is not None
    model.view.mode = "overlay"
    window.refresh()
    picture("ereg-begin.png")
    # as by hand: about as far as an eye sees it, and then the snaps
    model.rotate((22, -6, 8))
    model.translate((4, 12, -20))
    window.snap_translation()
    wait()
    window.snap_reg()
    wait()
    model.view.mode = "checkerboard"
    model.view.tinted = True
    window.refresh()
    picture("ereg.png")
    window.model = None
    window.close()


MADE: dict[str, Callable[[], None]] = {
    "demo": demo,
    "grains": grains,
    "grid": grid,
    "windows": windows,
    "ranking": ranking,
    "sure": sure,
    "adaptive": adaptive,
    "study": study,
    "gauge-size": gauge_size,
    "residual": residual,
    "rock": rock,
    "sandstone": sandstone,
    "plate": plate,
    "fields": fields,
    "gauges": gauges,
    "series": series,
    "slices": slices,
    "page": page,
    "eye": eye,
}
REAL = ("rock", "sandstone", "plate", "fields", "gauges")


def make(names: list[str]) -> None:
    """Make these pictures, each in a folder of its own."""
    IMAGES.mkdir(exist_ok=True)
    for name in names or MADE:
        if name in REAL and DATA is None:
            print(f"{name}: left as it is, MPIDVC_DATA is not set")
            continue
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                MADE[name]()
            finally:
                os.chdir(before)
        print(f"{name}: made")


if __name__ == "__main__":
    make(sys.argv[1:])
