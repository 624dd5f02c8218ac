"""The runs of a comparison as pictures."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...engine.results import METRIC, UNITS, metric_label, unit_of
from ..comparison import Entry
from .runs import STUDENTS
from .significance import half_interval_95

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTORS = {STUDENTS: 'o', 'ensemble': 's', 'fused': '^'}
MARKERS = 'osD^v'


def as_png(figure: 'Figure') -> bytes:
    """The content of a picture's file; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=200, metadata={'Software': None})
    return buffer.getvalue()


def as_data(figure: 'Figure') -> str:
    """A picture as the address of an ``<img>``, so that a page needs no other file."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({'svg.hashsalt': 'report', 'svg.fonttype': 'none'}):
        figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
    return 'data:image/svg+xml;base64,' + base64.b64encode(buffer.getvalue()).decode()


def draw_accuracies(runs: pd.DataFrame, metric: str = METRIC) -> 'Figure':
    """A dot a seed, the mean and its 95 % interval a method; a panel a block."""
    students = runs[runs['predictor'] == STUDENTS]
    label = (
        f'{metric_label(metric)}, {STUDENTS}, last epoch\n'
        'dots: seeds, bars: 95 % interval of the mean of three or more'
    )
    return _panels(students, _draw_block, label)


def _draw_block(axes: 'Axes', students: pd.DataFrame) -> None:
    methods = list(students['method'].unique())
    for row, method in enumerate(methods):
        values = students[students['method'] == method]['last'].dropna()
        half = half_interval_95(values) if len(values) > 2 else 0
        axes.errorbar(
            values.mean(), row, xerr=half, fmt='D', color='C0', markerfacecolor='white', capsize=3,
            zorder=2,
        )  # fmt: skip
        axes.plot(values, [row] * len(values), 'o', color='0.3', markersize=3, zorder=3)
    _name_rows(axes, methods)


def draw_calibration(runs: pd.DataFrame, name: str, label: str) -> 'Figure':
    """NLL or ECE of every method, the mean over seeds of a predictor a dot; a panel a block."""

    def draw_block(axes: 'Axes', of_block: pd.DataFrame) -> None:
        methods = list(of_block['method'].unique())
        for i, (predictor, marker) in enumerate(PREDICTORS.items()):
            own = of_block[of_block['predictor'] == predictor]
            means = own.groupby('method')[name].mean()
            rows = [methods.index(method) for method in means.index]
            axes.plot(means, rows, marker, color=f'C{i}', label=predictor, markersize=5)
        axes.legend(fontsize='small')
        _name_rows(axes, methods)

    return _panels(runs, draw_block, label)


def draw_cost(runs: pd.DataFrame, metric: str = METRIC) -> 'Figure':
    """Accuracy of every method against what its training took; a panel a block.

    Each method has a colour and a marker, and its name in the legend: names beside points that are
    close together would lie over each other.
    """
    students = runs[runs['predictor'] == STUDENTS]
    methods = list(students['method'].unique())

    def draw_block(axes: 'Axes', of_block: pd.DataFrame) -> None:
        means = of_block.groupby('method', sort=False)[['train_seconds', 'last']].mean()
        for method, (seconds, accuracy) in means.iterrows():
            place = methods.index(method)
            axes.plot(
                seconds, accuracy, MARKERS[(place + place // 10) % len(MARKERS)],
                color=f'C{place % 10}', label=method,
            )  # fmt: skip
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        axes.set_ylabel(f'{metric_label(metric)}, {STUDENTS}')

    columns = -(-len(methods) // 25)
    beside = (columns - 1) * (0.5 + 0.075 * max(map(len, methods)))
    label = 'training, seconds (mean over seeds)'
    figure = _panels(students, draw_block, label, rows=8, beside=beside)
    drawn = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(
        [drawn[method] for method in methods], methods, loc='outside right upper', fontsize=8,
        ncols=columns,
    )  # fmt: skip
    return figure


def draw_curves(stored: Sequence[tuple[Entry, dict[str, Any]]], metric: str = METRIC) -> 'Figure':
    """Accuracy of every run over its training: a panel a method, a line a seed.

    Args:
        stored: The runs of one block.
        metric: What accuracy is.
    """
    methods = list(dict.fromkeys(entry.method for entry, _ in stored))
    width = max(2.4, 0.075 * max(map(len, methods)))
    figure, panels = _grid(len(methods), 4, (width, 1.8), (1, 0.8), sharex=True, sharey=True)
    for method, axes in zip(methods, panels, strict=True):
        for results in (results for entry, results in stored if entry.method == method):
            history = pd.DataFrame(results['history']).set_index(unit_of(results['history']))
            students = history[[c for c in history if c.startswith(('student', 'model'))]]
            dot = 'o' if len(history) == 1 else None
            style: dict[str, Any] = dict(linewidth=1, marker=dot, markersize=3)
            axes.plot(students.mean(axis='columns'), color='C0', **style)
            if 'ensemble' in history:
                axes.plot(history['ensemble'], '--', color='C1', **style)
        axes.set_title(method, fontsize='small')
        axes.grid(alpha=0.3)
    figure.supxlabel(UNITS[unit_of(stored[0][1]['history'])], fontsize='medium')
    figure.supylabel(metric_label(metric), fontsize='medium')
    return figure


def _panels(
    runs: pd.DataFrame,
    draw: Callable[['Axes', pd.DataFrame], None],
    label: str,
    rows: int | None = None,
    beside: float = 0,
) -> 'Figure':
    """A panel a block, three side by side, as high as ``rows`` methods need.

    ``beside``: inches to the right of them, for a legend.
    """
    blocks = dict(list(runs.groupby('block', sort=False)))
    rows = rows or max(of_block['method'].nunique() for of_block in blocks.values())
    # matplotlib's layout does not count the width of the label below
    longest = max(20, *runs['method'].map(len))
    panel = (5 + 0.085 * (longest - 20), 1.2 + 0.45 * rows)
    figure, panels = _grid(len(blocks), 3, panel, (1.5 + beside, 0))
    for axes, (block, of_block) in zip(panels, blocks.items(), strict=True):
        draw(axes, of_block)
        axes.set_title(block if len(blocks) > 1 else '')
        axes.set_xlabel(label)
    return figure


def _grid(
    number: int,
    columns: int,
    panel: tuple[float, float],
    margins: tuple[float, float],
    **options: Any,
) -> tuple['Figure', list['Axes']]:
    """A figure of so many panels, in rows of at most ``columns``; sizes in inches."""
    from matplotlib.figure import Figure

    columns = min(columns, number)
    rows = -(-number // columns)
    size = (margins[0] + panel[0] * columns, margins[1] + panel[1] * rows)
    figure = Figure(figsize=size, layout='constrained')
    panels = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for left in panels[number:]:
        left.axis('off')
    return figure, panels[:number]


def _name_rows(axes: 'Axes', methods: list[str]) -> None:
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
