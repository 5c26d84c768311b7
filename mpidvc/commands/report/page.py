"""The page of a report: HTML that needs no network, made of the facts and of the pictures.

Every number is a ``data`` element with its value and its place among the facts. All texts are escaped: names of files
may hold anything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mpidvc.commands.report.facts import Material
from mpidvc.commands.report.numbers import Number, Text, look_up, shown
from mpidvc.commands.report.pictures import Picture

__all__ = ["make_page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #ffffff; --line: #d8dee6; --box: #f4f6f9;
  --good: #1a7f4b; --bad: #b3261e; --bar: #3f7fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a3adba; --paper: #14181e; --line: #37404c;
  --box: #1e242c; --good: #5fcf95; --bad: #ff8a80; --bar: #6aa5e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.2rem 0 0.8rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.6rem; padding-top: 0.6rem; border-top: 1px solid var(--line); }
p { margin: 0.5rem 0; max-width: 60rem; }
nav { font-size: 0.85rem; margin: 0.8rem 0; }
nav a { color: inherit; margin-right: 0.9rem; white-space: nowrap; display: inline-block; }
.verdict { padding: 0.8rem 1rem; background: var(--box); border-left: 5px solid var(--good); border-radius: 4px; }
.verdict.bad { border-color: var(--bad); }
.verdict p { max-width: none; }
.soft, figcaption, caption { color: var(--soft); font-size: 0.85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.6rem 0; }
caption { text-align: left; padding-bottom: 0.2rem; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.long { min-width: 12rem; overflow-wrap: anywhere; }
.share { width: 8rem; min-width: 5rem; }
.share span { display: block; height: 0.8rem; margin-top: 0.25rem; background: var(--bar); border-radius: 2px; }
figure { margin: 0.6rem 0; }
figure .frame { overflow-x: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 4px;
  padding: 4px; display: inline-block; max-width: 100%; }
figure img { display: block; }
img.slices { max-width: 100%; min-width: 38rem; height: auto; }
img.few { min-width: 0; }
.curves { display: flex; flex-wrap: wrap; gap: 0.6rem; }
.curves figure { margin: 0; flex: 0 1 21rem; }
.curves img { width: 100%; height: auto; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
pre { background: var(--box); padding: 0.6rem 0.8rem; border-radius: 4px; overflow-x: auto; font-size: 0.8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details > summary { cursor: pointer; margin: 0.5rem 0; }
@media print { nav { display: none; } }
"""
#: Sections, by their names and titles, in their order.
SECTIONS = {
    "images": "Images and residual",
    "convergence": "Convergence",
    "displacement": "Displacement",
    "strain": "Strain",
    "errors": "Random errors",
    "histograms": "Histograms",
    "profiles": "Profiles of layers",
    "motion": "Motion of the whole",
    "study": "Noise against window",
    "series": "Series",
    "origin": "Where it comes from",
}
#: Where a result does not tell the place of a voxel.
_WHERE = {
    "grid": "there is none beyond the outermost nodes, and beside a node that did not converge",
    "labels": "there is none outside of the labels that converged",
    "points": "there is none",
    "registration": "it may lie outside of image 2",
}
#: Forms of the numbers of a table of quantities.
STATISTICS = (("mean", "mean"), ("sd", "sd"), ("min", "min"), ("q01", "1 %"), ("median", "median"), ("q99", "99 %"))
#: Rows of the table of a series that are shown.
MOST_ROWS = 400


def make_page(material: Material, pictures: Sequence[Picture]) -> str:
    """The page.

    Parameters
    ----------
    material : Material
    pictures : sequence of Picture

    Returns
    -------
    str
        HTML, in UTF-8.
    """
    return _Page(material, pictures).html()


class _Page:
    def __init__(self, material: Material, pictures: Sequence[Picture]) -> None:
        self.facts, self.material, self.pictures = material.facts, material, pictures

    def html(self) -> str:
        """The whole page."""
        made = {name: getattr(self, f"_{name}")() for name in SECTIONS}
        present = {name: body for name, body in made.items() if body}
        links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in present)
        title = escape(self.facts["title"])
        sections = "".join(
            f'<section id="{name}"><h2>{SECTIONS[name]}</h2>\n{body}</section>\n' for name, body in present.items()
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title} – mpidvc report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{title}</h1>\n{self._verdict()}\n<nav>{links}</nav>\n{sections}"
            f'<p class="soft">Made by mpidvc {escape(self.facts["version"])}. Lengths are voxels, angles degrees, '
            "axes z, y, x. All numbers of this page, with all their digits, are in the JSON file beside it.</p>\n"
            "</body>\n</html>\n"
        )

    # ---- pieces

    def _n(self, path: str, form: str = ".4g") -> str:
        """A number of the facts."""
        value = look_up(self.facts, path)
        if value is None:
            return "–"
        return (
            f'<data value="{value!r}" data-path="{escape(path)}">{escape(shown(self.facts, Number(path, form)))}</data>'
        )

    def _text(self, text: Text) -> str:
        return "".join(escape(part) if isinstance(part, str) else self._n(*part) for part in text)

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
        """A table of cells that are HTML; those that begin with a number stand on the right."""
        if not rows:
            return ""

        def line(cells: Sequence[str], kinds: Sequence[bool], tag: str) -> str:
            told = zip(cells, kinds, strict=True)
            number = ' class="n"'
            return "<tr>" + "".join(f"<{tag}{number if n else ''}>{c}</{tag}>" for c, n in told) + "</tr>"

        def numbers(row: Sequence[str]) -> list[bool]:
            return [cell.startswith(("<data", "–")) for cell in row]

        told = f"<caption>{escape(caption)}</caption>" if caption else ""
        body = "".join(line(row, numbers(row), "td") for row in rows)
        top = f"<thead>{line([escape(name) for name in head], numbers(rows[0]), 'th')}</thead>" if head else ""
        return f'<div class="wide"><table>{told}{top}<tbody>{body}</tbody></table></div>\n'

    def _shown(self, section: str) -> str:
        """The pictures of a section."""
        slices, curves = [], []
        for picture in self.pictures:
            if picture.section != section:
                continue
            kind = {"png": "image/png", "svg": "image/svg+xml"}[picture.form]
            text = escape(picture.text)
            source = f"data:{kind};base64,{base64.b64encode(picture.data).decode()}"
            if picture.form == "svg":
                curves.append(f'<figure><div class="frame"><img src="{source}" alt="{text}"></div></figure>')
            else:
                slices.append(
                    f'<figure><div class="frame"><img class="slices" src="{source}" alt="{text}">'
                    f"</div><figcaption>{text[:1].upper() + text[1:]}.</figcaption></figure>\n"
                )
        return "".join(slices) + (f'<div class="curves">{"".join(curves)}</div>\n' if curves else "")

    def _quantities(self, names: Sequence[str]) -> str:
        """Table of the statistics of quantities."""
        told = self.facts.get("quantities", {})
        rows = []
        for name in names:
            if name in told:
                # a strain has none, and says so in its title
                unit = f" ({told[name]['unit']})" if told[name]["unit"] not in ("", "strain") else ""
                numbers = [self._n(f"quantities/{name}/{key}") for key, _ in STATISTICS]
                rows.append(
                    [
                        escape(f"{told[name]['title']}{unit}"),
                        self._n(f"quantities/{name}/n", "d"),
                        *numbers,
                        self._n(f"quantities/{name}/max"),
                    ]
                )
        return self._table(["quantity", "points", *(title for _, title in STATISTICS), "max"], rows)

    # ---- sections

    def _verdict(self) -> str:
        verdict = self.facts["verdict"]
        told = "".join(self._text(sentence) for sentence in self.material.verdict)
        rest = "".join(f"<li>{escape(line)}</li>" for line in (*verdict["warnings"], *verdict["advice"]))
        kind = "verdict" if verdict["trusted"] else "verdict bad"
        return f'<div class="{kind}" id="verdict"><p>{told}</p>{f"<ul>{rest}</ul>" if rest else ""}</div>'

    def _images(self) -> str:
        facts = self.facts
        if not facts["images"]:
            return "<p>The images are not where they were, or have changed; <code>--images</code> gives them.</p>"
        rows = [
            [
                f"image {k + 1}",
                _long(image["name"]),
                " × ".join(self._n(f"images/{k}/shape/{i}", "d") for i in range(3)),
            ]
            for k, image in enumerate(facts["images"])
        ]
        told = self._table(["", "file", "voxels (z y x)"], rows)
        residual = facts["residual"]
        if residual is not None and "after" in residual:
            numbers = [
                [title, self._n(f"residual/{name}/sd")]
                for name, title in (
                    ("image_1", "image 1"),
                    ("before", "image 1 − image 2"),
                    ("after", "image 1 − image 2, pulled back by the result"),
                )
            ]
            told += self._table(["grey levels", "sd"], numbers)
            told += (
                f'<p class="soft">Over {self._n("residual/voxels", "d")} voxels of these planes; grey levels of image '
                f"2 are mapped to those of image 1 (gain {self._n('residual/gain')}, bias {self._n('residual/bias')}). "
                "Pulled back: image 2 at the place where the result finds a voxel of image 1; "
                f"{_WHERE[facts['result']['layout']]}.</p>"
            )
        elif residual is not None:
            told += '<p class="soft">The result does not tell the displacement of single voxels: no difference.</p>'
        return told + self._shown("images")

    def _convergence(self) -> str:
        facts = self.facts
        rows = []
        for k, row in enumerate(facts["statuses"]):
            bar = f'<div class="share"><span style="width:{100 * row["share"]:.2f}%"></span></div>'
            meaning = escape(row["meaning"] or "unknown")
            value, count = self._n(f"statuses/{k}/value", "+d"), self._n(f"statuses/{k}/count", "d")
            rows.append([value, meaning, bar, count, self._n(f"statuses/{k}/share", ".1%")])
        told = self._table(["return status", "meaning", "", "points", "share"], rows)
        told += self._quantities(("zncc", "pixelSearchCC", "error", "iterations"))
        return told + self._shown("convergence")

    def _displacement(self) -> str:
        names = [f"{axis}{kind}" for kind in ("disp", "nonrigid") for axis in "ZYX"]
        told = self._quantities([*names[:3], "disp", *names[3:], "nonrigid"])
        return told + self._shown("displacement")

    def _strain(self) -> str:
        facts = self.facts
        names = [name for name in facts.get("quantities", {}) if name in self.material.strain_values]
        if not names:
            return ""
        source = f'<p class="soft">Strain: {escape(facts["strain_from"])}.</p>'
        return source + self._quantities(names) + self._band() + self._shown("strain")

    def _band(self) -> str:
        band = self.facts["band"]
        if self.facts["result"]["dims"] is None:
            return "<p>Bands of localised strain are looked for on grids only.</p>"
        if band is None:
            return "<p>No band of localised strain: see the documentation of <code>mpidvc report</code>.</p>"
        axes = range(3)
        rows = [
            ["centre (z y x)", " ".join(self._n(f"band/centre/{k}", ".1f") for k in axes)],
            ["deviatoric strain above", self._n("band/threshold")],
            ["points", f"{self._n('band/points', 'd')} ({self._n('band/share', '.1%')})"],
            ["share of the deviatoric strain", self._n("band/strain_share", ".1%")],
            ["mean deviatoric strain in it, elsewhere", f"{self._n('band/mean')}, {self._n('band/rest')}"],
        ]
        if band["flat"]:
            normal = " ".join(self._n(f"band/normal/{k}", ".3f") for k in axes)
            rows[1:1] = [["normal (z y x)", normal], ["thickness (voxels)", self._n("band/thickness", ".1f")]]
        return self._table([], rows, "Band of localised strain: the largest connected region above Otsu's value")

    def _errors(self) -> str:
        names = [name for name in self.facts.get("quantities", {}) if name.startswith("sigma")]
        return self._quantities(names) + self._shown("errors") if names else ""

    def _histograms(self) -> str:
        made = self._shown("histograms")
        return f"{made}<p class='soft'>From the quantile of 1 % to that of 99 %.</p>" if made else ""

    def _profiles(self) -> str:
        made = self._shown("profiles")
        return f"{made}<p class='soft'>Mean and standard deviation of the points of each layer.</p>" if made else ""

    def _motion(self) -> str:
        motion = self.facts["motion"]
        if motion is None:
            return ""
        axes = "zyx"

        def matrix(path: str, caption: str) -> str:
            rows = [
                [f"F {axis}", *(self._n(f"motion/{path}/{i}/{k}", ".6f") for k in range(3))]
                for i, axis in enumerate(axes)
            ]
            return self._table(["", *axes], rows, caption)

        def lagrange(path: str, caption: str) -> str:
            rows = [[name, self._n(f"motion/{path}/{name}", ".3e")] for name in motion[path]]
            return self._table([], rows, caption)

        def vector(path: str, form: str) -> list[str]:
            return [self._n(f"motion/{path}/{k}", form) for k in range(3)]

        single = self.facts["result"]["points"] == 1
        lines = [
            ["centre (voxels)", *vector("centre", ".2f")],
            ["displacement of the centre (voxels)", *vector("translation", ".4f")],
            ["rotation vector (degrees)", *vector("rotation", ".4f")],
        ]
        plane = " (in the plane)" if motion["in_plane"] else ""
        left = [] if single else [["rms left by the affine fit (voxels)", self._n("motion/rms")]]
        left += [] if single else [["rms left by the rigid motion (voxels)", self._n("motion/rigid_rms")]]
        left.append(["volume change det F − 1", self._n("motion/volume", ".3e")])
        of_fit = "" if single else " of the affine fit"
        told = self._table(["", *axes], lines, "One motion for all points") + self._table([], left)
        told += '<div class="tables">' + matrix("F", f"Deformation gradient F{of_fit}")
        told += lagrange("green_lagrange", f"Green–Lagrange strain of it{plane}")
        if not single:
            told += matrix("mean_F", "Mean of the points' own F")
            told += lagrange("mean_F_green_lagrange", f"Green–Lagrange strain of it{plane}")
        return told + "</div>"

    def _tables(self, name: str) -> str:
        """A table that was read from a file."""
        table = self.facts[name]
        if table is None:
            return ""
        rows = []
        for i, row in enumerate(table["rows"][:MOST_ROWS]):
            cells = enumerate(row)
            rows.append([escape(c) if isinstance(c, str) else self._n(f"{name}/rows/{i}/{k}", ".6g") for k, c in cells])
        told = self._table(table["columns"], rows, table["file"])
        if len(table["rows"]) > MOST_ROWS:
            told += f'<p class="soft">The first {MOST_ROWS} rows; the JSON file has all.</p>'
        return self._shown(name) + told

    def _study(self) -> str:
        return self._tables("study")

    def _series(self) -> str:
        return self._tables("series")

    def _origin(self) -> str:
        facts = self.facts
        lines = [step["command_line"] for step in facts["steps"] if step["command_line"]]
        told = f"<p>Command lines:</p><pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
        for k, step in enumerate(facts["steps"]):
            rows = [[escape(name), _setting(value)] for name, value in step["settings"].items()]
            rows += [[escape(name), escape(text[:400])] for name, text in step["texts"].items()]
            run = step["run"]
            known = {name: value for name, value in run.items() if value not in (None, [])}
            for name, value in known.items():
                path = f"steps/{k}/run/{name}"
                rows.append([f"run: {name}", _setting(value) if isinstance(value, list) else self._n(path, "g")])
            if rows:
                about = f"{step['command']}: {step['file']}" if step["command"] else step["file"]
                table = self._table([], [[a, f'<div class="long">{b}</div>'] for a, b in rows])
                told += f"<details><summary>Parameters of {escape(about)}</summary>{table}</details>"
            else:
                told += f"<p>From {escape(step['file'])}, which tells no parameters.</p>"
        rows = [
            [
                _long(one["file"]),
                escape(one["command"]),
                self._n(f"files/{k}/points", "d"),
                self._n(f"files/{k}/good", "d"),
            ]
            for k, one in enumerate(facts["files"])
        ]
        told += self._table(["file", "command", "points", "good"], rows)
        told += "".join(f"<p>Not read: {escape(line)}</p>" for line in facts["refused"])
        version = escape(facts["version"])
        return told + (
            f"<p>To cite: The mpidvc developers, <i>mpidvc {version}: digital image and volume correlation</i>; with "
            "the conventions of spam (Stamati et al. 2020, doi 10.21105/joss.02286). Name the command lines above, the "
            "size of the windows and the node spacing.</p>"
        )


def _long(text: str) -> str:
    """A text that may be broken anywhere, as HTML."""
    return f'<div class="long">{escape(text)}</div>'


def _setting(value: Any) -> str:
    """A value of the settings, in words."""
    if isinstance(value, Mapping):
        return escape(", ".join(f"{name} {_plain(item)}" for name, item in value.items()))
    return escape(_plain(value))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_plain(item) for item in value)
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
