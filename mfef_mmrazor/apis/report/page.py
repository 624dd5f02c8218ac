"""The report as one page that opens from disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from ..comparison import Comparison, Entry, read_sweep, stored_config
from ..conditions import differences
from .pictures import as_data, draw_calibration, draw_cost, draw_curves
from .ranks import rank_table
from .significance import comparisons_of
from .tables import (
    accuracy_table,
    calibration_table,
    captions_of,
    measured,
    remarks,
    sweep_remarks,
    sweep_rows,
)

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

TEMPLATE = 'report.html.jinja'


def page(
    work_dir: Path,
    comparison: Comparison,
    stored: Sequence[tuple[Entry, dict[str, Any]]],
    runs: pd.DataFrame,
    summaries: dict[str, pd.DataFrame],
    stats: dict[str, Any],
    metric: str,
    drawn: Mapping[str, 'Figure'],
    missing: Sequence[str] = (),
) -> str:
    """The whole report in HTML: tables, pictures, statistics, configs and versions.

    Args:
        work_dir: Folder of the comparison.
        comparison: What is compared.
        stored: Every finished run and its results.
        runs: Their numbers, see :func:`~.runs.numbers`.
        summaries: The table of each block, see :func:`~.tables.summary`.
        stats: See :func:`~.significance.statistics`.
        metric: What accuracy is.
        drawn: The pictures that have files of their own, by the files' names.
        missing: What has no finished run, see :func:`~.runs.unfinished`.
    """
    blocks = []
    for name, rows in summaries.items():
        of_block = [(entry, results) for entry, results in stored if entry.block == name]
        blocks.append(
            dict(
                name=name or 'All runs',
                accuracies=accuracy_table(rows),
                calibration=calibration_table(rows) if measured(rows) else [],
                tests=test_table(comparisons_of(stats, name)),
                curves=as_data(draw_curves(of_block, metric)),
                configs=config_table(work_dir, comparison, name),
            )
        )
    grid = stats.get('grid')
    sweep = read_sweep(work_dir)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pictures = {
        'Accuracy': drawn['accuracy.png'],
        'Accuracy and cost': draw_cost(runs, metric),
    }
    if measured(runs):
        pictures['Negative log-likelihood'] = draw_calibration(runs, 'nll', 'NLL, nats')
        pictures['Calibration error'] = draw_calibration(runs, 'ece', 'ECE, percent, 15 bins')
    return environment.get_template(TEMPLATE).render(
        title=work_dir.resolve().name,
        baseline=comparison.baseline,
        metric=stats['metric'],
        methods=runs['method'].nunique(),
        seeds=sorted(int(seed) for seed in runs['seed'].unique()),
        number=len(stored),
        blocks=blocks,
        pictures={name: as_data(figure) for name, figure in pictures.items()},
        grid=grid,
        ranks=rank_table(grid) if grid else [],
        diagram=as_data(drawn['critical_difference.png']) if grid else '',
        captions=captions_of(stats, comparison.baseline, metric),
        remarks=remarks(runs, comparison.baseline, missing),
        sweep=sweep_rows(sweep) if sweep else [],
        sweep_remarks=sweep_remarks(sweep, runs) if sweep else [],
        versions=versions(stored),
    )


def test_table(comparisons: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Each method against the baseline, as text."""
    rows = []
    for c in comparisons:
        row = {'method': c['method'], 'seeds': str(c['n'])}
        row['difference'] = f'{c["mean"]:+.2f}' if 'mean' in c else ''
        low, high = c.get('interval_95', (None, None))
        row['95 % interval'] = '' if low is None else f'{low:+.2f} to {high:+.2f}'
        for test, label in (('t_test', 'p, t-test (Holm)'), ('wilcoxon', 'p, Wilcoxon (Holm)')):
            row[label] = c[test] if isinstance(c[test], str) else f'{c[test]["p_holm"]:.3g}'
        rows.append(row)
    return rows


def config_table(work_dir: Path, comparison: Comparison, block: str) -> list[dict[str, str]]:
    """Where each config of a block differs from the baseline's, or else from the first one."""
    entries = comparison.blocks[block]
    first = next((e for e in entries if e.method == comparison.baseline), entries[0])
    configs = {e: stored_config(work_dir, e.name).to_dict() for e in entries}
    return [
        {'method': entry.method, 'key': key, f'of {first.method}': repr(a), 'its own': repr(b)}
        for entry in entries
        for key, a, b in differences(configs[first], configs[entry])
    ]


def versions(stored: Sequence[tuple[Entry, dict[str, Any]]]) -> list[dict[str, str]]:
    """Versions, revisions and devices that the runs were made with, and how many with each."""
    found: dict[str, Counter[str]] = {'revision': Counter()}
    for _, results in stored:
        found['revision'][results['git_revision'] or 'unknown'] += 1
        if results.get('device'):
            found.setdefault('device', Counter())[results['device']] += 1
        for package, version in results['versions'].items():
            found.setdefault(package, Counter())[version] += 1
    return [
        {'package': package, 'version': version, 'runs': str(n)}
        for package, counts in found.items()
        for version, n in counts.items()
    ]
