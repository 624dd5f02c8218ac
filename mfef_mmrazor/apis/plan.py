"""Says what a comparison would run, on what, and for about how long."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from joblib import cpu_count
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from ..engine.results import read_results
from .comparison import RESULTS, Entry, is_finished, run_folder
from .data_checks import inner_datasets
from .slurm import Slurm


def show_plan(
    configs: Mapping[Entry, Config],
    seeds: Sequence[int],
    work_dir: Path,
    jobs: int | None,
    slurm: Slurm | None,
) -> None:
    """Print a row per config: its data, the runs that are left, and the time they would take.

    Times are those of training alone, without start and validation, as the first finished run of
    the config took. A config without a finished run has no time.
    """
    table = Table(title=f'{work_dir}: seeds {", ".join(map(str, seeds))}')
    for column in ('config', 'training data'):
        table.add_column(column)
    for column in ('length', 'runs left', 'time of one', 'of all'):
        table.add_column(column, justify='right')
    total, left, untimed = 0.0, 0, 0
    for entry, cfg in configs.items():
        todo = [s for s in seeds if not is_finished(work_dir, entry.name, s)]
        seconds = first_time(work_dir, entry)
        left += len(todo)
        if seconds is None:
            untimed += len(todo)
        else:
            total += seconds * len(todo)
        table.add_row(
            entry.name,
            ', '.join(str(dataset['type']) for dataset in inner_datasets(cfg.train_dataloader)),
            f'{cfg.train_cfg.get("max_epochs") or cfg.train_cfg.get("max_iters")} '
            + ('epochs' if cfg.train_cfg.get('max_epochs') else 'iterations'),
            f'{len(todo)} of {len(seeds)}',
            _text(seconds),
            _text(None if seconds is None else seconds * len(todo)),
        )
    console = Console(soft_wrap=True)
    console.print(table)
    gpus = torch.cuda.device_count()
    if slurm:
        at_once = min(jobs or left, left)
        device = 'Slurm' + f', partition {slurm.partition}' * bool(slurm.partition)
    else:
        at_once = jobs or 1
        device = f'{gpus} x {torch.cuda.get_device_name()}' if gpus else f'{cpu_count()} processors'
    times = [f'about {_text(total / at_once)} of training'] if left > untimed else []
    times += [f'{untimed} runs of unknown length'] if untimed else []
    console.print(
        f'{left} runs, {at_once} at a time, on {device}: {", and ".join(times) or "nothing to do"}',
        highlight=False,
    )


def first_time(work_dir: Path, entry: Entry) -> float | None:
    """Training seconds of an entry's first finished run; None if there is none."""
    runs = sorted(run_folder(work_dir, entry.name, 0).parent.glob(f'seed*/{RESULTS}'))
    return read_results(runs[0])['train_seconds'] if runs else None


def _text(seconds: float | None) -> str:
    return '?' if seconds is None else str(timedelta(seconds=round(seconds)))
