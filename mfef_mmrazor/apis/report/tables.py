"""Accuracy, calibration and cost of every method, as text, with captions; and in Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...engine.results import METRIC
from ..comparison import read_sweep
from .ranks import rank_table
from .runs import CALIBRATION, DIVERSITY, STUDENTS
from .significance import comparisons_of

NOTHING = pd.Series(dtype=float)
PREDICTORS = (STUDENTS, 'best student', 'student0', 'ensemble', 'fused')
CAPTION = """\
{metric} at the last epoch, mean ± standard deviation over n seeds. "best
student" is the one of the run's students that scores best on these same images, so it is
optimistic, and so is "best epoch", the mean of the students, each at the epoch where it scored
best. "student0" is the first student: the leader of a method that has one (OKDDip, FFSD). "cost" is
the training time relative to {baseline}, and says little where the machine had other work to do;
parameters and MACs (convolutions and linear layers, one image) are those of student0 as deployed.
"""
TESTED = """\
The p-values (t-test and Wilcoxon's, paired by seed, in stats.json) are corrected by Holm's method
for the comparisons of one network and data set, not over several; the 95 % intervals are not
corrected.
"""
UNTESTED = """\
There is no p-value for fewer than five seeds that both methods have; the 95 % intervals are not
corrected.
"""
WITHOUT_BASELINE = """\
Nothing is compared in {blocks}: {baseline} is not there.
"""
UNLIKE_SEEDS = """\
The methods have different seeds, so their means are not over the same ones; each comparison with
{baseline} is over the seeds that both have.
"""
UNLIKE_DEVICES = """\
The runs are of different devices, which "cost" does not tell apart: {devices}.
"""
UNLIKE_PROCESSES = """\
The runs have different numbers of processes ({numbers}), so their steps are of different numbers of
images.
"""
CALIBRATED = """\
NLL: negative log-likelihood in nats; ECE: expected calibration error in percent, 15 bins. Between
students: share of images that two of them label differently, in percent, and mean KL divergence of
their predictions, in nats. Lower NLL and ECE are better; the other two are neither good nor bad.
"""
RANKED = """\
Wins/ties/losses of the row's method against the column's, mean of students. Tests: stats.json.
"""
LEFT_OUT = """\
Not in every block, so not ranked: {methods}.
"""
SWEPT = """\
Settings tried on held-out training images ({held_out}; {seeds}): mean of students, last
epoch. The best one of each method was trained for the table of accuracies.
"""


def markdown(
    runs: pd.DataFrame,
    summaries: dict[str, pd.DataFrame],
    stats: dict[str, Any],
    baseline: str,
    metric: str,
    work_dir: Path,
    missing: Sequence[str] = (),
) -> str:
    """All tables of a comparison, one of accuracies per block, and what they show."""
    parts = []
    for block, rows in summaries.items():
        heading = f'## {block}\n\n' * (len(summaries) > 1)
        parts.append(heading + _lines(accuracy_table(rows)))
        if measured(rows):
            parts.append(_lines(calibration_table(rows)))
    text = '\n'.join(parts)
    captions = captions_of(stats, baseline, metric)
    text += '\n' + captions['accuracies']
    if measured(runs):
        text += captions['calibration']
    text += captions['tests'] + ''.join(remarks(runs, baseline, missing))
    if 'grid' in stats:
        text += f'\n## Over all blocks\n\n{_lines(rank_table(stats["grid"]))}\n'
        text += captions['ranks']
    sweep = read_sweep(work_dir)
    if sweep:
        text += f'\n## Settings\n\n{_lines(sweep_rows(sweep))}\n'
        text += ''.join(sweep_remarks(sweep, runs))
    return text


def captions_of(stats: dict[str, Any], baseline: str, metric: str) -> dict[str, str]:
    """What is written under each of the tables."""
    left_out = stats['grid']['left_out'] if 'grid' in stats else []
    compared = [comparisons_of(stats, block) for block in stats.get('blocks', [''])]
    tests = [each[test] for own in compared for each in own for test in ('t_test', 'wilcoxon')]
    tested = any(isinstance(test, dict) for test in tests)
    return dict(
        accuracies=CAPTION.format(metric=metric_name(metric), baseline=baseline),
        calibration=CALIBRATED,
        tests=TESTED if tested else UNTESTED * bool(tests),
        ranks=RANKED + (LEFT_OUT.format(methods=', '.join(left_out)) if left_out else ''),
    )


def remarks(runs: pd.DataFrame, baseline: str, missing: Sequence[str]) -> list[str]:
    """What is to be known of the runs beside their numbers, where there is anything."""
    found = []
    if missing:
        found.append(f'Without a finished run: {", ".join(missing)}.\n')
    methods = runs.groupby('block', sort=False)['method'].agg(set)
    without = [block for block, own in methods.items() if baseline not in own]
    if without:
        found.append(WITHOUT_BASELINE.format(blocks=', '.join(without), baseline=baseline))
    seeds = runs.groupby(['block', 'method'])['seed'].agg(frozenset)
    if seeds.groupby('block').nunique().max() > 1:
        found.append(UNLIKE_SEEDS.format(baseline=baseline))
    revisions = runs['revision'].dropna().unique()
    if len(revisions) > 1:
        found.append(f'The runs are of different revisions: {", ".join(revisions)}.\n')
    devices = runs['device'].dropna().unique()
    if len(devices) > 1:
        found.append(UNLIKE_DEVICES.format(devices='; '.join(devices)))
    processes = sorted(runs['processes'].dropna().unique())
    if len(processes) > 1:
        numbers = ', '.join(f'{number:g}' for number in processes)
        found.append(UNLIKE_PROCESSES.format(numbers=numbers))
    return found


def sweep_remarks(sweep: dict[str, Any], runs: pd.DataFrame) -> list[str]:
    """How the settings were tried, and which methods were compared without."""
    settings = sweep['settings']
    # a file's name tells no block where there is only one
    several = runs['block'].nunique() > 1
    seeds = {each['block']: f'seeds {", ".join(map(str, each["seeds"]))}' for each in settings}
    if len({*seeds.values()}) > 1:
        shown = '; '.join(f'{block}: {own}' for block, own in seeds.items())
    else:
        shown = next(iter(seeds.values()))
    found = [SWEPT.format(held_out=sweep['held_out'], seeds=shown)]
    untuned = [(each['block'], each['method']) for each in settings if each['untuned']]
    tried = {(each['block'] * several, each['config']) for each in settings}
    compared = runs[['block', 'method', 'config']].drop_duplicates()
    joined = [
        (block, method)
        for block, method, config in compared.itertuples(index=False, name=None)
        if (block * several, config) not in tried
    ]
    for what, methods in (
        ('Not tuned', untuned), ('Compared without a sweep, as configured', joined)
    ):  # fmt: skip
        if methods:
            named = (f'{block} {method}' if several else method for block, method in methods)
            found.append(f'{what}: {", ".join(named)}.\n')
    return found


def metric_name(metric: str) -> str:
    """How a metric is called at the start of a caption."""
    return 'Top-1 accuracy in percent' if metric == METRIC else metric


def summary(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row a method of one block: mean and standard deviation over the seeds, cost and size."""
    seconds = runs.drop_duplicates(['method', 'seed']).set_index(['method', 'seed'])[
        'train_seconds'
    ]
    rows = []
    for method, of_method in runs.groupby('method', sort=False):
        students = of_method[of_method['predictor'] == STUDENTS]
        n = of_method['seed'].nunique()
        row: dict[str, Any] = dict(method=method, n=n)
        for predictor in PREDICTORS:
            of_predictor = of_method[of_method['predictor'] == predictor]
            row |= _moments(of_predictor['last'], predictor, n)
            for name in CALIBRATION:
                row |= _moments(of_predictor.get(name, NOTHING), f'{predictor} {name}', n)
        for name in DIVERSITY:
            row |= _moments(students.get(name, NOTHING), name, n)
        row |= _moments(students['best'], 'best epoch', n)
        if baseline in seconds:
            row['cost'] = (seconds[method] / seconds[baseline]).dropna().mean()
        row |= dict(parameters=students['parameters'].iloc[0], macs=students['macs'].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _moments(values: pd.Series, name: str, n: int) -> dict[str, float]:
    """Mean and deviation; and of how many, where some of the n runs have no number."""
    fewer = values.count() if 0 < values.count() < n else math.nan
    return {name: values.mean(), f'{name} std': values.std(), f'{name} n': fewer}


def accuracy_table(rows: pd.DataFrame) -> list[dict[str, str]]:
    """The accuracies of one block as text, by column."""
    return [
        {
            'method': row['method'],
            'n': str(row['n']),
            **{name: mean_std(row, name) for name in (*PREDICTORS, 'best epoch')},
            'cost': '' if pd.isna(row.get('cost')) else f'{row["cost"]:.2f}',
            'parameters': f'{row["parameters"]:,}',
            'MACs': f'{row["macs"] / 1e6:.2f} M',
        }
        for row in rows.to_dict('records')
    ]


def measured(table: pd.DataFrame) -> bool:
    """Whether calibration was measured: older runs have none."""
    columns = [name for name in table if str(name).endswith('nll')]
    return bool(columns) and bool(table[columns].notna().any(axis=None))


def calibration_table(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Calibration of the predictors of one block, and how far students differ, as text."""
    return [
        {
            'method': row['method'],
            **{
                f'{label} {predictor}': mean_std(row, f'{predictor} {name}', digits)
                for name, label, digits in (('nll', 'NLL', 3), ('ece', 'ECE', 2))
                for predictor in (STUDENTS, 'ensemble', 'fused')
            },
            'disagreement': mean_std(row, 'disagreement'),
            'KL': mean_std(row, 'kl', 3),
        }
        for row in rows.to_dict('records')
    ]


def mean_std(row: dict[str, Any], name: str, digits: int = 2) -> str:
    """``70.12 ± 0.34``; nothing where there is no number, and no deviation of one.

    With ``(n = 2)`` where not all of the row's runs have a number.
    """
    if pd.isna(row[name]):
        return ''
    deviation, fewer = row[f'{name} std'], row[f'{name} n']
    text = f'{row[name]:.{digits}f}' + ('' if pd.isna(deviation) else f' ± {deviation:.{digits}f}')
    return text + ('' if pd.isna(fewer) else f' (n = {fewer:.0f})')


def sweep_rows(sweep: dict[str, Any]) -> list[dict[str, str]]:
    """Every setting that was tried, as text, and which were chosen."""
    several = len({tried['block'] for tried in sweep['settings']}) > 1
    return [
        {
            **({'block': tried['block']} if several else {}),
            'method': tried['method'],
            'config': tried['config'],
            'setting': ', '.join(f'{key}={value}' for key, value in tried['options'].items()),
            'held-out accuracy': (
                'failed' if tried['accuracy'] is None else f'{tried["accuracy"]:.2f}'
            ),
            'chosen': 'yes' * tried['chosen'],
        }
        for tried in sweep['settings']
    ]


def _lines(rows: list[dict[str, str]]) -> str:
    """Rows as a table in Markdown; all columns but the first are numbers."""
    header = list(rows[0])
    lines = [header, ['---', *('---:' for _ in header[1:])], *(list(row.values()) for row in rows)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'
