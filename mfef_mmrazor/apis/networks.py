"""Sizes of the networks that a folder of configs describes."""

import re
from pathlib import Path

import torch
from mmengine.config import Config

from ..engine.results import deployed_size
from ..models.builder import build

# the end of a config's name -> height and width of its images, numbers of classes
DATA = dict(cifar=(32, (10, 100)), imagenet=(224, (1000,)))


def count_networks(folder: str | Path) -> str:
    """Parameters and multiply-adds of every network, as a table in Markdown.

    Args:
        folder: Config files ``<name>_cifar.py`` or ``<name>_imagenet.py``, each with a ``student``.

    Returns:
        A row a network: name, parameters and multiply-adds of its convolutions and linear layers
        (with 10 and with 100 classes on CIFAR, with 1000 on ImageNet), shape of the last map.

    Raises:
        FileNotFoundError: There is no config in the folder.
        ValueError: A config's name does not end in the data it is for.
    """
    paths = sorted(Path(folder).glob('*.py'), key=_by_numbers)
    if not paths:
        raise FileNotFoundError(f'no config files in {folder}')
    rows = ['| network | parameters | MACs | last map |', '|---|---:|---:|---|']
    for path in paths:
        rows.append('| ' + ' | '.join([f'`{path.stem}`', *_sizes(path)]) + ' |')
    return '\n'.join(rows) + '\n'


def _sizes(path: Path) -> tuple[str, str, str]:
    data = path.stem.rpartition('_')[2]
    if data not in DATA:
        raise ValueError(
            f'{path.name} ends in none of ' + ', '.join(f'_{name}.py' for name in DATA)
        )
    size, classes = DATA[data]
    student = Config.fromfile(path).student
    images = torch.zeros(1, 3, size, size)
    counts = []
    for num_classes in classes:
        student.head.num_classes = num_classes
        network = build(student).eval()
        counts.append(deployed_size(network, images))
    with torch.no_grad():
        last_map = network.backbone(images)[-1].shape[1:]
    return (
        ' / '.join(f'{count["parameters"]:,}' for count in counts),
        ' / '.join(f'{count["macs"] / 1e6:.2f}' for count in counts) + ' M',
        'x'.join(map(str, last_map)),
    )


def _by_numbers(path: Path) -> list[str]:
    """Sorts resnet8 before resnet14."""
    return [part.zfill(4) if part.isdigit() else part for part in re.split(r'(\d+)', path.stem)]
