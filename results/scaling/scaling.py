"""What several processes cost: measured on this machine, and a model of larger clusters.

python results/scaling/scaling.py measure 1 2 4
python results/scaling/scaling.py model
"""

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS
from torch import distributed, multiprocessing, nn

from mfef_mmrazor.apis import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
MEASURED = 'mfef/mfef_resnet20-x2_1xb128-300e_cifar100.py'
MODELLED = {
    'mfef/mfef_resnet20-x2_1xb128-300e_cifar100.py': (32, 128),  # pixels, images per GPU
    'mfef/mfef_resnet18-x2_8xb32-100e_in1k.py': (224, 32),
    'mfef/mfef_resnet50-x2_8xb32-100e_in1k.py': (224, 32),
}
STEPS = 8


def build(config: str) -> nn.Module:
    cfg = load_config(CONFIGS / config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def steps(rank: int, processes: int, folder: str) -> None:
    """Train some steps; the processor's seconds of one are written, compute and DDP's part."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder}/meet', world_size=processes, rank=rank)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(build(MEASURED))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.rand(32, 3, 32, 32)
    samples = [DataSample().set_gt_label(i) for i in range(32)]
    seconds = []
    for _ in range(STEPS):
        start = time.process_time()
        losses = model(inputs, samples, mode='loss')
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    Path(folder, f'{rank}').write_text(str(sorted(seconds)[len(seconds) // 2]))


def measure(numbers: list[int]) -> None:
    """Seconds of a processor per step of 32 images in each process, weak scaling."""
    print(f'| processes | processor seconds per step | of {numbers[0]} alone |\n|---|---|---|')
    alone = None
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(steps, (number, folder), nprocs=number)
            mean = sum(float(Path(folder, str(i)).read_text()) for i in range(number)) / number
        alone = alone or mean
        print(f'| {number} | {mean:.3f} | {100 * alone / mean:.0f} % |', flush=True)


@dataclass
class Cluster:
    """What is assumed of the machines."""

    flops: float = 50e12  # sustained in training, per GPU, mixed precision
    gpus_per_node: int = 8
    inside: float = 200e9  # bytes/s that an all-reduce reaches between a node's GPUs
    between: float = 20e9  # bytes/s per node between nodes: one 200 Gbit/s adapter
    latency: float = 20e-6  # seconds, for each of the log2(p) exchanges up and down
    buckets_of: float = 25e6  # bytes, DDP's default: a latency each

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds to sum ``size`` bytes of gradients over the GPUs (ring)."""
        if gpus == 1:
            return 0.0
        slowest = self.inside if gpus <= self.gpus_per_node else self.between
        exchanges = 2 * math.log2(gpus) * math.ceil(size / self.buckets_of)
        return 2 * (gpus - 1) / gpus * size / slowest + exchanges * self.latency

    def step(self, size: float, macs: float, images: int, gpus: int) -> tuple[float, float]:
        """Seconds of compute and of a whole step; backward, two thirds, hides communication."""
        compute = 3 * 2 * macs * images / self.flops
        backward = 2 / 3 * compute
        return compute, compute - backward + max(backward, self.all_reduce(size, gpus))


def model(cluster: Cluster) -> None:
    """Efficiency, compute against the whole step, of clusters on paper."""
    numbers = (8, 64, 512)
    print('| config | gradients | MACs per image | compute |'
          + ''.join(f' {n} GPUs |' for n in numbers))  # fmt: skip
    print('|---|---:|---:|---:|' + '---:|' * len(numbers))
    for config, (pixels, images) in MODELLED.items():
        whole = build(config)
        size = 4 * sum(p.numel() for p in whole.parameters())
        students = [
            get_model_complexity_info(student, (3, pixels, pixels), show_table=False)['flops']
            for student in whole.students
        ]
        macs = sum(students)
        cells = []
        for number in numbers:
            compute, step = cluster.step(size, macs, images, number)
            cells.append(f'{100 * compute / step:.0f} % (all-reduce '
                         f'{1e3 * cluster.all_reduce(size, number):.1f} ms)')  # fmt: skip
        print(f'| {Path(config).stem} | {size / 1e6:.1f} MB | {macs / 1e9:.2f} G '
              f'| {1e3 * compute:.1f} ms | ' + ' | '.join(cells) + ' |', flush=True)  # fmt: skip


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('measure').add_argument('processes', nargs='+', type=int)
    commands.add_parser('model')
    args = parser.parse_args()
    if args.command == 'measure':
        measure(args.processes)
    else:
        model(Cluster())
