"""What training several networks together costs, beside what the networks themselves cost.

Only ratios of one run mean something: the cases that are compared take turns, step by step.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..engine.optim_wrapper import has_bf16
from ..engine.results import git_revision, package_versions, processor_name, write_json
from ..models.builder import build
from .benchmark_cases import (
    METHODS,
    NETWORKS,
    Timer,
    bare_step,
    batch,
    data_config,
    epoch_of,
    kept_megabytes,
    online,
    step_of,
    student,
    summary,
)
from .checks import check_folder
from .shipped_configs import configs
from .train import keep_freed_memory


def step_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """Every method's step, against as many independent students and against bare PyTorch.

    In bf16 as well, where the device has instructions for it.
    """
    found = {}
    for network, (n, methods), bf16 in product(
        ['resnet32'] if quick else NETWORKS,
        [(2, ('MFEF', 'DML'))] if quick else METHODS.items(),
        (False, True) if has_bf16(timer.device) else (False,),
    ):
        inputs, labels = batch(128, timer.device)
        models = {
            method: online(method, network, n, timer.device) for method in ('Independent', *methods)
        }
        cases = {name: step_of(x, inputs, labels, bf16) for name, x in models.items()}
        bare = online('Independent', network, n, timer.device)
        rows = timer.compare({**cases, 'bare': bare_step(bare, inputs, labels, bf16)})
        for name, model in models.items():
            rows[name]['megabytes'] = kept_megabytes(cases[name], model)
        found[f'{network} x{n}, {"bf16" if bf16 else "fp32"}'] = rows
    inputs, labels = batch(128, timer.device)
    pair = {
        'FFL, separate': online('FFL', 'resnet32', 2, timer.device),
        'FFL, shared_stages=2': online('FFL', 'resnet32', 2, timer.device, shared_stages=2),
    }
    steps = {name: step_of(x, inputs, labels, False) for name, x in pair.items()}
    return found | {'shared trunk': timer.compare(steps)}


def growth_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """MFEF with more students, larger maps and more classes."""
    size = 32 if quick else 128
    inputs, labels = batch(size, timer.device)
    steps = {
        f'{n} students': step_of(online('MFEF', 'resnet20', n, timer.device), inputs, labels, False)
        for n in ((2, 8) if quick else (2, 3, 4, 8))
    }
    rows = {'students': timer.compare(steps)}
    for side in (32, 64, 128):
        inputs, labels = batch(size * 32**2 // side**2, timer.device, side)
        rows[f'map of {side // 4}'] = timer.compare(
            {
                method: step_of(online(method, 'resnet20', 2, timer.device), inputs, labels, False)
                for method in ('Independent', 'MFEF')
            }
        )
    for classes in (10, 100, 1000):
        inputs, labels = batch(size, timer.device, classes=classes)
        rows[f'{classes} classes'] = timer.compare(
            {
                method: step_of(
                    online(method, 'resnet20', 2, timer.device, classes), inputs, labels, False
                )
                for method in ('Independent', 'MFEF')
            }
        )
    return rows


def input_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """An epoch of CIFAR-like data, augmented image by image and in whole batches."""
    number = 2_000 if quick else 10_000
    cases = {
        'in memory, whole batches': epoch_of(data_config('cifar10_fast', number), timer.device),
        "mmpretrain's pipeline": epoch_of(data_config('cifar10', number), timer.device),
    }
    rows = timer.compare(cases)
    for row in rows.values():
        row['images_per_second'] = round(number / row['seconds'])
    return {'crop, flip, normalise, batch': rows}


def run_config(folder: str, number: int, epochs: int) -> Config:
    """Two independent ResNet-20 on pictures of noise, as ``tools/train.py`` trains them."""
    base = Config.fromfile(
        configs() / 'independent/independent_resnet20-x2_1xb128-20e_cifar10-folder.py'
    )
    data = data_config('cifar10_fast', number)
    for key in ('data_preprocessor', 'train_dataloader', 'val_dataloader', 'test_dataloader'):
        base[key] = data[key]
    base.model.data_preprocessor = data.data_preprocessor
    base.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    base.work_dir = folder
    base.launcher = 'none'
    return base


class TakeTurns(Hook):
    """After each epoch of a run, as many bare steps of the same networks."""

    priority = 'LOWEST'

    def __init__(self, timer: Timer) -> None:
        self.timer = timer
        self.turns: list[dict[str, float]] = []

    def before_train(self, runner: Runner) -> None:
        """Make the bare step."""
        size, device = runner.train_dataloader.batch_size, self.timer.device
        other = online('Independent', 'resnet20', 2, device)
        self.step = bare_step(other, *batch(size, device), bf16=False)

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self.start = self.timer.now()

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop it, and let the bare steps have their turn."""
        run = self.timer.since(self.start)
        steps = range(len(runner.train_dataloader))
        bare = self.timer.seconds(lambda: [self.step() for _ in steps])
        self.turns.append(dict(bare=bare, runner=run))


def runner_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """The whole runner against bare steps; and how long it takes to the first iteration."""
    with tempfile.TemporaryDirectory() as folder:
        turns = TakeTurns(timer)
        runner = Runner.from_cfg(run_config(folder, 512 if quick else 2560, timer.repeats + 1))
        runner.register_hook(turns)
        runner.train()
        rows = summary(turns.turns[1:])
        config = Path(folder, 'config.py')
        run_config(folder, 512, 1).dump(config)
        startup = {
            'bare PyTorch, with torchvision': seconds_of(BARE_STEP),
            'import torch, mmengine, mmpretrain': seconds_of('import mmengine.runner, mmpretrain'),
            'import mfef_mmrazor': seconds_of('import mfef_mmrazor.apis'),
            'first iteration': seconds_of(FIRST_ITERATION, str(config)),
        }
    return {'epoch': rows, 'start-up, seconds': startup}


BARE_STEP = """
import torch, torchvision
network = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(network.parameters(), 0.1)  # imports a good part of torch
network(torch.rand(1, 2)).sum().backward()
optimizer.step()
"""
FIRST_ITERATION = """
import os, sys
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mfef_mmrazor.apis import benchmark, load_config, train
@HOOKS.register_module()
class Stop(Hook):
    def after_train_iter(self, *args, **kwargs):
        os._exit(0)
cfg = load_config(sys.argv[1])
cfg.custom_hooks.append(dict(type='Stop'))
train(cfg)
"""


def seconds_of(code: str, *args: str) -> dict[str, float]:
    """Wall and processor time of a new Python process, each the best of three."""
    found = []
    for _ in range(3):
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, '-c', code, *args], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, os.times()
        used = after.children_user + after.children_system
        found.append((wall, used - before.children_user - before.children_system))
    wall, processor = map(min, zip(*found, strict=True))
    return dict(wall=round(wall, 2), processor=round(processor, 2))


def validation_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """One pass of the validation loop against plain forward passes of the same networks."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = run_config(folder, 500 if quick else 2000, 1)
        runner = Runner.from_cfg(cfg)
        loop: Any = runner.build_val_loop(cfg.val_cfg)
        runner._val_loop = loop
        model: Any = runner.model.to(memory_format=torch.channels_last).eval()
        batches = [model.data_preprocessor(data, False)['inputs'] for data in loop.dataloader]

        @torch.no_grad()
        def forward() -> None:
            for inputs in batches:
                for network in model.students:
                    network.head.fc(network.backbone(inputs)[-1].mean(dim=(2, 3)))

        return {'pass': timer.compare({'plain forward passes': forward, 'loop': loop.run})}


def inference_part(timer: Timer, quick: bool) -> dict[str, Any]:
    """A student as it is exported against the plain network."""
    rows = {}
    for size in (1, 128):
        inputs, _ = batch(size, timer.device)
        network: Any = build(student('resnet32')).to(timer.device).eval()
        network.to(memory_format=torch.channels_last)
        times = range(20 if size == 1 else 1)

        @torch.no_grad()
        def plain(network: Any = network, inputs: Tensor = inputs, times: range = times) -> None:
            for _ in times:
                network.head.fc(network.backbone(inputs)[-1].mean(dim=(2, 3)))

        @torch.no_grad()
        def exported(network: Any = network, inputs: Tensor = inputs, times: range = times) -> None:
            for _ in times:
                network(inputs)

        rows[f'batch of {size}'] = timer.compare({'plain': plain, 'exported': exported})
    return rows


PARTS: dict[str, Callable[[Timer, bool], dict[str, Any]]] = dict(
    step=step_part,
    growth=growth_part,
    runner=runner_part,
    input=input_part,
    validation=validation_part,
    inference=inference_part,
)


def benchmark(
    parts: Sequence[str] = tuple(PARTS),
    device: str = 'cpu',
    repeats: int = 11,
    quick: bool = False,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure parts, and print and return what was found.

    Args:
        parts: Any of ``PARTS``.
        device: ``'cpu'`` or ``'cuda'``.
        repeats: Turns of each case.
        quick: Fewer networks, methods and images.
        out: JSON file for the result, written anew after each part.

    Raises:
        ValueError: A part is unknown, ``repeats`` is below 1, there is no such device, or a part
            that runs mmengine's Runner is asked for on the CPU of a host with a GPU.
        OSError: ``out`` cannot be written, which is tried before anything is measured.
    """
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise ValueError(f'parts: {sorted(unknown)} unknown, expected any of {list(PARTS)}')
    if repeats < 1:
        raise ValueError(f'repeats={repeats}, expected 1 or more')
    if device not in ('cpu', 'cuda') or (device == 'cuda' and not torch.cuda.is_available()):
        raise ValueError(f'device={device!r}: not here; expected cpu, or cuda where there is a GPU')
    if device == 'cpu' and torch.cuda.is_available() and {'runner', 'validation'} & {*parts}:
        raise ValueError(
            'parts runner, validation: mmengine trains on the GPU, not on the cpu; hide it with '
            'CUDA_VISIBLE_DEVICES='
        )
    keep_freed_memory()
    cuda = device == 'cuda'
    found: dict[str, Any] = dict(
        device=torch.cuda.get_device_name() if cuda else processor_name(),
        clock='events on the GPU' if cuda else 'processor time of the process',
        threads=torch.get_num_threads(),
        repeats=repeats,
        quick=quick,
        versions=package_versions(),
        git_revision=git_revision(),
    )
    if out is not None:
        check_folder(Path(out).parent)
        write_json(Path(out), found)
    for part in parts:
        found[part] = PARTS[part](Timer(device, repeats), quick)
        print(json.dumps({part: found[part]}, indent=1), flush=True)
        if out is not None:
            write_json(Path(out), found)
    return found
