"""Tables, statistics and pictures of the runs of a comparison."""

from dataclasses import replace
from pathlib import Path

from ...engine.results import write_json
from ..comparison import COMPARISON, read_comparison
from .pictures import draw
from .runs import read_runs
from .significance import statistics
from .tables import markdown


def report(work_dir: str | Path, baseline: str | None = None) -> None:
    """Write ``runs.csv``, ``table.md``, ``stats.json`` and ``accuracy.png`` from the stored runs.

    The same runs give the same bytes.

    Args:
        work_dir: Folder of :func:`mfef_mmrazor.apis.compare`.
        baseline: Method to compare the others with; by default that of the comparison.

    Raises:
        FileNotFoundError: There is no comparison, or no finished run in it.
        ValueError: The baseline has no finished run, or a run was not scored at its last epoch, or
            runs were scored by different metrics.
    """
    work_dir = Path(work_dir)
    comparison = read_comparison(work_dir)
    if comparison is None:
        raise FileNotFoundError(f'{work_dir} is no folder of a comparison: no {COMPARISON} in it')
    comparison = replace(comparison, baseline=baseline or comparison.baseline)
    runs, metric = read_runs(work_dir, comparison.entries)
    if comparison.baseline not in set(runs['method']):
        raise ValueError(
            f'the baseline {comparison.baseline!r} has no finished run; finished: '
            + ', '.join(runs['method'].unique())
        )
    grid = runs['block'].nunique() > 1
    left_out = ['name'] if grid else ['name', 'block']
    runs.drop(columns=left_out).to_csv(work_dir / 'runs.csv', index=False)
    (work_dir / 'table.md').write_text(markdown(runs, comparison.baseline, metric, work_dir))
    write_json(work_dir / 'stats.json', statistics(runs, comparison.baseline, metric))
    draw(runs, work_dir / 'accuracy.png', metric)
