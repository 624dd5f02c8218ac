"""Statistics against scipy's and by hand."""

import numpy as np
import pandas as pd
import pytest
from accuracies import A, B, C, runs
from scipy import stats

from mfef_mmrazor.apis.report.significance import statistics


def test_paired_differences_interval_and_tests():
    b, _c = statistics(runs(a=A, b=B, c=C), 'a')['comparisons']
    differences = np.subtract(B, A)
    assert b['differences'] == pytest.approx(differences) and b['seeds'] == [0, 1, 2, 3, 4]
    assert b['t_test']['p'] == pytest.approx(stats.ttest_rel(B, A).pvalue)
    assert b['wilcoxon']['p'] == pytest.approx(2 / 2**5)  # exact: all five signs alike
    half = 2.7764451 * differences.std(ddof=1) / np.sqrt(5)
    assert b['interval_95'] == pytest.approx([differences.mean() - half, differences.mean() + half])


def test_holm_over_all_comparisons():
    b, c = statistics(runs(a=A, b=B, c=C), 'a')['comparisons']
    assert b['t_test']['p'] < c['t_test']['p']
    assert b['t_test']['p_holm'] == pytest.approx(2 * b['t_test']['p'])
    assert c['t_test']['p_holm'] == pytest.approx(c['t_test']['p'])


def test_too_few_seeds_has_no_p_value():
    (b,) = statistics(runs(a=A[:4], b=B[:4]), 'a')['comparisons']
    assert b['t_test'] == b['wilcoxon'] == 'too few seeds' and len(b['interval_95']) == 2
    (one,) = statistics(runs(a=A[:1], b=B[:1]), 'a')['comparisons']
    assert one['n'] == 1 and 'interval_95' not in one


def test_only_seeds_that_both_have_are_paired():
    (b,) = statistics(runs(a=A, b=B[:3]), 'a')['comparisons']
    assert b['seeds'] == [0, 1, 2]


def test_no_difference_at_all_is_no_nan():
    (b,) = statistics(runs(a=A, b=A), 'a')['comparisons']
    assert b['t_test'] == b['wilcoxon'] == dict(p=1.0, p_holm=1.0)


def test_differences_without_variance_have_no_t_test():
    (b,) = statistics(runs(a=A, b=[x + 0.1 for x in A]), 'a')['comparisons']
    assert b['t_test'] == 'no variance' and 'interval_95' not in b
    assert b['wilcoxon']['p'] == pytest.approx(2 / 2**5)  # by their signs alone


def test_a_difference_of_none_at_one_seed_is_left_out_by_wilcoxon_alone():
    differences = [0.0, 0.1, 0.2, -0.3, 0.4, 0.5]
    ahead = [70.0 + d for d in differences]
    (b,) = statistics(runs(a=[70.0] * 6, b=ahead), 'a')['comparisons']
    assert b['t_test']['p'] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    # exact: of the signs of ranks 1 to 5, five choices have a negative sum of 3 or less
    assert b['wilcoxon']['p'] == pytest.approx(2 * 5 / 2**5)


def test_what_floating_point_adds_is_no_difference_and_breaks_no_tie():
    one = [(90.1 + 90.3) / 2 + step for step in range(6)]
    other = [(90.2 + 90.2) / 2 + step for step in range(6)]
    assert one != other
    (b,) = statistics(runs(a=one, b=other), 'a')['comparisons']
    assert b['t_test']['p'] == b['wilcoxon']['p'] == 1.0
    ahead = [x + d for x, d in zip(one, (0.1, -0.1, 0.2, 0.2, 0.3, 0.3), strict=True)]
    (c,) = statistics(runs(a=one, b=ahead), 'a')['comparisons']
    exact = stats.wilcoxon([1, -1, 2, 2, 3, 3]).pvalue
    assert c['wilcoxon']['p'] == pytest.approx(exact)


def test_blocks_have_comparisons_of_their_own():
    grid = pd.concat([runs('x', a=A, b=B), runs('y', a=C, b=A), runs('z', b=C)])
    found = statistics(grid, 'a')['blocks']
    assert found['x'] == statistics(runs(a=A, b=B), 'a')['comparisons']
    assert found['y'] == statistics(runs(a=C, b=A), 'a')['comparisons']
    assert found['z'] == []  # the baseline is not of it
