"""Kills runs with SIGKILL, resumes them, and compares what they come to with undisturbed runs.

A row per method: of how many kills at a random moment of the run, and of how many within a save
with one kept checkpoint, the resumed run came to the weights, optimizer, schedules and results of
the undisturbed one, bit for bit; how many of the latter left a torn file; then how many flipped
bits and truncated files were noticed. A run is three epochs of four steps, each in a process of
its own. About two minutes a method.

    python tests/chaos/kill.py --kills 20 --methods mfef dml
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from _runs import EPOCHS, cheap, end, finish, is_running, methods, same, start, tiny

from mfef_mmrazor.apis import train
from mfef_mmrazor.engine.checkpoint_files import DamagedCheckpointError, check_intact

FLIPS = 100
HEAD = ('method', 'killed at random', 'within a save', 'torn', 'flips', 'truncations', 'seconds')
ROW = '{:14} {:>16} {:>14} {:>6} {:>9} {:>12} {:>8}'


def run(path: Path, work_dir: Path, kept: int) -> None:
    """A tiny training, resumed if there is something to resume."""
    train(tiny(path, work_dir, default_hooks__checkpoint__max_keep_ckpts=kept), resume=True)


def at_random(child: int, work_dir: Path, seconds: float) -> None:
    """Wait for a random moment of a run that takes so long."""
    moment = time.monotonic() + random.uniform(0, seconds)
    while is_running(child) and time.monotonic() < moment:
        time.sleep(0.002)


def within_a_save(child: int, work_dir: Path, seconds: float) -> None:
    """Wait until a checkpoint of a random epoch is being written, or has just been."""
    partial = work_dir / f'epoch_{random.randint(1, EPOCHS)}.pth.partial'
    while is_running(child) and not partial.exists():
        time.sleep(0.0002)
    time.sleep(random.uniform(0, 0.01))


def survived(path: Path, expected: list, seconds: float, wait: Callable, kept: int) -> list[str]:
    """Kill a run and resume it: ``'same'``, or what went wrong; and whether a file was torn."""
    work_dir = Path(tempfile.mkdtemp())
    try:
        child = start(run, path, work_dir, kept)
        wait(child, work_dir, seconds)
        os.kill(child, signal.SIGKILL)
        if finish(child) != -signal.SIGKILL:
            return []  # it had ended by itself
        torn = ['torn'] * bool(list(work_dir.glob('epoch_*.partial')))
        if finish(start(run, path, work_dir, kept, log=work_dir / 'log')):
            print((work_dir / 'log').read_text()[-2000:], file=sys.stderr)
            return ['could not be resumed', *torn]
        good = same(expected, end(work_dir))
        return ['same' if good else 'came to another end', *torn]
    finally:
        shutil.rmtree(work_dir)


def trials(kills: int, *args) -> Counter:
    """What came of so many kills of a run that had not ended."""
    found: list[list[str]] = []
    while len(found) < kills:
        if came := survived(*args):
            found.append(came)
    return Counter(what for came in found for what in came)


def noticed(checkpoint: Path) -> tuple[int, int]:
    """How many flipped bits, and how many truncations, of a checkpoint are noticed."""
    content = checkpoint.read_bytes()
    flipped = truncated = 0
    for _ in range(FLIPS):
        broken = bytearray(content)
        broken[random.randrange(len(content))] ^= 1 << random.randrange(8)
        flipped += is_noticed(checkpoint, broken)
        truncated += is_noticed(checkpoint, content[: random.randrange(len(content))])
    return flipped, truncated


def is_noticed(checkpoint: Path, content: bytes) -> bool:
    """Whether a checkpoint with this content is taken for damaged."""
    checkpoint.write_bytes(content)
    try:
        check_intact(checkpoint)
    except DamagedCheckpointError:
        return True
    return False


def row(name: str, path: Path, kills: int) -> bool:
    """Kill a method's runs and print what came of it; whether all was well."""
    started, work_dir = time.monotonic(), Path(tempfile.mkdtemp())
    if finish(start(run, path, work_dir, 2, log=work_dir / 'log')):
        print((work_dir / 'log').read_text()[-2000:], file=sys.stderr)
        print(f'{name}: the undisturbed run failed', flush=True)
        return False
    seconds, expected = time.monotonic() - started, end(work_dir)
    anywhere = trials(kills, path, expected, seconds, at_random, 2)
    saving = trials(kills, path, expected, seconds, within_a_save, 1)
    flipped, truncated = noticed(work_dir / f'epoch_{EPOCHS}.pth')
    shutil.rmtree(work_dir)
    figures = [
        f'{anywhere["same"]}/{kills}', f'{saving["same"]}/{kills}', saving['torn'],
        f'{flipped}/{FLIPS}', f'{truncated}/{FLIPS}', round(time.monotonic() - started),
    ]  # fmt: skip
    wrong = sorted({*anywhere, *saving} - {'same', 'torn'})
    print(ROW.format(name, *figures), *wrong, flush=True)
    return anywhere['same'] == saving['same'] == kills and flipped == truncated == FLIPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20, help='per method and kind of moment')
    parser.add_argument('--methods', nargs='+', help='all of them by default')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    known = methods()
    print(ROW.format(*HEAD), flush=True)
    with cheap():
        good = [row(name, known[name], args.kills) for name in args.methods or known]
    print(f'{sum(good)} of {len(good)} methods without a fault')
    sys.exit(not all(good))


if __name__ == '__main__':
    main()
