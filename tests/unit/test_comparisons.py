"""Whether programs can be told apart: values of books and tables, the edges, and simulations of what is promised."""

import numpy as np
import pytest
from scipy import stats

from dspyui.domain.comparisons import (
    ALPHA,
    holm,
    mcnemar_p,
    paired_tests,
    rows_needed,
    score_estimate,
    sign_flip_p,
)


def test_mcnemars_exact_test_as_published() -> None:
    """Airway hyper-responsiveness, 1 and 7 of 21 pairs, in Fagerland, Lydersen and Laake (2013): P = 0.0703."""
    assert mcnemar_p(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_p(7, 1) == mcnemar_p(1, 7)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (5, 0, 2 / 2**5), (6, 0, 2 / 2**6), (9, 1, 22 / 2**10)],
)
def test_mcnemars_p_value_is_counted_from_coin_throws(better: int, worse: int, p: float) -> None:
    assert mcnemar_p(better, worse) == pytest.approx(p)


def test_holms_method_as_in_the_textbook() -> None:
    """Four tests; the third would fall below the second, and is kept at its height."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([0.03]) == (0.03,)
    assert holm([]) == ()


def test_the_sign_flip_test_counts_every_sign_of_few_rows() -> None:
    """Darwin's maize, in Fisher (1935), §21: 863 of 32,768 sums are as great, doubled for both sides 0.05267."""
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip_p([d / 100 for d in maize]) == pytest.approx(2 * 863 / 2**15, abs=0.006)
    assert sign_flip_p([0.1, 0.2, 0.3, 0.0]) == pytest.approx(2 / 2**3)
    assert sign_flip_p([0.0, 0.0]) == 1.0


def test_the_sign_flip_test_gives_the_same_p_value_every_time_and_never_zero() -> None:
    differences = [0.1, 0.2, 0.3] * 20
    assert 0 < sign_flip_p(differences) < 0.001
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_of_zeros_and_ones_the_sign_flip_test_is_mcnemars() -> None:
    assert sign_flip_p([1.0] * 7 + [-1.0] * 3) == pytest.approx(mcnemar_p(7, 3))


def test_the_rows_needed_as_published() -> None:
    """Connor's formula worked by hand for a difference of 0.1 of which 0.2 differ; 80 % power."""
    assert rows_needed(0.1, 0.2) == 155
    assert rows_needed(-0.1, 0.2) == 155
    assert rows_needed(0.0, 0.2) is None
    assert (rows_needed(0.1, 0.2, tests=3) or 0) > 155


@pytest.mark.parametrize(("better", "worse"), [(0.15, 0.05), (0.25, 0.1), (0.08, 0.02)])
def test_so_many_rows_find_such_a_difference_four_times_in_five(better: float, worse: float) -> None:
    """The exact test finds a little less than the formula's normal one."""
    needed = rows_needed(better - worse, better + worse)
    assert needed is not None
    rng = np.random.default_rng(7)
    drawn = rng.multinomial(needed, [better, worse, 1 - better - worse], size=2_000)
    found = sum(mcnemar_p(int(up), int(down)) < ALPHA for up, down, _same in drawn) / len(drawn)
    assert 0.70 <= found <= 0.87


def test_graded_scores_too_find_it_four_times_in_five() -> None:
    rng = np.random.default_rng(8)
    size = rng.normal(0.06, 0.25, 1_000_000)
    needed = rows_needed(float(size.mean()), float((size**2).mean()))
    assert needed is not None
    found = sum(stats.ttest_1samp(rng.normal(0.06, 0.25, needed), 0).pvalue < ALPHA for _ in range(2_000))
    assert 0.75 <= found / 2_000 <= 0.85


@pytest.mark.parametrize("rows", [30, 100])
def test_equal_programs_are_told_apart_in_five_of_a_hundred_at_most(rows: int) -> None:
    """Three programs of the same scores: one false alarm among the three pairs is one too many."""
    rng = np.random.default_rng(rows)
    alarms = 0
    for _ in range(400):
        scores = (rng.uniform(size=(3, rows)) < 0.6).astype(float)
        alarms += any(test.verdict != "unclear" for test in paired_tests(scores.tolist()))
    assert alarms / 400 <= 0.07


@pytest.mark.slow
def test_the_sign_flip_test_is_wrong_in_five_of_a_hundred() -> None:
    rng = np.random.default_rng(3)
    wrong = sum(sign_flip_p(rng.uniform(-1, 1, 12).tolist()) < ALPHA for _ in range(600))
    assert 0.03 <= wrong / 600 <= 0.07


def test_two_programs_that_differ_are_told_apart() -> None:
    (test,) = paired_tests([[0] * 10 + [1] * 10, [1] * 20])
    assert (test.first, test.second, test.method, test.verdict) == (0, 1, "mcnemar", "second")
    assert test.difference.value == 0.5
    assert test.p == test.adjusted == pytest.approx(2 / 2**10)
    assert test.rows_needed is None
    (other,) = paired_tests([[1] * 20, [0] * 10 + [1] * 10])
    assert other.verdict == "first"


def test_two_that_cannot_be_told_apart_say_how_many_rows_would_do() -> None:
    (test,) = paired_tests([[0, 0, 0, 1] + [1] * 16, [1, 1, 1, 0] + [1] * 16])
    assert test.verdict == "unclear"
    assert test.rows_needed == rows_needed(0.1, 0.2) == 155
    (same,) = paired_tests([[1, 0], [0, 1]])
    assert (same.verdict, same.rows_needed, same.p) == ("unclear", None, 1.0)


def test_what_was_too_little_needs_more_than_there_was() -> None:
    """Five of five better: the normal formula would call six rows enough, which the exact test does not."""
    (test,) = paired_tests([[0] * 5, [1] * 5])
    assert test.verdict == "unclear"
    assert test.rows_needed == 6


def test_graded_scores_get_the_sign_flip_test_and_three_programs_holms_correction() -> None:
    tests = paired_tests([[0.1] * 12, [0.5] * 12, [0.5] * 11 + [0.6]])
    assert [(test.first, test.second) for test in tests] == [(0, 1), (0, 2), (1, 2)]
    assert {test.method for test in tests} == {"sign_flip"}
    assert tests[0].adjusted == pytest.approx(min(1, 3 * tests[0].p))
    assert tests[2].p == tests[2].adjusted == 1.0
    assert [test.verdict for test in tests] == ["second", "second", "unclear"]


def test_nothing_comes_of_no_rows() -> None:
    assert paired_tests([[], []]) == ()
    assert paired_tests([]) == ()
    with pytest.raises(ValueError, match="no scores"):
        score_estimate([])


def test_wilsons_interval_is_scipys_and_newcombes() -> None:
    """15 of 148 in Newcombe (1998): 0.0624 to 0.1605."""
    found = score_estimate([1.0] * 15 + [0.0] * 133)
    assert (found.low, found.high) == (pytest.approx(0.0624, abs=5e-5), pytest.approx(0.1605, abs=5e-5))
    for right, rows in ((0, 20), (20, 20), (7, 9)):
        known = stats.binomtest(right, rows).proportion_ci(method="wilson")
        made = score_estimate([1.0] * right + [0.0] * (rows - right))
        assert (made.low, made.high) == (pytest.approx(known.low), pytest.approx(known.high))


@pytest.mark.parametrize("rows", [15, 50, 200])
def test_the_interval_of_graded_scores_holds_the_true_score(rows: int) -> None:
    """As metrics give them: a share of zeros, a share of ones, and between them a beta distribution of any shape."""
    rng = np.random.default_rng(rows)
    held = 0
    for _ in range(2_000):
        zeros, ones, between = rng.dirichlet((1, 1, 1))
        a, b = rng.uniform(0.4, 5, 2)
        kind = rng.choice(3, rows, p=(zeros, ones, between))
        scores = np.where(kind == 0, 0.0, np.where(kind == 1, 1.0, rng.beta(a, b, rows)))
        found = score_estimate(scores.tolist())
        held += found.low <= ones + between * a / (a + b) <= found.high
    assert 0.93 <= held / 2_000 <= 0.985


def test_equal_scores_leave_a_doubt() -> None:
    found = score_estimate([0.5] * 20)
    assert (found.value, found.rows) == (0.5, 20)
    assert 0 < found.low < 0.5 < found.high < 1
