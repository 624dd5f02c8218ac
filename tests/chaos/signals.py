"""How soon runs end that are told to, and whether they go on as if nothing had been.

    python tests/chaos/signals.py
    python tests/chaos/signals.py --only runs --times 5

A row per kind of training and signal, sent at random moments to the run's process alone, or to all
of its group, workers included, as Slurm and a terminal do it: the exit status, the longest time
until no process was left, and how many of the resumed runs came to the weights, optimizer,
schedules and results of an undisturbed one, bit for bit. Then the same of ``tools/compare.py``, of
two runs at a time: how many of them left a checkpoint within an epoch, and whether the comparison,
started again, has the numbers of an undisturbed one.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from _runs import CONFIGS, SMALL, cheap, end, finish, is_running, methods, same, start, tiny

from mfef_mmrazor.apis import train

WITHIN = 10.0  # seconds
GROUP = {False: 'the process', True: 'its group'}
METHODS = ('dml', 'mfef')


def run(work_dir: Path, by_epoch: bool, workers: int) -> None:
    """A tiny training in a process group of its own, resumed if there is something to resume."""
    os.setpgid(0, 0)
    options = dict(train_dataloader__num_workers=workers, val_dataloader__num_workers=workers)
    train(tiny(methods()['mfef'], work_dir, by_epoch, **options), resume=True)


def left(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, process_group = stat.read_text().rpartition(')')[2].split()[:3]
        except OSError:  # it has ended by now
            continue
        if int(process_group) == group and state != 'Z':
            found.append(int(stat.parent.name))
    return found


def send(number: int, leader: int, to_group: bool, pointers: Sequence[Path]) -> tuple[float, float]:
    """Send a signal; seconds until the last checkpoint, and until no process of the group is left.

    The latter is mostly what Python takes to end.
    """
    sent = time.time()
    (os.killpg if to_group else os.kill)(leader, number)
    while left(leader) and time.time() - sent < 10 * WITHIN:
        time.sleep(0.02)
    ended = time.time() - sent
    return max(0.0, *(pointer.stat().st_mtime - sent for pointer in pointers)), ended


def runs(times: int) -> bool:
    """Stop runs of every kind, print what came of it; whether all was well."""
    good = True
    for by_epoch, workers in product((True, False), (0, 2)):
        straight = Path(tempfile.mkdtemp())
        started = time.monotonic()
        assert finish(start(run, straight, by_epoch, workers)) == 0
        duration, expected = time.monotonic() - started, end(straight)
        for number, to_group in product((signal.SIGTERM, signal.SIGUSR1), GROUP):
            seconds, statuses, identical = [], [], 0
            while len(seconds) < times:
                work_dir = Path(tempfile.mkdtemp())
                child = start(run, work_dir, by_epoch, workers, log=work_dir / 'log')
                while is_running(child) and not (work_dir / 'last_checkpoint').is_file():
                    time.sleep(0.002)
                time.sleep(random.uniform(0, duration / 3))
                if not is_running(child):  # ended by itself
                    finish(child)
                    continue
                pointer = work_dir / 'last_checkpoint'
                took, status = send(number, child, to_group, [pointer]), finish(child)
                if (work_dir / 'results.json').is_file():  # the training was over
                    continue
                seconds.append(took)
                statuses.append(status)
                finish(start(run, work_dir, by_epoch, workers, log=work_dir / 'log'))
                identical += same(expected, end(work_dir))
                shutil.rmtree(work_dir)
            saved, ended = (max(each) for each in zip(*seconds, strict=True))
            good &= set(statuses) == {128 + number} and saved < WITHIN and identical == times
            print(
                f'{number.name} to {GROUP[to_group]}, by {"epochs" if by_epoch else "iterations"}, '
                f'{workers} workers: exit {sorted(set(statuses))}, saved within {saved:.1f} s, '
                f'ended within {ended:.1f} s, identical {identical}/{times}',
                flush=True,
            )
        shutil.rmtree(straight)
    return good


def comparison(work_dir: Path) -> subprocess.Popen:
    """``tools/compare.py`` with two runs at a time, in a group of its own."""
    paths = [methods()[name] for name in METHODS]
    options = {**SMALL, 'train_dataloader.dataset.train_per_class': 8, 'train_cfg.max_epochs': 10}
    return subprocess.Popen(
        [sys.executable, CONFIGS.parent / 'tools/compare.py', *paths, '--seeds', '0', '--jobs', '2',
         '--work-dir', work_dir, '--cfg-options', *(f'{k}={v}' for k, v in options.items())],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def histories(work_dir: Path) -> list:
    """The results of a comparison's runs; None for a run that has not finished."""
    files = [work_dir / f'runs/{name}/seed0/results.json' for name in METHODS]
    return [json.loads(f.read_text())['history'] if f.is_file() else None for f in files]


def comparisons() -> bool:
    """Stop comparisons in several ways, print what came of it; whether all was well."""
    straight = Path(tempfile.mkdtemp())
    assert comparison(straight).wait() == 0
    expected, good = histories(straight), True
    cases = (
        (signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGTERM, True),
        (signal.SIGINT, True),
    )  # fmt: skip
    for number, to_group in cases:
        work_dir = Path(tempfile.mkdtemp())
        process = comparison(work_dir)
        pointers = [work_dir / f'runs/{name}/seed0/last_checkpoint' for name in METHODS]
        while process.poll() is None and not all(pointer.is_file() for pointer in pointers):
            time.sleep(0.05)
        saved, ended = send(number, process.pid, to_group, pointers)
        remain = left(process.pid)
        for pid in remain:
            os.kill(pid, signal.SIGKILL)
        status = process.wait()
        stopped = histories(work_dir).count(None)
        within = sum('_iter_' in pointer.read_text() for pointer in pointers)
        again = comparison(work_dir).wait()
        identical = histories(work_dir) == expected
        good &= not remain and saved < WITHIN and again == 0 and identical
        came = 'identical' if identical else 'other results'
        print(
            f'{number.name} to {GROUP[to_group]}, compare: exit {status}, {len(remain)} processes '
            f'left after {ended:.1f} s, saved within {saved:.1f} s; {stopped} runs stopped, '
            f'{within} within an epoch; started again: exit {again}, {came}',
            flush=True,
        )
        shutil.rmtree(work_dir)
    shutil.rmtree(straight)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--times', type=int, default=3, help='of every kind of run and signal')
    parser.add_argument('--only', choices=['runs', 'compare'])
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    good = True
    if args.only != 'compare':
        with cheap():
            good = runs(args.times)
    if args.only != 'runs':
        good &= comparisons()
    sys.exit(not good)


if __name__ == '__main__':
    main()
