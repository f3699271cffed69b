"""How sure one can be of the difference between two programs that answered the same rows."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from dspyui.domain.base import Frozen

# With fewer rows than this that differ, hardly any interval can exclude zero: 5 of 5 better is the first that may.
FEWEST_DIFFERING = 5
# The two-sided 95 % point of the normal distribution.
_Z = 1.959963984540054
_LEVEL = 0.95
RESAMPLES = 4_999
# Of all resamples together; a table of a million rows must not take minutes.
_MOST_DRAWS = 50_000_000
_SEED = 20_241_123

Method = Literal["tango", "bootstrap", "none"]
Word = Literal["better", "worse", "unclear", "too_few"]
# What nobody should put to work unawares.
UNPROVEN: frozenset[Word] = frozenset({"worse", "unclear", "too_few"})


class Difference(Frozen):
    """Optimised minus baseline over the rows that both have a score for, with its 95 % interval.

    `pairs` counts those rows and `differing` the ones whose two scores differ. `low` and `high` are None when there is
    nothing to make an interval of (no pairs, or not one that differs among scores that are not 0 and 1).
    """

    value: float
    low: float | None
    high: float | None
    pairs: int
    differing: int
    method: Method

    @property
    def word(self) -> Word:
        """What may be said of it: an interval that holds zero says nothing, and so do too few rows that differ."""
        if self.differing < FEWEST_DIFFERING or self.low is None or self.high is None:
            return "too_few"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "unclear"


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """The mean difference of two programs' scores on the same rows, each 0.0 to 1.0, with its 95 % interval.

    Scores that are all 0 or 1 get Tango's score interval, all others the bootstrap of `bootstrap_interval`.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    differing = sum(d != 0 for d in differences)
    value = math.fsum(differences) / len(differences) if differences else 0.0
    low = high = None
    method: Method = "none"
    if differences and all(score in {0, 1} for score in (*before, *after)):
        better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        (low, high), method = tango_interval(better, worse, len(differences)), "tango"
    elif differing:
        (low, high), method = bootstrap_interval(differences), "bootstrap"
    return Difference(
        value=value, low=low, high=high, pairs=len(differences), differing=differing, method=method
    )


def tango_interval(better: int, worse: int, rows: int) -> tuple[float, float]:
    """The 95 % score interval for the difference of two paired proportions (Tango 1998, Statistics in Medicine 17).

    Of `rows` pairs, `better` went from 0 to 1 and `worse` from 1 to 0. The bounds are the differences D at which the
    score statistic

        z(D) = (better - worse - rows·D) / sqrt(rows·(2·q(D) + D·(1 - D)))

    is 1.96 and -1.96, where q(D) is the maximum-likelihood estimate of the share of pairs that went from 1 to 0, were D
    the true difference: the larger root of 2·rows·q² + (-better - worse + (2·rows - better + worse)·D)·q
    - worse·D·(1 - D) = 0. z falls as D grows, so each bound is found by halving.
    """
    return (
        _crossing(lambda d: _tango_z(better, worse, rows, d) - _Z),
        _crossing(lambda d: _tango_z(better, worse, rows, d) + _Z),
    )


def fewest_better(rows: int) -> int | None:
    """How many of `rows` 0/1 scores must get better, with none that gets worse, before `Difference` says so.

    None when even all of them are too few.
    """
    counts = range(FEWEST_DIFFERING, rows + 1)
    return next((better for better in counts if tango_interval(better, 0, rows)[0] > 0), None)


def _tango_z(better: int, worse: int, rows: int, d: float) -> float:
    b = -better - worse + (2 * rows - better + worse) * d
    c = -worse * d * (1 - d)
    q = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    variance = rows * (2 * q + d * (1 - d))
    gap = better - worse - rows * d
    if variance <= 0:
        return math.copysign(math.inf, gap) if abs(gap) > 1e-9 else 0.0
    return gap / math.sqrt(variance)


def _crossing(falling: Callable[[float], float]) -> float:
    """Where a falling function of -1 to 1 crosses zero; the end of the range when it does not."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 12)


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean difference, from scipy, with a fixed seed.

    Plain bootstrap intervals (percentile and BCa alike) cover too little here: most rows of two programs score the
    same, and in simulations they held the true difference in 86-94 % of cases at 50 rows. Two things mend that. One
    pair more is added each way, of the size (root mean square) of those that differ: what Bonett and Price (2012) do
    for proportions. And the level is the wider one of Hesterberg (2015, The American Statistician 69, expanded
    percentile interval), with Student's t in place of the normal distribution. A test holds it to 93-98 %.
    """
    import numpy as np
    from scipy import stats

    nonzero = [d for d in differences if d != 0]
    size = math.sqrt(math.fsum(d * d for d in nonzero) / len(nonzero))
    sample = np.array([*differences, size, -size])
    n = len(sample)
    t = float(stats.t.ppf((1 + _LEVEL) / 2, n - 1))
    level = 1 - 2 * float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * t))
    found = stats.bootstrap(
        (sample,),
        np.mean,
        method="percentile",
        confidence_level=level,
        n_resamples=max(999, min(RESAMPLES, _MOST_DRAWS // n)),
        batch=max(1, 2_000_000 // n),
        vectorized=True,
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return max(-1.0, float(found.low)), min(1.0, float(found.high))
