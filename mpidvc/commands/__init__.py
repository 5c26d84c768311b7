"""The commands, a package each, and their table."""

from __future__ import annotations

from mpidvc.cli.command import Command

__all__ = ["COMMANDS"]

_EYE, _CORRELATION, _FIELDS, _PICTURES = "By eye", "Correlation", "Fields", "Pictures"
_RUNS, _FIRST_STEPS = "Runs", "First steps"

#: By name, in the order of the help.
COMMANDS = {
    command.name: command
    for command in (
        Command(
            "ereg",
            "mpidvc.commands.ereg",
            "bring two images together by eye, in a window: a first guess for reg",
            _EYE,
            "PhiField with the Phi that was saved last, or None",
        ),
        Command(
            "reg",
            "mpidvc.commands.reg",
            "register two images: one deformation function for the whole image",
            _CORRELATION,
        ),
        Command(
            "ldic",
            "mpidvc.commands.ldic",
            "local correlation: a deformation function at every node of a grid",
            _CORRELATION,
            "PhiField, or a list with one for each pair of a series",
        ),
        Command(
            "pixelSearch",
            "mpidvc.commands.pixel_search",
            "integer displacements at every node of a grid: a first guess",
            _CORRELATION,
        ),
        Command(
            "pixelSearchPropagate",
            "mpidvc.commands.pixel_search_propagate",
            "the same from a starting point on: the guess travels over the whole image",
            _CORRELATION,
        ),
        Command(
            "ddic",
            "mpidvc.commands.ddic",
            "discrete correlation: a deformation function for every label",
            _CORRELATION,
        ),
        Command(
            "preeval",
            "mpidvc.commands.preeval",
            "rank stacks of 2D images: which one phase correlation will align best",
            _CORRELATION,
            "Ranking: the reference stack, and the scores of all stacks from best to worst",
        ),
        Command(
            "filterPhiField",
            "mpidvc.commands.filter_phi_field",
            "find bad points of a field, correct them from their neighbours, or smooth the field",
            _FIELDS,
        ),
        Command(
            "passPhiField",
            "mpidvc.commands.pass_phi_field",
            "pass a registration or a field to the nodes of another grid, or to labels",
            _FIELDS,
        ),
        Command(
            "regularStrain",
            "mpidvc.commands.regular_strain",
            "strain from the displacements of a field",
            _FIELDS,
        ),
        Command(
            "gauge",
            "mpidvc.commands.gauge",
            "virtual extensometers, and means over regions, of a field or a series of them",
            _FIELDS,
            "list of Reading: state, file, gauge, points, independent, quantity, value, error",
        ),
        Command(
            "deformImage",
            "mpidvc.commands.deform_image",
            "deform an image by a registration or a field; compare it with another one",
            _FIELDS,
            "Deformed: the files written, and the statistics of the residual",
        ),
        Command(
            "run",
            "mpidvc.commands.run",
            "from two scans to strain, residual and report: all steps, one after the other",
            _RUNS,
            "PhiField, or a list with one for each pair of a series",
        ),
        Command(
            "suggest",
            "mpidvc.commands.suggest",
            "say which window and node spacing to take, by texture, noise and field",
            _RUNS,
            "Suggestion",
        ),
        Command(
            "study",
            "mpidvc.commands.study",
            "measure the errors of windows of several sizes, on a repeat scan or on virtual states",
            _RUNS,
            "Study",
        ),
        Command(
            "plot",
            "mpidvc.commands.plot",
            "draw slices of a result: displacement, strain, statuses; compare two results",
            _PICTURES,
            "Path of the picture",
        ),
        Command(
            "report",
            "mpidvc.commands.report",
            "judge a result in a page (HTML) with pictures and all numbers, and in JSON",
            _PICTURES,
            "dict: the numbers of the report",
        ),
        Command(
            "plan",
            "mpidvc.commands.plan",
            "say what a run will take: time on many ranks, memory, files",
            _RUNS,
            "Estimate of the run",
        ),
        Command(
            "job",
            "mpidvc.commands.job",
            "print a job script for a cluster; submit it",
            _RUNS,
            "the script",
        ),
        Command(
            "status",
            "mpidvc.commands.status",
            "say how far the run of a results file (.h5) is",
            _RUNS,
            "list of State, one for each file",
        ),
        Command(
            "doctor",
            "mpidvc.commands.doctor",
            "check what a run needs here: MPI, HDF5, memory; and say how to mend it",
            _RUNS,
            "list of Finding",
        ),
        Command(
            "demo",
            "mpidvc.commands.demo",
            "try it: make two images, correlate them, compare with the known truth",
            _FIRST_STEPS,
            "Errors of the displacement found",
        ),
    )
}
