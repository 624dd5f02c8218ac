"""Runs the trainings of a comparison as jobs of a Slurm cluster, through submitit."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ..engine.hooks.signal_hook import SIGNALS
from ..engine.results import read_json, write_json
from .comparison import config_file, is_finished, run_folder
from .config import load_config
from .train import train

Run = tuple[str, int]
JOBS = 'slurm/jobs.json'
SECONDS_BETWEEN_LOOKS = 5


@dataclass
class Slurm:
    """Where and with what the runs of a comparison are to be run.

    Args:
        partition: Slurm's partition; by default the cluster's default one.
        gpus_per_run: One process each; 0 trains in one process on the CPU.
        options: More of ``sbatch``'s options by their long names, such as ``time`` and
            ``cpus-per-task``.
    """

    partition: str | None = None
    gpus_per_run: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


def run_on_slurm(
    runs: Sequence[Run], work_dir: Path, slurm: Slurm, at_once: int | None
) -> Iterator[tuple[Run, bool]]:
    """Submit the runs and follow them; gives each that ended, and whether it finished.

    Runs that an earlier call submitted and that are in Slurm's queue still are only followed.

    Args:
        runs: Methods and seeds.
        work_dir: The comparison's folder, on a disk that all nodes see. Its ``slurm/jobs.json``
            has the number of each run's job.
        slurm: Where to run.
        at_once: Runs at a time; by default as many as there is room for.

    Raises:
        RuntimeError: There is no Slurm here, or it does not answer, or refuses the jobs.
        ImportError: submitit is not installed.
    """
    if shutil.which('sbatch') is None:
        raise RuntimeError('sbatch is not on the path: this machine submits to no Slurm cluster')
    stored = work_dir / JOBS
    jobs = read_json(stored) if stored.is_file() else {}
    earlier = queued()
    if earlier is None:
        raise RuntimeError(
            'squeue does not answer, so which runs are in the queue is not known; nothing was '
            'submitted. Start the command again when it does'
        )
    new = [run for run in runs if jobs.get(name(run)) not in earlier]
    for run, job in zip(new, submit(new, work_dir, slurm, at_once), strict=True):
        jobs[name(run)] = job
    stored.parent.mkdir(exist_ok=True)
    write_json(stored, jobs)
    print(f'{len(new)} jobs submitted, {len(runs) - len(new)} were in the queue', flush=True)
    waiting = list(runs)
    while waiting:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        queue = queued()
        if queue is None:
            continue
        for run in [run for run in waiting if jobs[name(run)] not in queue]:
            waiting.remove(run)
            yield run, is_finished(work_dir, *run)


def log_of(work_dir: Path, run: Run) -> Path:
    """What a run has printed: its ``run.log``, or on Slurm the output of its last job."""
    here, jobs = run_folder(work_dir, *run) / 'run.log', work_dir / JOBS
    if here.is_file() or not jobs.is_file():
        return here
    job = read_json(jobs).get(name(run))
    return work_dir / 'slurm' / f'{job}_0_log.out' if job else here


def name(run: Run) -> str:
    """The run's folder below ``runs``."""
    return f'{run[0]}/seed{run[1]}'


def queued() -> set[str] | None:
    """Numbers of the user's jobs that wait or run; None if Slurm does not answer."""
    answer = subprocess.run(
        ['squeue', '--noheader', '--array', f'--user={os.getuid()}', '--format=%i'],
        capture_output=True, text=True,
    )  # fmt: skip
    if answer.returncode:
        print(answer.stderr.strip(), flush=True)
        return None
    return set(answer.stdout.split())


def submit(runs: Sequence[Run], work_dir: Path, slurm: Slurm, at_once: int | None) -> Sequence[str]:
    """Submit the runs as one array of jobs; returns their numbers."""
    if not runs:
        return []
    try:
        import submitit
    except ImportError:
        raise ImportError(
            'submitit is not installed: pip install submitit', name='submitit'
        ) from None
    executor = submitit.SlurmExecutor(work_dir / 'slurm')
    executor.update_parameters(
        job_name=work_dir.name,
        partition=slurm.partition,
        time=None,  # as long as the partition lets it
        nodes=1,
        ntasks_per_node=max(1, slurm.gpus_per_run),
        gpus_per_node=slurm.gpus_per_run or None,
        array_parallelism=at_once or len(runs),
        stderr_to_stdout=True,
        setup=[
            'export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}',
            'export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}',
        ],
        srun_args=['--kill-on-bad-exit=1'],
        # before the time is up, 90 seconds to save a checkpoint
        additional_parameters={'requeue': True, 'signal': 'USR1@90', **slurm.options},
    )
    launcher = 'slurm' if slurm.gpus_per_run > 1 else 'none'
    try:
        jobs = executor.map_array(partial(run_job, work_dir, launcher), *zip(*runs, strict=True))
    except submitit.core.utils.FailedJobError as error:
        refusal = str(error).strip().splitlines()[-1]
        raise RuntimeError(f'Slurm refuses the jobs: {refusal}') from None
    return [job.job_id for job in jobs]


def run_job(work_dir: Path, launcher: str, method: str, seed: int) -> None:
    """One run, in a process of a job; what it prints is in ``slurm/<job>_<process>_log.out``.

    A run that is told to stop has saved a checkpoint; it goes back into the queue, unless its user
    cancelled it.
    """
    for number in SIGNALS:  # the training's own hook listens as soon as there is something to save
        signal.signal(number, leave)
    config = load_config(
        config_file(work_dir, method),
        work_dir=run_folder(work_dir, method, seed), seed=seed, launcher=launcher,
    )  # fmt: skip
    try:
        train(config, resume=True)
    except SystemExit:
        if os.environ['SLURM_PROCID'] != '0':
            return  # the first process alone requeues the job; a status of 143 would end it first
        job = os.environ['SLURM_JOB_ID']
        state = subprocess.run(
            ['squeue', '--noheader', f'--jobs={job}', '--format=%T'],
            capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        if state == 'RUNNING':
            print('back into the queue', flush=True)
            subprocess.run(['scontrol', 'requeue', job], check=True)
        raise


def leave(number: int, frame: Any) -> NoReturn:
    """End the process with the status that tells of the signal."""
    raise SystemExit(128 + number)
