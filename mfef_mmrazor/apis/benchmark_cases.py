"""What the benchmark measures: steps of networks, data and the clock that they are measured by."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..cfg_type import Cfg
from ..engine.hooks.distiller_update_hook import announce_updates
from ..engine.optim_wrapper import BFloat16OptimWrapper
from ..models import OnlineDistill
from ..models.builder import build
from .shipped_configs import configs

Case = Callable[[], Any]
NETWORKS: dict[str, tuple[Cfg, list[int]]] = {
    'resnet20': (dict(type='CifarResNet', depth=20), [16, 32, 64]),
    'resnet32': (dict(type='CifarResNet', depth=32), [16, 32, 64]),
    'wrn-16-2': (dict(type='WideResNet', depth=16, widen_factor=2), [32, 64, 128]),
}
"""Backbones and the channels of their three stages."""
RECORDERS = {
    'wrn-16-2': {
        f'stage{i + 1}': dict(type='ModuleOutputs', source=f'backbone.stages.{i}') for i in (0, 1)
    }
}
"""Recorders of hidden stages, where the distillers' own, made for ``CifarResNet``, do not fit."""
METHODS = {
    2: ('DML', 'KDCL', 'ONE', 'MCL', 'PCL', 'FFL', 'MFEF', 'DCM', 'DCCL', 'OKDPH'),
    3: ('CLILR', 'OKDDip', 'DKEL', 'FFSD'),
}
"""Those for equal students, by the number that their configs have."""
STAGES_READ = dict(DCM=2, DCCL=3, FFSD=3)
"""The methods that read maps of several stages, and how many."""


@DATASETS.register_module()
class RandomPictures(BaseDataset):
    """Pictures of noise, 32 x 32, in memory as mmpretrain has CIFAR's.

    Args:
        number: How many.
        pipeline: Transforms.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, number: int = 10_000, pipeline: Sequence[Cfg] = ()) -> None:
        self.number = number
        super().__init__(ann_file='', pipeline=pipeline)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images and labels."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (self.number, 32, 32, 3), dtype=np.uint8)
        return [dict(img=image, gt_label=i % 10) for i, image in enumerate(images)]


class Timer:
    """Lets cases take turns and measures each turn.

    On a CPU it is the processor time of this process, which other work on the machine changes
    little; on a GPU the time between two events.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        repeats: Turns of each case that count.
        warm_up: Turns before them that do not.
    """

    def __init__(self, device: str, repeats: int, warm_up: int = 2) -> None:
        self.device = device
        self.repeats = repeats
        self.warm_up = warm_up

    def seconds(self, case: Case) -> float:
        """Of one turn."""
        start = self.now()
        case()
        return self.since(start)

    def now(self) -> Any:
        """The time, or an event on the GPU."""
        if self.device == 'cpu':
            return time.process_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def since(self, start: Any) -> float:
        """Seconds since a :meth:`now`."""
        end = self.now()
        if self.device == 'cpu':
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def compare(self, cases: dict[str, Case]) -> dict[str, dict[str, Any]]:
        """Median seconds of each case, and its ratio to the first, turn by turn."""
        turns = [
            {name: self.seconds(case) for name, case in cases.items()}
            for _ in range(self.warm_up + self.repeats)
        ][self.warm_up :]
        return summary(turns)


def summary(turns: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Medians and quartiles of turns; ratios are to the first case of the same turn.

    Example:
        >>> summary([dict(a=1.0, b=2.0), dict(a=2.0, b=4.0)])['b']
        {'seconds': 3.0, 'ratio': 2.0, 'quartiles': [2.0, 2.0]}
    """
    first = next(iter(turns[0]))
    found = {}
    for name in turns[0]:
        ratios = [turn[name] / turn[first] for turn in turns]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
        found[name] = dict(
            seconds=statistics.median(turn[name] for turn in turns),
            ratio=round(statistics.median(ratios), 4),
            quartiles=[round(low, 4), round(high, 4)],
        )
    return found


def student(network: str, classes: int = 10) -> Cfg:
    """Config of a student."""
    backbone, channels = NETWORKS[network]
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=channels[-1]),
    )


def online(
    method: str, network: str, students: int, device: str, classes: int = 10, **kwargs: Any
) -> OnlineDistill:
    """An ``OnlineDistill`` of equal students, ready to train."""
    distiller: Cfg = dict(type=f'{method}Distiller')
    if method == 'MFEF':
        distiller['ramp_up_epochs'] = 0
    if method in STAGES_READ:
        distiller['in_channels'] = NETWORKS[network][1][: STAGES_READ[method]]
        distiller['recorders'] = RECORDERS.get(network)
    configs = [student(network, classes) for _ in range(students)]
    model = OnlineDistill(configs, distiller, **kwargs)
    return model.to(device, memory_format=torch.channels_last).train()


def sgd(model: nn.Module) -> torch.optim.SGD:
    """The optimizer of all cases, with a step too small for numbers to run away."""
    return torch.optim.SGD(model.parameters(), 1e-4, 0.9, weight_decay=5e-4, nesterov=True)


def bare_step(model: OnlineDistill, inputs: Tensor, labels: Tensor, bf16: bool) -> Case:
    """A plain PyTorch step of the model's students, with nothing of OpenMMLab's around them."""
    networks: Any = nn.ModuleList(model.students)
    optimizer = sgd(networks)

    def step() -> None:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
            logits = [x.head.fc(x.backbone(inputs)[-1].mean(dim=(2, 3))) for x in networks]
            losses = [F.cross_entropy(z, labels) for z in logits]
        optimizer.zero_grad()
        sum(losses).backward()  # type: ignore[union-attr]
        optimizer.step()

    return step


def step_of(model: OnlineDistill, inputs: Tensor, labels: Tensor, bf16: bool) -> Case:
    """A training step, from preprocessed images on."""
    wrapper: Any = (BFloat16OptimWrapper if bf16 else OptimWrapper)(sgd(model))
    samples = [DataSample(gt_label=labels)]
    announce_updates(model, wrapper.optimizer)

    def step() -> None:
        with wrapper.optim_context(model):
            losses = model.loss(inputs, samples)
        loss, _ = model.parse_losses(losses)
        wrapper.update_params(loss)

    return step


def batch(size: int, device: str, side: int = 32, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in channels-last format, and labels (B,)."""
    images = torch.randn(size, 3, side, side).to(memory_format=torch.channels_last)
    return images.to(device), torch.randint(classes, (size,), device=device)


def kept_megabytes(step: Case, model: nn.Module) -> float:
    """What a step needs at its peak, nearly: weights, gradients, momenta, and all that the forward
    pass keeps for the backward pass."""
    storages: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        step()
    weights = sum(3 * p.numel() * p.element_size() for p in model.parameters())
    return round((sum(storages.values()) + weights) / 2**20, 1)


def data_config(kind: str, number: int) -> Config:
    """Loaders and preprocessor of a shipped data config, over pictures of noise."""
    cfg = Config.fromfile(configs() / f'_base_/datasets/{kind}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 0
        data = loader.dataset
        pictures = dict(type='RandomPictures', number=number)
        if data.type == 'InMemory':
            data.dataset = pictures
        else:
            loader.dataset = dict(pictures, pipeline=data.pipeline)
    return cfg


def epoch_of(cfg: Config, device: str) -> Case:
    """All batches of the training data, augmented on the device."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    preprocessor = build(cfg.data_preprocessor).to(device)

    def epoch() -> None:
        for data in loader:
            preprocessor(data, True)

    return epoch
