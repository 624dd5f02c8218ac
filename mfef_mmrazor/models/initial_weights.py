"""Starts a network from the checkpoint of one plain network, whatever names its weights have."""

import io
import logging
import pickle
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import mmpretrain
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

Weights = dict[str, Tensor]

SCRIPTS = Path(mmpretrain.__file__).parent / '.mim/tools/model_converters'
# backbone -> mmpretrain's own script for the names that torchvision, timm or the authors use
CONVERTERS = {
    'ConvNeXt': 'convnext_to_mmpretrain.py',
    'MobileNetV2': 'mobilenetv2_to_mmpretrain.py',
    'ResNet': 'torchvision_to_mmpretrain.py',
    'ShuffleNetV2': 'shufflenetv2_to_mmpretrain.py',
    'VGG': 'vgg_to_mmpretrain.py',
    'VisionTransformer': 'deit3_to_mmpretrain.py',
}
VGG_DEPTHS = {8: 11, 10: 13, 13: 16, 16: 19}  # by the number of convolutions


def load_initial_weights(network: nn.Module, path: str, name: str) -> None:
    """Load what fits of a checkpoint, and say in the log how much that is.

    Names of weights may be mmpretrain's, those of a bare backbone, or of torchvision or timm where
    mmpretrain has a converter for them; prefixes of wrappers are dropped. A weight of another
    shape, such as that of a classifier for other classes, keeps its initial value.

    Args:
        network: The network, initialised.
        path: File or URL of the checkpoint.
        name: What the network is called in messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, or no weight of it fits.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> path = f'{tempfile.mkdtemp()}/plain.pth'
        >>> torch.save(nn.Linear(2, 3).state_dict(), path)
        >>> load_initial_weights(nn.Linear(2, 3), path, 'student0')
        >>> load_initial_weights(nn.Linear(5, 5), path, 'student0')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: student0: none of its 2 weights is in ...
    """
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'{name}: checkpoint not found: {path}')
    try:
        weights = _weights(CheckpointLoader.load_checkpoint(path, 'cpu', 'silent'))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'{name}: {path} cannot be read as a checkpoint: {reason}') from None
    expected = {
        key: value
        for key, value in network.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    fitting = max((_fitting(named, expected) for named in _namings(weights, network)), key=len)
    if not fitting:
        raise ValueError(
            f'{name}: none of its {len(expected)} weights is in {path}; found names like '
            f'{", ".join([*weights][:2]) or "none"}, expected {", ".join([*expected][:2])}'
        )
    network.load_state_dict(fitting, strict=False)
    left = [key for key in expected if key not in fitting]
    print_log(
        f'{name}: loaded {len(fitting)} of {len(expected)} weights from {path}'
        + (f'; initialised anew: {", ".join(left[:6])}{", ..." * (len(left) > 6)}' if left else ''),
        logger='current',
        level=logging.WARNING if left else logging.INFO,
    )


def warn_of_twins(students: Sequence[nn.Module]) -> None:
    """Warn of students that start from the very same weights: they may never become different."""
    for i, student in enumerate(students):
        for j, other in enumerate(students[:i]):
            a, b = student.state_dict(), other.state_dict()
            if a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a):
                print_log(
                    f'student{j} and student{i} start from the same weights. They stay equal, and '
                    'teach each other nothing, unless they see other views of the images (see '
                    'configs/_base_/datasets/cifar10_folder_views.py) or have dropout',
                    logger='current',
                    level=logging.WARNING,
                )


def _weights(checkpoint: dict) -> Weights:
    """The tensors by name, of a file of mmengine's, timm's or torch's."""
    for key in ('state_dict', 'model', 'model_state'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    found = checkpoint.items() if isinstance(checkpoint, dict) else ()
    return {key: value for key, value in found if isinstance(value, Tensor)}


def _fitting(weights: Weights, expected: Weights) -> Weights:
    return {k: v for k, v in weights.items() if k in expected and v.shape == expected[k].shape}


def _namings(weights: Weights, network: nn.Module) -> Iterator[Weights]:
    """The weights under every set of names that they may be meant by."""
    yield weights
    for prefix in ('module.', 'architecture.', 'backbone.'):
        yield {key.removeprefix(prefix): value for key, value in weights.items()}
    yield {f'backbone.{key}': value for key, value in weights.items()}
    kinds = {kind.__name__ for kind in type(getattr(network, 'backbone', None)).__mro__}
    for kind in kinds & set(CONVERTERS):
        yield _converted(weights, CONVERTERS[kind])


def _converted(weights: Weights, script: str) -> Weights:
    """What a script of mmpretrain's makes of the names; nothing where it does not know them."""
    arguments = {'torchvision_to_mmpretrain.py': ['resnet'], 'vgg_to_mmpretrain.py': _vgg(weights)}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, 'source.pth'), Path(folder, 'target.pth')
        torch.save(weights, source)
        argv = [script, str(source), str(target), *arguments.get(script, [])]
        try:
            main = runpy.run_path(str(SCRIPTS / script))['main']
            with patch.object(sys, 'argv', argv), redirect_stdout(io.StringIO()):
                main()
            return _weights(torch.load(target, map_location='cpu', weights_only=True))
        except Exception:  # each has errors of its own for names that it does not know
            return {}


def _vgg(weights: Weights) -> list[str]:
    convolutions = sum(value.ndim == 4 for value in weights.values())
    normalised = any(key.endswith('running_mean') for key in weights)
    return ['--layer-num', str(VGG_DEPTHS.get(convolutions, 11)), *['--bn'] * normalised]
