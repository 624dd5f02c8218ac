"""Tables, statistics and pictures of the runs of a comparison."""

import json
from dataclasses import replace
from pathlib import Path

from ...engine.checkpoint_files import write_atomically
from ..comparison import COMPARISON, read_comparison


def report(work_dir: str | Path, baseline: str | None = None) -> None:
    """Write the report of the stored runs.

    ``report.html`` has all of it and opens from disk. ``table.md``, ``table.tex`` and ``table.csv``
    have the tables, ``runs.csv`` a row per run and predictor, ``stats.json`` the tests,
    ``accuracy.png`` the accuracies and, over several networks and data sets,
    ``critical_difference.png`` the average ranks. The same runs give the same bytes.

    Args:
        work_dir: Folder of :func:`mfef_mmrazor.apis.compare`.
        baseline: Method to compare the others with; by default that of the comparison.

    Raises:
        FileNotFoundError: There is no comparison, or no finished run in it.
        ValueError: The baseline has no finished run, or a run's results are of another seed than
            its folder's, or it was not scored at its last epoch, or runs were scored by different
            metrics.
        OSError: A file could not be written; there is the old one or the new one, and no half.
    """
    # pandas, SciPy and Matplotlib, which a training run does without: 3 s to import
    import pandas as pd

    from .latex import latex
    from .page import page
    from .pictures import as_png, draw_accuracies
    from .ranks import draw_critical_difference
    from .runs import numbers, stored_results, unfinished
    from .significance import statistics
    from .tables import markdown, summary

    work_dir = Path(work_dir)
    comparison = read_comparison(work_dir)
    if comparison is None:
        raise FileNotFoundError(
            f'{work_dir} is not the folder of a comparison: it has no {COMPARISON}'
        )
    comparison = replace(comparison, baseline=baseline or comparison.baseline)
    stored, metric = stored_results(work_dir, comparison.entries)
    runs = numbers(stored)
    if comparison.baseline not in set(runs['method']):
        raise ValueError(
            f'the baseline {comparison.baseline!r} has no finished run; finished: '
            + ', '.join(runs['method'].unique())
        )
    grid = runs['block'].nunique() > 1
    summaries = {
        block: summary(of_block, comparison.baseline)
        for block, of_block in runs.groupby('block', sort=False)
    }
    stats = statistics(runs, comparison.baseline, metric)
    missing = unfinished(work_dir, comparison.entries)
    pictures = {'accuracy.png': draw_accuracies(runs, metric)}
    if 'grid' in stats:
        pictures['critical_difference.png'] = draw_critical_difference(runs)
    of_all = pd.concat(summaries, names=['block', 'row']).reset_index('row', drop=True)
    runs_csv = runs.drop(columns=['name', 'config'] if grid else ['name', 'config', 'block'])
    # all of it is there before the first file is written
    files: dict[str, str | bytes] = {
        'runs.csv': runs_csv.dropna(axis='columns', how='all').to_csv(index=False),
        'table.csv': of_all.dropna(axis='columns', how='all').to_csv(
            index=grid, float_format='%.4f'
        ),
        'stats.json': json.dumps(stats, indent=2, allow_nan=False) + '\n',
        **{name: as_png(figure) for name, figure in pictures.items()},
        'table.md': markdown(
            runs, summaries, stats, comparison.baseline, metric, work_dir, missing
        ),
        'table.tex': latex(summaries, stats, comparison.baseline, metric),
        'report.html': page(
            work_dir, comparison, stored, runs, summaries, stats, metric, pictures, missing
        ),
    }
    for name, content in files.items():
        write_atomically(
            work_dir / name, content if isinstance(content, bytes) else content.encode()
        )
