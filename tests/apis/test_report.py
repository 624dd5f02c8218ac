"""Statistics against scipy's and by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mfef_mmrazor.apis.report import STUDENTS, check_last_epoch, statistics, table


def runs(**accuracies):
    """Rows of two students a seed, whose mean is the accuracy given."""
    return pd.DataFrame(
        [
            dict(method=method, seed=seed, revision='r', predictor=STUDENTS, last=value,
                 best=value + 1, train_seconds=seconds, parameters=1000, macs=2_000_000)
            for (method, values), seconds in zip(
 accuracies.items(), (10.0, 15.0, 30.0), strict=False)
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip


A = [70.0, 71.0, 70.5, 69.5, 70.2]
B = [70.9, 71.6, 71.9, 70.1, 71.1]
C = [70.1, 70.8, 70.6, 69.9, 70.0]


def test_paired_differences_interval_and_tests():
    b, c = statistics(runs(a=A, b=B, c=C), 'a')['comparisons']
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


def test_table_has_mean_deviation_and_cost():
    text = table(runs(a=A, b=B), 'a')
    row = next(line for line in text.splitlines() if line.startswith('| b |'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[1] == '5' and cells[2] == f'{np.mean(B):.2f} ± {np.std(B, ddof=1):.2f}'
    assert cells[-3:] == ['1.50', '1,000', '2.00 M']


def test_a_run_that_was_not_scored_at_its_end():
    history = [dict(epoch=epoch, student0=50.0) for epoch in (1, 2)]
    check_last_epoch(Path('results.json'), dict(epochs=2, history=history))
    with pytest.raises(ValueError, match='results.json: the last epoch that was scored is 2 of 3'):
        check_last_epoch(Path('results.json'), dict(epochs=3, history=history))


def test_the_leader_has_a_column_of_its_own():
    frame = runs(a=A)
    frame = pd.concat([frame, frame.assign(predictor='student0', last=frame['last'] + 3)])
    header, _, row = (line.split(' | ') for line in table(frame, 'a').splitlines()[:3])
    assert row[header.index('student0')].startswith(f'{np.mean(A) + 3:.2f} ± ')
    assert row[header.index('mean of students')].startswith(f'{np.mean(A):.2f} ± ')


def test_runs_of_different_revisions_are_told():
    frame = runs(a=A, b=B)
    assert 'revisions' not in table(frame, 'a')
    frame.loc[0, 'revision'] = 'q'
    assert table(frame, 'a').endswith('The runs are of different revisions: q, r.\n')


def test_another_metric_than_accuracy_is_named():
    frame = runs(a=A, b=B)
    assert 'Top-1 accuracy in percent at the last epoch' in table(frame, 'a')
    assert '\nmulti-label/mAP at the last epoch' in table(frame, 'a', 'multi-label/mAP')
    assert statistics(frame, 'a', 'multi-label/mAP')['metric'].startswith('multi-label/mAP, mean')
