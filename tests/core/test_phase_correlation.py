"""Phase correlation: against ewoksndreg's scores, the formula with complex transforms in double, and known shifts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mpidvc.core.phase_correlation import CHANCE, Match, Ranking, Reference, StackScore, ranked, working_dtype
from tests.reference.make_preeval_reference import DTYPES, NOISES, SCORES, more_stacks, stacks

THEIRS = {
    kind: {name: float(text) for name, text in scores.items()}
    for kind, scores in json.loads(SCORES.read_text()).items()
}


def score(name: str, stack: np.ndarray) -> StackScore:
    reference = Reference(stack[0])
    return StackScore.of(name, [reference.match(image) for image in stack])


def formula(first: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Magnitude of the phase correlation, by complex transforms in double."""
    spectra = [np.fft.fft2((one - one.min()) / np.ptp(one)) for one in (first.astype(float), image.astype(float))]
    power = np.conj(spectra[0]) * spectra[1]
    return np.abs(np.fft.ifft2(power / np.abs(power)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_and_ranking_of_ewoksndreg(dtype: str) -> None:
    scores = [score(name, stack) for name, stack in stacks(dtype).items()]
    limit = 1e-9 if working_dtype(np.dtype(dtype)) == np.float64 else 1e-5
    for one in scores:
        assert one.score == pytest.approx(THEIRS[dtype][one.name], rel=0, abs=limit)
    assert [one.name for one in ranked(scores[::-1])] == sorted(NOISES, key=THEIRS[dtype].__getitem__)


def test_images_of_odd_shape() -> None:
    assert score("odd", more_stacks()["odd"]).score == pytest.approx(THEIRS["more"]["odd"], rel=0, abs=1e-9)


@pytest.mark.parametrize("shape", [(16, 20), (17, 20), (16, 21), (15, 13), (1, 40), (40, 1), (2, 2)])
def test_formula(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    first, image = random.normal(size=shape), random.normal(size=shape)
    expected, found = formula(first, image), Reference(first).match(image)
    assert found.peak == pytest.approx(expected.max(), abs=1e-13)
    assert found.mean == pytest.approx(expected.mean(), abs=1e-13)
    place = np.array(np.unravel_index(expected.argmax(), shape))
    wrapped = np.where(place > (np.array(shape) - 1) // 2, place - shape, place)
    assert [found.y, found.x] == wrapped.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("shift", [(0, 0), (3, -4), (-9, 1), (8, 15)])
def test_shifts(shift: tuple[int, int], dtype: str) -> None:
    """Content that moves to higher indices has a positive shift."""
    random = np.random.default_rng(6)
    first = random.integers(0, 256, (24, 32)).astype(dtype)
    match = Reference(first).match(np.roll(first, shift, (0, 1)))
    assert (match.y, match.x, match.distinct) == (*shift, 1)
    assert match.peak == pytest.approx(1, abs=1e-5)


def test_brightness_contrast_and_extreme_values_change_nothing() -> None:
    random = np.random.default_rng(7)
    first, image = random.normal(size=(2, 20, 24))
    expected = Reference(first).match(image)
    for factor, offset in [(3.0, 50.0), (1e-300, 0), (1e300, 0), (1.7e307, -3e307)]:
        found = Reference(first * factor + offset).match(image * factor + offset)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    for factor in (1e-36, 1e37):
        pair = (np.array([first, image]) * factor).astype(np.float32)
        np.testing.assert_allclose(Reference(pair[0]).match(pair[1]), expected, rtol=0, atol=1e-4)
    # half of the range of the dtype is not enough for the difference of its limits
    ends = np.where(first > 0, 32767, -32768).astype(np.int16)
    np.testing.assert_allclose(Reference(ends).match(ends)[:2], Reference(ends / 2).match(ends / 2)[:2], atol=1e-5)


def test_integers_that_single_precision_does_not_hold() -> None:
    random = np.random.default_rng(8)
    pair = 2**30 + random.integers(0, 40, (2, 16, 16)).astype(np.int32)
    assert working_dtype(pair.dtype) == np.float64
    np.testing.assert_allclose(Reference(pair[0]).match(pair[1]), Reference(pair[0] - 2.0**30).match(pair[1] - 2.0**30))


def test_rounding_errors_have_no_phase() -> None:
    """A band-limited image: frequencies without power do not count, and the peak is that of the others."""
    y, x = np.mgrid[:32, :32]
    turns = [((k * x + m * y) % 32 / 32, k * m) for k in range(-3, 4) for m in range(-3, 4)]
    wave = sum(np.cos(2 * np.pi * turn + phase) for turn, phase in turns)
    match = Reference(wave).match(np.roll(wave, (2, 5), (0, 1)))
    assert (match.y, match.x) == (2, 5)
    # 49 frequencies of magnitude 1
    assert match.peak == pytest.approx(49 / 32**2, rel=1e-9)


def test_constant_images() -> None:
    textured = np.random.default_rng(9).normal(size=(37, 45))
    for value in (0.0, 7.0, -2.5, 1e300):
        flat = np.full_like(textured, value)
        for first, second in ((flat, flat), (flat, textured), (textured, flat)):
            match = Reference(first).match(second)
            assert match.mean - match.peak == pytest.approx(0, abs=1e-15)
            assert match.distinct == 0
    found = {name: score(name, stack).score for name, stack in more_stacks().items()}
    assert [found["constant"], found["zero"]] == pytest.approx([0, 0], abs=1e-15)
    # theirs is the score of rounding errors for the constant image, one of six
    assert found["partly constant"] == pytest.approx(THEIRS["more"]["partly constant"], abs=0.1 / 6)


def test_nan_and_infinity_are_last_in_any_order() -> None:
    given = more_stacks()
    for value in (np.nan, np.inf, -np.inf):
        given[f"first {value}"] = given["odd"].copy()
        given[f"first {value}"][0, 1, 1] = value
    scores = [score(name, stack) for name, stack in given.items()]
    bad = [one.name for one in scores if math.isnan(one.score)]
    assert bad == ["nan", "first nan", "first inf", "first -inf"]
    assert [one.name for one in ranked(scores)][-4:] == bad
    assert [one.name for one in ranked(scores[::-1])][-4:] == bad[::-1]
    assert ranked(scores)[0].name == "odd"


def test_unrelated_images_have_no_distinct_peak() -> None:
    random = np.random.default_rng(10)
    first, *others = random.normal(size=(301, 24, 24))
    reference = Reference(first)
    assert sum(reference.match(image).distinct for image in others) <= 300 * CHANCE * 5
    # a weak relation is found
    assert reference.match(0.5 * first + others[0]).distinct == 1


def test_numbers_of_a_stack() -> None:
    matches = [Match(1.0, 0.1, 0, 0, 1.0), Match(0.5, 0.1, 2, 3, 1.0), Match(0.3, 0.1, 2, 3, 0.0)]
    found = StackScore.of("a", matches)
    assert found.score == pytest.approx((0.1 * 3 - 1.8) / 3)
    assert found.ratio == pytest.approx(4)
    assert found.distinct == 0.5
    # a stack of one image has no other
    alone = StackScore.of("b", matches[:1])
    assert (alone.score, alone.ratio, alone.distinct) == (pytest.approx(-0.9), pytest.approx(10), 1)
    ranking = Ranking("a", [found, alone])
    assert ranking.names == ["a", "b"]
    assert Ranking(None, None).names is None
