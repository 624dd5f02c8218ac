"""The finished runs of a comparison as one table of numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...engine.results import METRIC, UNITS, unit_of
from ..comparison import Entry, run_folder

STUDENTS = 'mean of students'


def read_runs(work_dir: Path, entries: Sequence[Entry]) -> tuple[pd.DataFrame, str]:
    """One row a run and predictor: accuracies in percent, seconds, size of what is deployed.

    And the name of the metric, where it is another than accuracy.

    Raises:
        FileNotFoundError: There is no finished run.
        ValueError: A run was not scored at its last epoch, or runs by different metrics.
    """
    rows: list[dict] = []
    metrics = {}
    for entry in entries:
        own: list[dict] = []
        for path in run_folder(work_dir, entry.name, 0).parent.glob('seed*/results.json'):
            results = json.loads(path.read_text())
            check_last_epoch(path, results)
            metrics[results.get('metric', METRIC)] = path
            of_run = dict(
                block=entry.block,
                method=entry.method,
                name=entry.name,
                seed=results['seed'],
                revision=results['git_revision'],
            )
            cost = dict(train_seconds=results['train_seconds'], **results['deployed'])
            for name, accuracy in _predictors(results['predictors']).items():
                own.append({**of_run, 'predictor': name, **accuracy, **cost})
        rows += sorted(own, key=lambda row: row['seed'])
    if not rows:
        raise FileNotFoundError(f'no finished run in {work_dir / "runs"}')
    if len(metrics) > 1:
        found = ', '.join(f'{metric}: {path}' for metric, path in metrics.items())
        raise ValueError(f'runs were scored by different metrics ({found})')
    return pd.DataFrame(rows), next(iter(metrics))


def check_last_epoch(path: Path, results: dict) -> None:
    """Raise a ``ValueError`` if a run's last accuracies are not those of its last epoch."""
    unit = unit_of(results['history'])
    scored, trained = max(entry[unit] for entry in results['history']), results[f'{unit}s']
    if scored != trained:
        raise ValueError(
            f'{path}: the last {UNITS[unit]} that was scored is {scored} of {trained}. '
            'Remove the folder and compare again'
        )


def _predictors(predictors: dict) -> dict[str, dict[str, float]]:
    """Accuracy at the last and the best epoch: of each predictor, and over the students."""
    found = {
        name: dict(last=p['last']['accuracy'], best=p['best']['accuracy'])
        for name, p in predictors.items()
    }
    students = pd.DataFrame([v for k, v in found.items() if k.startswith(('student', 'model'))])
    over = {STUDENTS: students.mean().to_dict(), 'best student': students.max().to_dict()}
    return {**over, **found}
