"""The finished runs of a comparison as one table of numbers."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...engine.results import UNITS, read_results, unit_of
from ..comparison import RESULTS, Entry, is_finished, run_folder

STUDENTS = 'mean of students'
CALIBRATION = ('nll', 'ece')
# of a run's results.json, in all of its versions
NEEDED = ('predictors', 'history', 'seed', 'train_seconds', 'deployed', 'git_revision', 'versions')
DIVERSITY = ('disagreement', 'kl')


def stored_results(
    work_dir: Path, entries: Sequence[Entry]
) -> tuple[list[tuple[Entry, dict[str, Any]]], str]:
    """Every finished run, with its ``results.json``; and the name of the metric.

    Raises:
        FileNotFoundError: There is no finished run.
        ValueError: A run's results are damaged, or of another seed than its folder's, or it was
            not scored at its last epoch, or runs by different metrics.
    """
    found, metrics = [], {}
    for entry in entries:
        own = []
        for folder in seed_folders(work_dir, entry):
            path = folder / RESULTS
            if not path.is_file():
                continue
            results = read_results(path)
            check_whole(path, results)
            check_seed(path, results)
            check_last_epoch(path, results)
            metrics[results['metric']] = path
            own.append((entry, results))
        found += sorted(own, key=lambda run: run[1]['seed'])
    if not found:
        raise FileNotFoundError(f'no finished run in {work_dir / "runs"}')
    if len(metrics) > 1:
        different = ', '.join(f'{metric}: {path}' for metric, path in metrics.items())
        raise ValueError(f'runs were scored by different metrics ({different})')
    return found, next(iter(metrics))


def seed_folders(work_dir: Path, entry: Entry) -> list[Path]:
    """The folders of an entry's runs, without somebody's copies."""
    folders = run_folder(work_dir, entry.name, 0).parent.glob('seed*')
    return [folder for folder in folders if re.fullmatch(r'seed\d+', folder.name)]


def unfinished(work_dir: Path, entries: Sequence[Entry]) -> list[str]:
    """What has no finished run, by name: all seeds, or those that others of its block have.

    Example: ``['b (all seeds)', 'kdcl (seed 3)']``.
    """
    started: dict[str, set[int]] = {}
    seeds: dict[str, set[int]] = {}
    for entry in entries:
        started[entry.name] = {int(f.name[4:]) for f in seed_folders(work_dir, entry)}
        seeds.setdefault(entry.block, set()).update(started[entry.name])
    found = []
    for entry in entries:
        finished = {s for s in started[entry.name] if is_finished(work_dir, entry.name, s)}
        missing = seeds[entry.block] - finished
        if missing:
            found.append(f'{entry.name} ({_seeds(missing) if finished else "all seeds"})')
    return found


def _seeds(seeds: set[int]) -> str:
    return f'seed{"s" * (len(seeds) > 1)} {", ".join(map(str, sorted(seeds)))}'


def numbers(stored: Sequence[tuple[Entry, dict[str, Any]]]) -> pd.DataFrame:
    """One row a run and predictor: accuracies in percent, seconds, size of what is deployed."""
    rows: list[dict[str, Any]] = []
    for entry, results in stored:
        of_run = dict(
            block=entry.block,
            method=entry.method,
            name=entry.name,
            config=entry.config,
            seed=results['seed'],
            revision=results['git_revision'],
            device=results.get('device'),  # older ones do not say
            processes=results.get('processes'),
        )
        cost = dict(train_seconds=results['train_seconds'], **results['deployed'])
        for name, scores in _predictors(results).items():
            rows.append({**of_run, 'predictor': name, **scores, **cost})
    return pd.DataFrame(rows)


def check_whole(path: Path, results: dict[str, Any]) -> None:
    """Raise a ``ValueError`` if something is missing that a report is made of."""
    missing = [key for key in NEEDED if key not in results]
    missing += ['history'] * (results.get('history') == [])
    missing += [] if {'epochs', 'iters'} & set(results) else ['epochs or iters']
    if missing:
        raise ValueError(f'{path} has no {", ".join(missing)}. Remove the folder and compare again')


def check_seed(path: Path, results: dict[str, Any]) -> None:
    """Raise a ``ValueError`` if a run's results are of another seed than its folder's."""
    seed, folder = results['seed'], path.parent
    if folder.name != f'seed{seed}':
        raise ValueError(
            f'{folder} has the results of seed {seed}, expected those of the seed in its name: '
            'remove it or, if it is a copy, rename it'
        )


def check_last_epoch(path: Path, results: dict[str, Any]) -> None:
    """Raise a ``ValueError`` if a run's last accuracies are not those of its last epoch."""
    unit = unit_of(results['history'])
    scored, trained = max(entry[unit] for entry in results['history']), results[f'{unit}s']
    if scored != trained:
        raise ValueError(
            f'{path}: the last {UNITS[unit]} that was scored is {scored} of {trained}. '
            'Remove the folder and compare again'
        )


def _predictors(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Accuracy at the last and the best epoch, NLL and ECE: of each predictor, and over students.

    Over the students it is their mean, how far they differ, and the best accuracy.
    """
    found = {}
    for name, predictor in results['predictors'].items():
        last, best = predictor['last'], predictor['best']
        measured = {key: last[key] for key in CALIBRATION if key in last}
        scores = dict(last=last['accuracy'], best=best['accuracy'], **measured)
        found[name] = pd.Series(scores, dtype=float).to_dict()  # no number is null, or NaN
    students = pd.DataFrame([v for k, v in found.items() if k.startswith(('student', 'model'))])
    unlike = results['students'].get('last', {})
    differing = {key: unlike[key] for key in DIVERSITY if key in unlike}
    best_student = students[['last', 'best']].max(skipna=False).to_dict()
    mean = students.mean(skipna=False).to_dict() | differing
    return {STUDENTS: mean, 'best student': best_student, **found}
