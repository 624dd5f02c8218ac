"""Kills runs with SIGKILL, resumes them, and compares what they come to with undisturbed runs.

Prints one line per method: at how many of the random moments, and of the moments within a save
(with one kept checkpoint), weights, optimizer, schedules and results were bit-identical in the end;
then how many of the flipped bits and truncated files were noticed.

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
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.checkpoint_files import DamagedCheckpointError, check_intact

CONFIGS = Path(__file__).parents[2] / 'configs'
EPOCHS = 2


def methods() -> dict[str, Path]:
    """The digits configs of several students, by what comes before the first ``_``."""
    found = sorted(CONFIGS.glob('*/*_1xb32-20e_digits.py'), key=lambda path: -len(path.name))
    paths = {path.name.split('_')[0]: path for path in found}
    return {
        name: path
        for name, path in sorted(paths.items())
        if 'students' in load_config(path, 'unused').model
    }


def run(path: Path, work_dir: Path, **options) -> None:
    """A tiny training, resumed if there is something to resume."""
    options = {key.replace('__', '.'): value for key, value in options.items()}
    cfg = load_config(
        path,
        work_dir,
        {
            'val_dataloader.dataset.indices': 40,
            'train_cfg.max_epochs': EPOCHS,
            'train_dataloader.batch_size': 20,
            **options,
        },
    )
    dataset = cfg.train_dataloader.dataset
    (dataset if dataset.type.endswith('Digits') else dataset.dataset).train_per_class = 12
    train(cfg, resume=True)


def start(target: Callable, *args, **kwargs) -> int:
    """Start a function in a fork of this process, which has imported everything already."""
    child = os.fork()
    if child:
        return child
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    status = 1
    try:
        target(*args, **kwargs)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def finish(child: int) -> int:
    """Wait for the end of a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_running(child: int) -> bool:
    """Whether a process that was started has not ended (and is not waited for)."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end(work_dir: Path) -> list:
    """What a run has come to: everything but times."""
    stored = torch.load(work_dir / f'epoch_{EPOCHS}.pth', weights_only=True)
    history = stored['results']['history']
    return [stored['state_dict'], stored['optimizer'], stored['param_schedulers'], history]


def same(a, b) -> bool:
    """Whether two nested structures are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def at_random(seconds: float, work_dir: Path) -> Callable[[int], None]:
    """Wait for a random moment of a run that takes so long."""
    moment = time.monotonic() + random.uniform(0, seconds)

    def wait(child: int) -> None:
        while is_running(child) and time.monotonic() < moment:
            time.sleep(0.005)

    return wait


def within_a_save(seconds: float, work_dir: Path) -> Callable[[int], None]:
    """Wait for the first or second checkpoint to be half written."""
    wanted = f'epoch_{random.randint(1, EPOCHS)}.pth.partial'

    def wait(child: int) -> None:
        while is_running(child) and not (work_dir / wanted).exists():
            time.sleep(0.0005)

    return wait


def survived(path: Path, expected: list, seconds: float, choose: Callable, **options) -> str:
    """Kill a run and resume it: ``'same'``, or what went wrong."""
    work_dir = Path(tempfile.mkdtemp())
    try:
        wait = choose(seconds, work_dir)
        child = start(run, path, work_dir, **options)
        wait(child)
        os.kill(child, signal.SIGKILL)
        finish(child)
        if finish(start(run, path, work_dir, **options)):
            return 'could not be resumed'
        return 'same' if same(expected, end(work_dir)) else 'another end'
    finally:
        shutil.rmtree(work_dir)


def noticed(checkpoint: Path, trials: int) -> tuple[int, int]:
    """How many flipped bits, and how many truncations, of a checkpoint are noticed."""
    content = checkpoint.read_bytes()
    flipped = truncated = 0
    for _ in range(trials):
        broken = bytearray(content)
        broken[random.randrange(len(content))] ^= 1 << random.randrange(8)
        flipped += is_noticed(checkpoint, broken)
        truncated += is_noticed(checkpoint, content[: random.randrange(len(content))])
    checkpoint.write_bytes(content)
    return flipped, truncated


def is_noticed(checkpoint: Path, content: bytes) -> bool:
    """Whether a checkpoint with this content is taken for damaged."""
    checkpoint.write_bytes(content)
    try:
        check_intact(checkpoint)
    except DamagedCheckpointError:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20, help='per method and kind of moment')
    parser.add_argument('--methods', nargs='+', help='all of them by default')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    known = methods()
    failures = 0
    for name in args.methods or known:
        work_dir = Path(tempfile.mkdtemp())
        started = time.monotonic()
        if finish(start(run, known[name], work_dir)):
            sys.exit(f'{name}: the undisturbed run failed')
        seconds, expected = time.monotonic() - started, end(work_dir)
        line = [f'{name:14}']
        for what, choose, options in (
            ('killed at random', at_random, {}),
            (
                'in a save, one kept',
                within_a_save,
                dict(default_hooks__checkpoint__max_keep_ckpts=1),
            ),
        ):
            found = [
                survived(known[name], expected, seconds, choose, **options)
                for _ in range(args.kills)
            ]
            good = found.count('same')
            failures += len(found) - good
            line.append(f'{what} {good}/{len(found)}')
            line += sorted(set(found) - {'same'})
        flipped, truncated = noticed(work_dir / f'epoch_{EPOCHS}.pth', trials := 100)
        failures += 2 * trials - flipped - truncated
        line.append(f'flips noticed {flipped}/{trials}, truncations {truncated}/{trials}')
        print('; '.join(line), flush=True)
        shutil.rmtree(work_dir)
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
