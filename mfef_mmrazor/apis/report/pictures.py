"""The runs of a comparison as a picture."""

from pathlib import Path

import pandas as pd
from scipy import stats

from ...engine.results import METRIC, metric_label
from .runs import STUDENTS


def draw(runs: pd.DataFrame, path: Path, metric: str = METRIC) -> None:
    """A dot a seed, the mean and its 95 % interval a method; a panel a block."""
    from matplotlib.figure import Figure

    students = runs[runs['predictor'] == STUDENTS]
    blocks = dict(list(students.groupby('block', sort=False)))
    rows = max(of_block['method'].nunique() for of_block in blocks.values())
    size = (1.5 + 5 * len(blocks), 1.2 + 0.45 * rows)
    figure = Figure(figsize=size, layout='constrained')
    for axes, (block, of_block) in zip(
        figure.subplots(1, len(blocks), squeeze=False)[0], blocks.items(), strict=True
    ):
        _draw_block(axes, of_block)
        axes.set_title(block if len(blocks) > 1 else '')
        axes.set_xlabel(
            f'{metric_label(metric)}, {STUDENTS}, last epoch\n'
            'dots: seeds, bars: 95 % interval of the mean'
        )
    figure.savefig(path, dpi=200, metadata={'Software': None})


def _draw_block(axes, students: pd.DataFrame) -> None:
    methods = list(students['method'].unique())
    for row, method in enumerate(methods):
        values = students[students['method'] == method]['last']
        axes.plot(values, [row] * len(values), 'o', color='0.6', markersize=4, zorder=1)
        half = stats.t.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else 0
        axes.errorbar(values.mean(), row, xerr=half, fmt='D', color='C0', capsize=3, zorder=2)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
