"""What is read from stored runs."""

import math
from pathlib import Path

import pytest

from mfef_mmrazor.apis.comparison import Entry
from mfef_mmrazor.apis.report.runs import (
    STUDENTS,
    check_last_epoch,
    check_seed,
    numbers,
    unfinished,
)


def test_a_run_that_was_not_scored_at_its_end():
    history = [dict(epoch=epoch, student0=50.0) for epoch in (1, 2)]
    check_last_epoch(Path('results.json'), dict(epochs=2, history=history))
    with pytest.raises(ValueError, match='results.json: the last epoch that was scored is 2 of 3'):
        check_last_epoch(Path('results.json'), dict(epochs=3, history=history))


def test_results_of_another_seed_than_the_folders_are_a_copy():
    check_seed(Path('runs/a/seed7/results.json'), dict(seed=7))
    with pytest.raises(ValueError, match='runs/a/seed7 has the results of seed 0, expected'):
        check_seed(Path('runs/a/seed7/results.json'), dict(seed=0))


def test_runs_that_are_not_finished_are_named(tmp_path):
    entries = [Entry(name, name, '', f'{name}.py') for name in ('a', 'b', 'kdcl', 'failed')]
    for run in ('a/seed0', 'a/seed3', 'kdcl/seed0', 'failed/seed3'):
        (tmp_path / 'runs' / run).mkdir(parents=True)
    (tmp_path / 'runs/a/seed0_backup').mkdir()
    for run in ('a/seed0', 'a/seed3', 'kdcl/seed0'):
        (tmp_path / 'runs' / run / 'results.json').touch()
    assert unfinished(tmp_path, entries[:1]) == []
    assert unfinished(tmp_path, entries) == [
        'b (all seeds)', 'kdcl (seed 3)', 'failed (all seeds)'
    ]  # fmt: skip
    # the seeds of other networks and data sets are not asked of it
    other = Entry('kdcl', 'kdcl', 'other', 'kdcl.py')
    assert unfinished(tmp_path, [entries[0], other]) == []


@pytest.mark.parametrize('none', [None, math.nan])
def test_an_accuracy_that_is_no_number(none):
    scores = dict(student0=70.0, student1=none)
    results = dict(
        seed=0, git_revision='r', train_seconds=1.0, deployed={}, students={},
        predictors={
            name: dict(last=dict(accuracy=x), best=dict(accuracy=x)) for name, x in scores.items()
        },
    )  # fmt: skip
    rows = numbers([(Entry('a', 'a', '', 'a.py'), results)]).set_index('predictor')
    assert rows.loc['student0', 'last'] == 70
    assert math.isnan(rows.loc[STUDENTS, 'last'])  # not the mean of those that are left


def test_numbers_are_those_of_the_last_epoch_and_over_students_of_all_of_them():
    def predictor(last, best, nll):
        return dict(
            last=dict(accuracy=last, nll=nll, ece=2 * nll), best=dict(accuracy=best, nll=9.0)
        )

    results = dict(
        seed=0, git_revision='r', train_seconds=1.0, deployed={},
        students=dict(last=dict(disagreement=5.0, kl=0.25)),
        predictors=dict(
            student0=predictor(70.0, 72.0, 1.0), student1=predictor(60.0, 75.0, 3.0),
            ensemble=predictor(80.0, 81.0, 0.5),
        ),
    )  # fmt: skip
    rows = numbers([(Entry('a', 'a', '', 'a.py'), results)]).set_index('predictor')
    keys = ['last', 'best', 'nll', 'ece', 'disagreement', 'kl']
    assert rows.loc[STUDENTS, keys].tolist() == [65, 73.5, 2, 4, 5, 0.25]
    assert rows.loc['best student', ['last', 'best']].tolist() == [70, 75]
    assert rows.loc['ensemble', ['last', 'nll']].tolist() == [80, 0.5]
