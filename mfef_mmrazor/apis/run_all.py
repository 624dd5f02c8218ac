"""Runs the trainings of a comparison, several at a time."""

import math
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from joblib import cpu_count

from .comparison import config_file, is_finished, run_folder
from .config import load_config
from .slurm import Run, Slurm, run_on_slurm
from .train import train


def run_all(
    runs: Sequence[Run], work_dir: Path, jobs: int | None = None, slurm: Slurm | None = None
) -> list[Run]:
    """Run what is not finished yet; returns the runs that failed.

    Args:
        runs: Methods and seeds.
        work_dir: The comparison's folder.
        jobs: Runs at a time; by default one on this machine, all on Slurm.
        slurm: Run them there, not on this machine.
    """
    todo = [run for run in runs if not is_finished(work_dir, *run)]
    print(f'{len(runs)} runs, {len(runs) - len(todo)} of them finished before', flush=True)
    if slurm:
        at_once = jobs or max(1, len(todo))
        outcomes = run_on_slurm(todo, work_dir, slurm, jobs)
    else:
        at_once = jobs or 1
        outcomes = run_here(todo, work_dir, at_once)
    rounds = math.ceil(len(todo) / at_once)
    started, failed = time.monotonic(), []
    for done, (run, success) in enumerate(outcomes, start=1):
        if not success:
            failed.append(run)
        seconds = (time.monotonic() - started) * (rounds / math.ceil(done / at_once) - 1)
        # of runs that all started together, nothing tells how long the others take
        left = f'; about {timedelta(seconds=round(seconds))} left' if rounds > 1 else ''
        print(
            f'{done}/{len(todo)} {run[0]} seed {run[1]}: {"done" if success else "FAILED"}{left}',
            flush=True,
        )
    return failed


def run_here(runs: Sequence[Run], work_dir: Path, jobs: int) -> Iterator[tuple[Run, bool]]:
    """Run them on this machine; gives each run that ended, and whether it finished."""
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cpu_count() // jobs)))
    gpus: SimpleQueue[int | None] = SimpleQueue()
    for job in range(jobs):
        gpus.put(job % torch.cuda.device_count() if torch.cuda.is_available() else None)
    with ThreadPoolExecutor(jobs) as pool:
        run_one = partial(_run_in_process, _context(), gpus, work_dir)
        started = {pool.submit(run_one, run): run for run in runs}
        try:
            for ended in as_completed(started):
                yield started[ended], ended.result()
        finally:  # also when the command is interrupted
            pool.shutdown(cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """How processes start: with the imports, which take seconds, made once for all of them.

    Where there is CUDA, whose state does not survive a fork, each makes its own.
    """
    if torch.cuda.is_available() or 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    # with what every run scores and draws by
    context.set_forkserver_preload(
        [__name__, 'torchmetrics.functional.classification', 'matplotlib.figure']
    )
    return context


def _run_in_process(context: Any, gpus: SimpleQueue[int | None], work_dir: Path, run: Run) -> bool:
    gpu = gpus.get()
    process = context.Process(target=_run, args=(gpu, work_dir, *run))
    try:
        process.start()
        process.join()
    finally:  # the next run waits for it, also when the machine has no room for a process
        gpus.put(gpu)
    return process.exitcode == 0


def _run(gpu: int | None, work_dir: Path, method: str, seed: int) -> None:
    """One run, in a process of its own; what it prints goes to ``run.log``."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        torch.cuda.set_device(gpu)
    folder = run_folder(work_dir, method, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'run.log', 'a') as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    train(load_config(config_file(work_dir, method), work_dir=folder, seed=seed), resume=True)


def _end_with_parent() -> None:
    """Stop the run, which saves a checkpoint, as soon as the comparison is no more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows
