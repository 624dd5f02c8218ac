"""Accuracy, calibration and cost of every method; as text, and in Markdown."""

from pathlib import Path
from typing import Any

import pandas as pd

from ...engine.results import METRIC
from ..comparison import read_sweep
from .ranks import rank_table
from .runs import CALIBRATION, DIVERSITY, STUDENTS

NOTHING = pd.Series(dtype=float)
PREDICTORS = (STUDENTS, 'best student', 'student0', 'ensemble', 'fused')
CAPTION = """\
{metric} at the last epoch, mean ± standard deviation over n seeds; "best epoch" is
the mean of the students, each at the epoch where it scored best. "student0" is what a method with a
leader (OKDDip, FFSD) is for; the others' students are alike. "cost" is the training time relative
to {baseline}, and says little where the machine had other work to do; parameters and MACs
(convolutions and linear layers, one image) are those of student0 as deployed.
"""
CALIBRATED = """\
NLL: negative log-likelihood in nats; ECE: expected calibration error in percent, 15 bins. Between
students: share of images that two of them label differently, in percent, and mean KL divergence of
their predictions, in nats.
"""
RANKED = """\
Wins/ties/losses of the row's method against the column's, mean of students. Tests: stats.json.
"""
SWEPT = """\
Settings tried on held-out training images ({held_out}; seeds {seeds}): mean of students, last
epoch. The best one of each method was trained for the table above.
"""


def markdown(
    runs: pd.DataFrame,
    summaries: dict[str, pd.DataFrame],
    stats: dict[str, Any],
    baseline: str,
    metric: str,
    work_dir: Path,
) -> str:
    """All tables of a comparison, one of accuracies per block, and what they show."""
    parts = []
    for block, rows in summaries.items():
        heading = f'## {block}\n\n' * (len(summaries) > 1)
        parts.append(heading + _lines(accuracy_table(rows)))
        if measured(rows):
            parts.append(_lines(calibration_table(rows)))
    text = '\n'.join(parts)
    text += '\n' + CAPTION.format(metric=metric_name(metric), baseline=baseline)
    if measured(runs):
        text += CALIBRATED
    revisions = runs['revision'].dropna().unique()
    if len(revisions) > 1:
        text += f'The runs are of different revisions: {", ".join(revisions)}.\n'
    if 'grid' in stats:
        text += f'\n## Over all blocks\n\n{_lines(rank_table(stats["grid"]))}\n{RANKED}'
        if stats['grid']['left_out']:
            text += f'Not in every block, so not ranked: {", ".join(stats["grid"]["left_out"])}.\n'
    sweep = read_sweep(work_dir)
    if sweep:
        seeds = ', '.join(map(str, sweep['seeds']))
        text += f'\n## Settings\n\n{_lines(sweep_rows(sweep))}\n'
        text += SWEPT.format(held_out=sweep['held_out'], seeds=seeds)
        if sweep['untuned']:
            text += f'Not tuned: {", ".join(sweep["untuned"])}.\n'
    return text


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
        row: dict[str, Any] = dict(method=method, n=of_method['seed'].nunique())
        for predictor in PREDICTORS:
            of_predictor = of_method[of_method['predictor'] == predictor]
            row |= _moments(of_predictor['last'], predictor)
            for name in CALIBRATION:
                row |= _moments(of_predictor.get(name, NOTHING), f'{predictor} {name}')
        for name in DIVERSITY:
            row |= _moments(students.get(name, NOTHING), name)
        row |= _moments(students['best'], 'best epoch')
        if baseline in seconds:
            row['cost'] = (seconds[method] / seconds[baseline]).dropna().mean()
        row |= dict(parameters=students['parameters'].iloc[0], macs=students['macs'].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _moments(values: pd.Series, name: str) -> dict[str, float]:
    return {name: values.mean(), f'{name} std': values.std()}


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
    """``70.12 ± 0.34``; nothing where there is no number, and no deviation of one."""
    if pd.isna(row[name]):
        return ''
    deviation = row[f'{name} std']
    return f'{row[name]:.{digits}f}' + ('' if pd.isna(deviation) else f' ± {deviation:.{digits}f}')


def sweep_rows(sweep: dict[str, Any]) -> list[dict[str, str]]:
    """Every setting that was tried, as text, and which were chosen."""
    several = len({tried['block'] for tried in sweep['settings']}) > 1
    return [
        {
            **({'block': tried['block']} if several else {}),
            'method': tried['method'],
            'config': tried['config'],
            'setting': ', '.join(f'{key}={value}' for key, value in tried['options'].items()),
            'held-out accuracy': f'{tried["accuracy"]:.2f}',
            'chosen': 'yes' * tried['chosen'],
        }
        for tried in sweep['settings']
    ]


def _lines(rows: list[dict[str, str]]) -> str:
    """Rows as a table in Markdown; all columns but the first are numbers."""
    header = list(rows[0])
    lines = [header, ['---', *('---:' for _ in header[1:])], *(list(row.values()) for row in rows)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'
