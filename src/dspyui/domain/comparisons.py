"""Whether programs that answered the same rows can be told apart, and how many rows it would take."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from dspyui.domain.base import Frozen
from dspyui.domain.intervals import Difference, paired_difference

# An adjusted p value below this one tells two programs apart.
ALPHA = 0.05
# The chance, of `rows_needed`, that a difference of the size seen is found.
POWER = 0.8
FLIPS = 9_999
# Of all flips together; a table of a million rows must not take minutes.
_MOST_DRAWS = 50_000_000
_SEED = 20_241_124
_Z = 1.959963984540054

TestMethod = Literal["mcnemar", "sign_flip"]
Verdict = Literal["first", "second", "unclear"]


class Estimate(Frozen):
    """A mean score, 0.0 to 1.0, over `rows` rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int


class PairedTest(Frozen):
    """Two of the programs compared: their places in the list, second minus first, and what may be said of it.

    `p` is the test's own p value, `adjusted` the one after Holm's correction over all pairs. `rows_needed` is how many
    rows such a difference would need to be found; None when it is found, or when there is none to be found.
    """

    first: int
    second: int
    difference: Difference
    method: TestMethod
    p: float
    adjusted: float
    rows_needed: int | None

    @property
    def verdict(self) -> Verdict:
        """Which of the two scores more; unclear when chance would do as much often enough."""
        if self.adjusted >= ALPHA:
            return "unclear"
        return "second" if self.difference.value > 0 else "first"


def paired_tests(scores: Sequence[Sequence[float]]) -> tuple[PairedTest, ...]:
    """Every pair of programs, from each one's scores (0.0 to 1.0) on the same rows in the same order.

    Scores that are all 0 or 1 get McNemar's exact test, all others the sign-flip test. With more than two programs
    each p value is adjusted by Holm's method. Nothing comes of no rows.
    """
    if not scores or not scores[0]:
        return ()
    binary = all(score in {0, 1} for program in scores for score in program)
    pairs = list(combinations(range(len(scores)), 2))
    found: list[tuple[Difference, float]] = []
    for first, second in pairs:
        differences = [b - a for a, b in zip(scores[first], scores[second], strict=True)]
        p = _mcnemar(differences) if binary else sign_flip_p(differences)
        found.append((paired_difference(scores[first], scores[second]), p))
    adjusted = holm([p for _difference, p in found])
    return tuple(
        PairedTest(
            first=first,
            second=second,
            difference=difference,
            method="mcnemar" if binary else "sign_flip",
            p=p,
            adjusted=fair,
            rows_needed=None if fair < ALPHA else _needed(scores[first], scores[second], tests=len(pairs)),
        )
        for (first, second), (difference, p), fair in zip(pairs, found, adjusted, strict=True)
    )


def _mcnemar(differences: Sequence[float]) -> float:
    return mcnemar_p(sum(d > 0 for d in differences), sum(d < 0 for d in differences))


def mcnemar_p(better: int, worse: int) -> float:
    """The two-sided p value of McNemar's exact test (McNemar 1947, Psychometrika 12), from scipy's binomial test.

    Of the pairs that differ, `better` went from 0 to 1 and `worse` from 1 to 0. Were the programs equal, each of these
    would be as likely as the other. Pairs that do not differ say nothing.
    """
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p value of Fisher's randomisation test for paired scores, from scipy, with a fixed seed.

    Were the programs equal, each row's difference would be as likely with the other sign. With up to 13 rows that
    differ all signs are tried, else 9,999 random ones, of which the p value counts the seen one too (Phipson and Smyth
    2010), so it is never 0. It asks of the mean what the interval asks, and expects no shape of the differences.
    """
    import numpy as np
    from scipy import stats

    nonzero = [d for d in differences if d != 0]
    if len(nonzero) < 2:
        # One difference is as great with the other sign.
        return 1.0
    flips = max(999, min(FLIPS, _MOST_DRAWS // len(nonzero)))
    return float(
        stats.permutation_test(
            (np.array(nonzero),),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=flips,
            batch=max(1, 2_000_000 // len(nonzero)),
            rng=np.random.default_rng(_SEED),
        ).pvalue
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p values adjusted for being several (Holm 1979, Scandinavian Journal of Statistics 6), in the same order.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none may fall below one before it, nor exceed 1.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def _needed(first: Sequence[float], second: Sequence[float], *, tests: int) -> int | None:
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n = len(differences)
    needed = rows_needed(math.fsum(differences) / n, math.fsum(d * d for d in differences) / n, tests=tests)
    # The approximation may call enough what the exact test found too few.
    return None if needed is None else max(needed, n + 1)


def rows_needed(difference: float, mean_square: float, *, tests: int = 1) -> int | None:
    """How many rows a mean difference needs to be found with a chance of 80 %; None when there is no difference.

    Connor (1987, Biometrics 43), who gives it for two proportions of the same rows:

        n = (z_alpha·sqrt(s) + z_power·sqrt(s - d²))² / d²

    where d is the difference and s the share of the rows that differ. For scores between 0 and 1 s is the mean square
    of the differences, which for 0 and 1 is that share: s and s - d² are the variances without and with a difference.
    With several `tests` z_alpha is that of the first of Holm's steps. It takes what was seen for true, so it is a
    rough figure.
    """
    from scipy.stats import norm

    if abs(difference) < 1e-9:
        return None
    alpha, power = float(norm.ppf(1 - ALPHA / (2 * tests))), float(norm.ppf(POWER))
    spread = max(0.0, mean_square - difference**2)
    return math.ceil((alpha * math.sqrt(mean_square) + power * math.sqrt(spread)) ** 2 / difference**2)


def score_estimate(scores: Sequence[float]) -> Estimate:
    """The mean of one program's scores, each 0.0 to 1.0, with its 95 % interval. Raises ValueError when there are none.

    Scores that are all 0 or 1 get Wilson's score interval (Wilson 1927, Journal of the American Statistical
    Association 22). All others get Student's t interval over the scores and two more, a 0 and a 1: what Agresti and
    Caffo (2000) do for proportions. Without them twenty equal scores would leave no doubt at all.
    """
    if not scores:
        raise ValueError("no scores")
    value = math.fsum(scores) / len(scores)
    low, high = _wilson(value, len(scores)) if all(s in {0, 1} for s in scores) else _student(scores)
    return Estimate(value=value, low=min(low, value), high=max(high, value), rows=len(scores))


def _wilson(value: float, n: int) -> tuple[float, float]:
    shrink = 1 + _Z**2 / n
    middle = (value + _Z**2 / (2 * n)) / shrink
    half = _Z / shrink * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _student(scores: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import t

    more = [*scores, 0.0, 1.0]
    n = len(more)
    mean = math.fsum(more) / n
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in more) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)
