"""Runs the trainings of a comparison, several at a time."""

import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

from .comparison import config_file, run_folder
from .config import load_config
from .train import train


def run_all(runs: list[tuple[str, int]], work_dir: Path, jobs: int) -> list[tuple[str, int]]:
    """Run what is not finished yet, ``jobs`` at a time; returns the runs that failed."""
    todo = [run for run in runs if not (run_folder(work_dir, *run) / 'results.json').is_file()]
    print(f'{len(runs)} runs, {len(runs) - len(todo)} of them finished before', flush=True)
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // jobs)))
    rounds = math.ceil(len(todo) / jobs)
    started, failed = time.monotonic(), []
    with ThreadPoolExecutor(jobs) as pool:
        succeeded = pool.map(partial(_run_in_process, work_dir), todo)
        for done, (run, success) in enumerate(zip(todo, succeeded, strict=True), start=1):
            if not success:
                failed.append(run)
            seconds = (time.monotonic() - started) * (rounds / math.ceil(done / jobs) - 1)
            print(
                f'{done}/{len(todo)} {run[0]} seed {run[1]}: {"done" if success else "FAILED"}; '
                f'about {timedelta(seconds=round(seconds))} left',
                flush=True,
            )
    return failed


def _run_in_process(work_dir: Path, run: tuple[str, int]) -> bool:
    process = multiprocessing.get_context('spawn').Process(target=_run, args=(work_dir, *run))
    process.start()
    process.join()
    return process.exitcode == 0


def _run(work_dir: Path, method: str, seed: int) -> None:
    """One run, in a process of its own; what it prints goes to ``run.log``."""
    folder = run_folder(work_dir, method, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'run.log', 'a') as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    train(load_config(config_file(work_dir, method), work_dir=folder, seed=seed), resume=True)
