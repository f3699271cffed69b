"""How sure one can be of a difference: known values, the edges, and a simulation of the promise of 95 %."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from dspyui.domain.intervals import (
    Difference,
    bootstrap_interval,
    fewest_better,
    paired_difference,
    tango_interval,
)

PAIRS_OF_PROGRAMS = 1_000


def test_tangos_interval_as_published() -> None:
    """Airway hyper-responsiveness before and after transplantation, in Fagerland, Lydersen and Laake (2014)."""
    assert tango_interval(1, 7, 21) == (pytest.approx(-0.517, abs=6e-4), pytest.approx(-0.026, abs=6e-4))


@pytest.mark.parametrize(("better", "worse", "rows"), [(12, 4, 50), (1, 7, 21), (30, 10, 200), (5, 0, 50)])
def test_the_bounds_are_where_the_score_statistic_is_196(better: int, worse: int, rows: int) -> None:
    """The statistic again, its nuisance parameter found by maximising the likelihood, not by the closed form."""

    def statistic(d: float) -> float:
        def unlikely(q: float) -> float:
            shares = np.array([q + d, q, 1 - 2 * q - d])
            return -float(xlogy(np.array([better, worse, rows - better - worse]), shares).sum())

        bounds = (max(0.0, -d) + 1e-12, (1 - d) / 2 - 1e-12)
        q = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return (better - worse - rows * d) / np.sqrt(rows * (2 * q + d - d * d))

    low, high = tango_interval(better, worse, rows)
    assert statistic(low) == pytest.approx(1.96, abs=1e-3)
    assert statistic(high) == pytest.approx(-1.96, abs=1e-3)
    assert tango_interval(worse, better, rows) == (pytest.approx(-high), pytest.approx(-low))


@pytest.mark.parametrize(
    ("better", "worse", "rows"), [(0, 0, 1), (1, 0, 1), (0, 9, 9), (30, 30, 60), (0, 0, 500)]
)
def test_tangos_interval_holds_the_difference_and_stays_in_range(better, worse, rows) -> None:
    low, high = tango_interval(better, worse, rows)
    assert -1 <= low <= (better - worse) / rows <= high <= 1
    assert low < high


def test_scores_of_zero_and_one_get_the_score_interval_and_others_the_bootstrap() -> None:
    assert paired_difference([0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]).method == "tango"
    found = paired_difference([0.5, 1, 0, 0, 0, 0], [0.75, 1, 1, 1, 1, 1])
    assert (found.method, found.differing, found.pairs) == ("bootstrap", 5, 6)
    assert found.value == pytest.approx(4.25 / 6)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ([0] * 20, [1] * 20, "better"),
        ([1] * 20, [0] * 20, "worse"),
        ([0, 1] * 10, [1, 0] * 10, "unclear"),
        ([0.2] * 20, [0.6] * 20, "better"),
        ([0.6] * 20, [0.2] * 20, "worse"),
        ([0.2, 0.6] * 10, [0.6, 0.2] * 10, "unclear"),
        ([0] * 4 + [1] * 50, [1] * 54, "too_few"),
        ([0.1] * 4 + [1] * 50, [1] * 54, "too_few"),
        ([1] * 50, [1] * 50, "too_few"),
        ([0.5] * 50, [0.5] * 50, "too_few"),
        ([0], [1], "too_few"),
        ([], [], "too_few"),
    ],
)
def test_what_may_be_said(before, after, word) -> None:
    found = paired_difference(before, after)
    assert found.word == word
    if found.low is not None and found.high is not None:
        assert -1 <= found.low <= found.value <= found.high <= 1


def test_without_anything_that_differs_there_is_no_bootstrap() -> None:
    assert paired_difference([0.5, 0.5], [0.5, 0.5]) == Difference(
        value=0, low=None, high=None, pairs=2, differing=0, method="none"
    )


def test_the_bootstrap_gives_the_same_interval_every_time() -> None:
    differences = [0.1, -0.2, 0.3, 0, 0, 0.5, 0.05]
    assert bootstrap_interval(differences) == bootstrap_interval(differences)


@pytest.mark.parametrize("rows", [50, 200])
@pytest.mark.parametrize("fewest", [False, True], ids=["5 to all differ", "5 differ"])
def test_the_score_interval_holds_the_true_difference(rows: int, fewest: bool) -> None:
    rng = np.random.default_rng(20_240_000 + rows + fewest)
    held = 0
    for _ in range(PAIRS_OF_PROGRAMS):
        differ = 5 / rows if fewest else rng.uniform(5 / rows, 1)
        better = differ * rng.uniform()
        after, before, _same = rng.multinomial(rows, [better, differ - better, 1 - differ])
        low, high = tango_interval(int(after), int(before), rows)
        held += low <= 2 * better - differ <= high
    assert 0.93 <= held / PAIRS_OF_PROGRAMS <= 0.98


@pytest.mark.parametrize("rows", [50, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "fewest",
    [pytest.param(False, id="5 to all differ"), pytest.param(True, id="5 differ", marks=pytest.mark.slow)],
)
def test_the_bootstrap_interval_holds_the_true_difference(rows: int, fewest: bool) -> None:
    """Rows score the same, or one program scores more by an amount of a beta distribution of any shape."""
    rng = np.random.default_rng(20_250_000 + rows + fewest)
    held = 0
    for _ in range(PAIRS_OF_PROGRAMS):
        differ = 5 / rows if fewest else rng.uniform(5 / rows, 1)
        better = rng.uniform()
        gain, loss = rng.uniform(0.5, 5, 2), rng.uniform(0.5, 5, 2)
        size = np.where(rng.uniform(size=rows) < better, rng.beta(*gain, rows), -rng.beta(*loss, rows))
        differences = np.where(rng.uniform(size=rows) < differ, size, 0.0)
        truth = differ * (better * gain[0] / gain.sum() - (1 - better) * loss[0] / loss.sum())
        if differences.any():
            low, high = bootstrap_interval(differences.tolist())
            held += low <= truth <= high
    assert 0.93 <= held / PAIRS_OF_PROGRAMS <= 0.98


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 6, 20, 36, 1000])
def test_the_fewest_that_must_get_better_are_the_first_that_show(rows: int) -> None:
    fewest = fewest_better(rows)
    words = [
        paired_difference([0.0] * rows, [1.0] * better + [0.0] * (rows - better)).word
        for better in range(rows + 1)
    ]
    assert fewest == (words.index("better") if "better" in words else None)
