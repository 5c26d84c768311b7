"""Study of the errors of windows: measured on a repeat scan or on virtual states, and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.window_choice import power_law
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.runtime.executor import Executor, Task
from mpidvc.tasks.ranks import on_leader
from mpidvc.tasks.trial import Group, Look, Registered, TrialTask, Virtual, VirtualTask, groups_in
from mpidvc.workflow.guess import Guess
from mpidvc.workflow.suggest import registration_settings
from mpidvc.workflow.window_trials import FEWEST, Errors, Noise, mask_noise, noise_of_pair, predicted, white_noise

__all__ = ["Inputs", "Row", "Study", "cases_of", "study"]

#: Sub-voxel displacements of virtual states, in eighths of a voxel: every axis meets each of them once.
STEPS = 8
EACH = np.array([1, 3, 5])
#: Stretch across the direction of a virtual strain, over that along it.
POISSON = 0.3


@dataclass(frozen=True)
class Inputs:
    """What is studied.

    Attributes
    ----------
    image : Image
    repeat : Image or None
        A second scan of the same state.
    noise : float or None
        Standard deviation of white noise, grey levels.
    noise_mask : Image or None
    sizes : tuple of int
        Half-window sizes, in rising order.
    order : {1, 3}
        Of the interpolation.
    virtual : bool
        Whether virtual states are correlated, and not the repeat scan.
    strain : float
        Of the virtual states that are strained; 0: there is none.
    """

    image: Image
    sizes: tuple[int, ...]
    repeat: Image | None = None
    noise: float | None = None
    noise_mask: Image | None = None
    order: int = 3
    virtual: bool = False
    strain: float = 0.0


@dataclass(frozen=True)
class Row:
    """Errors of a window of ``ldic -hws`` of this size.

    Attributes
    ----------
    hws : int
    nodes : int
        Registrations that were tried.
    converged : float
        Share of them.
    bias : tuple of 3 floats
        Largest mean error of a case along z, y, x, voxels; nan with a repeat scan, whose truth is not known.
    sigma, predicted : tuple of 3 floats
        Standard deviation of the displacement along z, y, x, voxels: observed, and as predicted.
    sigma_f, predicted_f : float
        The same of F, root mean square of its components.
    strain_mean, strain_sd : float
        Mean and standard deviation over the nodes of the mean absolute error of the six components of the strain (Liu
        and Morgan 2007, doi 10.1016/j.jbiomech.2007.04.019: MAER and SDER).
    seconds : float
        CPU seconds of a point.
    """

    hws: int
    nodes: int
    converged: float
    bias: tuple[float, ...]
    sigma: tuple[float, ...]
    predicted: tuple[float, ...]
    sigma_f: float
    predicted_f: float
    strain_mean: float
    strain_sd: float
    seconds: float

    @property
    def ratio(self) -> float:
        """Observed over predicted standard deviation of the displacement."""
        return rms(self.sigma) / rms(self.predicted) if rms(self.predicted) > 0 else math.nan


@dataclass(frozen=True)
class Study:
    """Errors of windows of several sizes.

    Attributes
    ----------
    source : str
        What was correlated.
    noise_source : str
        Where the noise is known from.
    noise_deviation, noise_correlation : float
        Standard deviation of an image's noise, grey levels, and correlation of neighbouring voxels.
    drift : tuple of float or None
        Of a repeat scan: mean displacement along z, y, x in voxels, and mean stretch less 1.
    law, law_f : tuple of (float, float)
        Factor and exponent of the standard deviations of displacement and F as powers of the edge of a window.
    two_d : bool
    rows : tuple of Row
    """

    source: str
    noise_source: str
    noise_deviation: float
    noise_correlation: float
    drift: tuple[float, ...] | None
    law: tuple[float, float]
    law_f: tuple[float, float]
    two_d: bool
    rows: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has neither nan nor infinity."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(one) for name, one in value.items()}
            if isinstance(value, list | tuple):
                return [plain(one) for one in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {name: plain(value) for name, value in asdict(self).items()}


def rms(values: Sequence[float]) -> float:
    """Root mean square of those that are not 0, as the component along z is in 2D."""
    given = np.array([value for value in values if value != 0])
    return float(np.sqrt(np.mean(given**2))) if len(given) else 0.0


def cases_of(strain: float, two_d: bool) -> Array:
    """Phi (cases, 4, 4) of the virtual states: seven sub-voxel displacements, and a strain if it is not 0.

    The strain is one along the first axis, with transverse ones of opposite sign.
    """
    phis = np.tile(np.eye(4), (STEPS - 1 + (strain != 0), 1, 1))
    for k in range(1, STEPS):
        phis[k - 1, :3, 3] = np.mod(EACH * k, STEPS) / STEPS
    if strain != 0:
        along = 1 if two_d else 0
        for axis in range(3):
            phis[-1, axis, axis] = 1 + strain * (1 if axis == along else -POISSON)
    if two_d:
        phis[:, 0, 3] = 0
        phis[:, 0, 0] = 1
    return phis


def study(inputs: Inputs, executor: Executor) -> Study:
    """Study windows; every rank calls it, with the same inputs.

    Raises
    ------
    AgreedError
        On every rank, if windows of the repeat scan do not converge, or a mask shows too little.
    """
    image, largest = inputs.image, inputs.sizes[-1]
    groups = groups_in(image, largest)
    others: list[tuple[Image, RegistrationSettings]] = []
    guesses = []
    if inputs.repeat is not None:
        settings = executor.broadcast(
            registration_settings(image, inputs.repeat, groups, Guess(), inputs.order) if executor.rank == 0 else None
        )
        others.append((inputs.repeat, settings))
        guesses.append([np.tile(np.eye(4), (len(group.nodes), 1, 1)) for group in groups])
    task = TrialTask(image, others, groups, guesses, inputs.sizes, largest, inputs.order)
    looks: list[Look] = _map(executor, task)
    noise = on_leader(executor, lambda: _noise(inputs, looks, task.pilot))
    if not inputs.virtual:
        return on_leader(executor, lambda: _of_repeat(inputs, groups, looks, noise))
    phis = cases_of(inputs.strain, image.two_d)
    plain = RegistrationSettings(order=inputs.order, criterion="ssd")
    virtual = VirtualTask(image, Virtual(phis, noise.image), groups, inputs.sizes, largest, plain)
    found: list[list[Registered]] = _map(executor, virtual)
    return on_leader(executor, lambda: _of_virtual(inputs, groups, looks, noise, phis, found))


def _map(executor: Executor, task: Task) -> list[Any]:
    """Results of all chunks in their order on rank 0; nothing on the others."""
    found: dict[int, Any] = {}
    executor.map(task, found.__setitem__ if executor.rank == 0 else None)
    return [found[k] for k in range(task.n_chunks)] if executor.rank == 0 else []


def _noise(inputs: Inputs, looks: Sequence[Look], pilot: int) -> Noise:
    two_d = inputs.image.two_d
    if inputs.repeat is not None:
        used = np.ones(sum(len(look.means) for look in looks), bool)
        found = noise_of_pair(looks, 0, pilot, "the residual of the repeat scan", used, inputs.order)
        if found is None:
            raise UserError(
                f"--repeat {inputs.repeat.path}: fewer than {FEWEST} windows converge; give a second scan of the same "
                "state, which has not moved by more than some voxels"
            )
        return found
    if inputs.noise_mask is not None:
        return mask_noise(inputs.image, inputs.noise_mask, inputs.order)
    assert inputs.noise is not None
    return white_noise(inputs.noise, two_d, inputs.order)


def _of_repeat(inputs: Inputs, groups: Sequence[Group], looks: Sequence[Look], noise: Noise) -> Study:
    """Of a repeat scan: errors are what differs from the best affine motion, as of a stage that drifts."""
    errors = predicted(looks, noise, inputs.order)
    nodes = np.concatenate([group.nodes for group in groups]).astype(np.float64)
    found = [look.registered[0] for look in looks]
    u, F = (np.concatenate([getattr(one, name) for one in found]) for name in ("displacements", "F"))
    rows, drift = [], None
    for k, hws in enumerate(inputs.sizes):
        good = np.isfinite(u[:, k]).all(axis=1)
        X = np.concatenate([nodes - nodes.mean(axis=0), np.ones((len(nodes), 1))], axis=1)
        motion = np.linalg.lstsq(X[good], u[good, k], rcond=None)[0] if good.sum() > 4 else np.zeros((4, 3))
        drift = (*motion[3].tolist(), float(np.trace(motion[:3]) / (2 if inputs.image.two_d else 3)))
        error = u[:, k] - X @ motion
        # the fit takes some of the errors off
        count = max(int(good.sum()) - (3 if inputs.image.two_d else 4), 1)
        scale = math.sqrt(good.sum() / count)
        seconds = sum(one.seconds[k] for one in found) / len(nodes)
        of_f = F[:, k] - np.eye(3) - motion[:3].T
        rows.append(_row(inputs, hws, error[None] * scale, of_f[None], errors, math.nan, seconds))
    return _study(inputs, f"the repeat scan {inputs.repeat.path}", noise, drift, rows)  # type: ignore[union-attr]


def _of_virtual(
    inputs: Inputs,
    groups: Sequence[Group],
    looks: Sequence[Look],
    noise: Noise,
    phis: Array,
    found: Sequence[Sequence[Registered]],
) -> Study:
    """Of virtual states, whose motion is known."""
    errors = predicted(looks, Noise(noise.source, noise.image, noise.residual), inputs.order)
    from_middle = np.concatenate([group.nodes - group.centre for group in groups]).astype(np.float64)
    rows = []
    for k, hws in enumerate(inputs.sizes):
        u = np.stack([np.concatenate([one[case].displacements[:, k] for one in found]) for case in range(len(phis))])
        F = np.stack([np.concatenate([one[case].F[:, k] for one in found]) for case in range(len(phis))])
        truth = np.einsum("cij,nj->cni", phis[:, :3, :3] - np.eye(3), from_middle) + phis[:, None, :3, 3]
        seconds = sum(float(one[case].seconds[k]) for one in found for case in range(len(phis)))
        each = seconds / (len(phis) * len(from_middle))
        rows.append(_row(inputs, hws, u - truth, F - phis[:, None, :3, :3], errors, 0.0, each))
    what = f"{STEPS - 1} virtual displacements" + (f" and a strain of {inputs.strain:g}" if inputs.strain else "")
    return _study(inputs, f"{what} of {inputs.image.path}", noise, None, rows)


def _row(inputs: Inputs, hws: int, u: Array, F: Array, errors: Errors, known: float, seconds: float) -> Row:
    """A row from the errors (cases, n, 3) and (cases, n, 3, 3), nan where not converged; `known`: nan without truth."""
    two_d = inputs.image.two_d
    axes = slice(1, 3) if two_d else slice(0, 3)
    good = np.asarray(np.isfinite(u).all(axis=2))
    nothing = (math.nan,) * 3
    used = np.ones(u.shape[1], bool)
    expected = errors.mean_square(hws, used)
    expected_f = float(np.sqrt(np.nanmean(errors.F[:, hws, axes, axes] ** 2)))
    if not good.any():
        return Row(
            hws, good.size, 0.0, nothing, nothing, tuple(expected), math.nan, expected_f, *(math.nan,) * 2, seconds
        )
    means = np.array([np.mean(e[g], axis=0) for e, g in zip(u, good, strict=True) if g.any()])
    means_f = np.array([np.mean(e[g], axis=0) for e, g in zip(F, good, strict=True) if g.any()])
    some = [case for case in range(len(u)) if good[case].any()]
    left = np.concatenate([u[case][good[case]] - means[k] for k, case in enumerate(some)])
    left_f = np.concatenate([F[case][good[case]] - means_f[k] for k, case in enumerate(some)])[:, axes, axes]
    # the mean of every case takes a part of the variance
    share = math.sqrt(len(left) / max(len(left) - len(some), 1))
    strain = np.concatenate([F[case][good[case]] for case in some])[:, axes, axes]
    strain = 0.5 * (strain + np.swapaxes(strain, 1, 2))
    upper = np.triu_indices(strain.shape[1])
    absolute = np.abs(strain[:, upper[0], upper[1]]).mean(axis=1)
    return Row(
        hws=hws,
        nodes=int(good.size),
        converged=float(good.mean()),
        bias=tuple((np.abs(means).max(axis=0) + known).tolist()),
        sigma=tuple((left.std(axis=0) * share).tolist()),
        predicted=tuple(expected.tolist()),
        sigma_f=float(np.sqrt((left_f**2).mean()) * share),
        predicted_f=expected_f,
        strain_mean=float(absolute.mean()),
        strain_sd=float(absolute.std()),
        seconds=float(seconds),
    )


def _study(inputs: Inputs, source: str, noise: Noise, drift: tuple[float, ...] | None, rows: Sequence[Row]) -> Study:
    sizes = [row.hws for row in rows]
    return Study(
        source=source,
        noise_source=noise.source,
        noise_deviation=noise.deviation,
        noise_correlation=noise.correlation,
        drift=drift,
        law=power_law(sizes, [rms(row.sigma) for row in rows]),
        law_f=power_law(sizes, [row.sigma_f for row in rows]),
        two_d=inputs.image.two_d,
        rows=tuple(rows),
    )
