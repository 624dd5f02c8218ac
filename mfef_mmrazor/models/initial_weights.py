"""Starts a network from the checkpoint of one plain network, whatever names its weights have."""

import io
import logging
import runpy
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import mmpretrain
import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ..safe_load import safe_load
from .builder import shortened

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
    shape, such as that of a classifier for other classes, keeps its initial value, unless the
    network itself fits it, as vision transformers resize their position embeddings.

    Args:
        network: The network, initialised.
        path: File or URL of the checkpoint.
        name: What the network is called in messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, or no weight of it fits the network's backbone.

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
    weights = _read(path, name)
    _load_fitting(network, _namings(weights, network), path, name)


def _read(path: str, name: str) -> Weights:
    try:
        return _weights(safe_load(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f'{name}: {error}') from None


def _load_fitting(network: nn.Module, namings: Iterable[Weights], path: str, name: str) -> None:
    """Load the weights that fit, by the naming that fits most of them, and log how many fit."""
    # whole numbers are no weights: counts of batch norm, indices of position embeddings
    expected = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    needed = {key for key in expected if key.startswith('backbone.')} or {*expected}
    found: list[str] = []
    best: Weights = {}
    for named in namings:
        found = found or [*named]
        best = max(best, named, key=lambda weights: len(_fitting(weights, expected)))
        if expected.keys() <= named.keys():
            break
    fitting = _fitting(best, expected)
    if needed and not needed & fitting.keys():
        raise ValueError(
            f'{name}: none of its {len(needed)} weights is in {path}; found names like '
            f'{", ".join(found[:2]) or "none"}, expected {", ".join(sorted(needed)[:2])}'
        )
    loaded = {*fitting, *_load_resized(network, best, expected)}
    network.load_state_dict(fitting, strict=False)
    left = [key for key in expected if key not in loaded]
    parts = {key.split('.')[1] for key in needed if key.startswith('backbone.')}
    deeper = [
        key
        for key, value in best.items()
        if key.startswith('backbone.')
        and key.split('.')[1] in parts
        and value.is_floating_point()
        and key not in expected
    ]
    print_log(
        f'{name}: loaded {len(loaded)} of {len(expected)} weights from {path}'
        + (f'; initialised anew: {shortened(left)}' if left else '')
        + (f'; not in this network: {shortened(deeper)}' if deeper else ''),
        logger='current',
        level=logging.WARNING if left or deeper else logging.INFO,
    )


def _load_resized(network: nn.Module, weights: Weights, expected: Weights) -> set[str]:
    """Load weights of another shape that the network resizes itself, and return their names."""
    before = {
        key: expected[key].clone()
        for key, value in weights.items()
        if key in expected and value.shape != expected[key].shape
    }
    if before:
        with suppress(Exception):  # torch's, of what is not resized; or the network's own
            network.load_state_dict({k: weights[k] for k in weights if k in expected}, strict=False)
    return {key for key, value in before.items() if not torch.equal(value, expected[key])}


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class CheckedPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', checkpoint=...)`` that says how much of it was loaded.

    mmengine's own starts from random weights without an error if nothing in the file fits. It is
    replaced in the registry, so that the ``init_cfg`` of every part of a network, and of networks
    outside of an :class:`OnlineDistill`, comes here.

    Args:
        checkpoint: File or URL.
        prefix: The part of the checkpoint's network to take, such as ``'backbone.'``.
        map_location: Ignored: what is read goes to where the module is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, or no weight of it fits.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load what fits into ``module``."""
        name = type(module).__name__
        if self.prefix is None:
            load_initial_weights(module, self.checkpoint, name)
        else:
            prefix = f'{self.prefix.rstrip(".")}.'
            weights = {
                key.removeprefix('module.'): value
                for key, value in _read(self.checkpoint, name).items()
            }
            part = {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
            if not part:
                raise ValueError(
                    f'{name}: no weight in {self.checkpoint} starts with {prefix!r}, the prefix of '
                    f'its init_cfg; found names like {shortened([*weights], 2)}'
                )
            _load_fitting(module, [part], self.checkpoint, name)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def warn_of_twins(students: Sequence[Weights]) -> None:
    """Warn of students with identical weights: on the same images, they stay identical.

    Args:
        students: Weights of each as a plain network.
    """
    for i, a in enumerate(students):
        for j, b in enumerate(students[:i]):
            if a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a):
                print_log(
                    f'student{j} and student{i} have the same weights and see the same images. '
                    'They stay equal and teach each other nothing, unless they have dropout or the '
                    'method has weights of its own, which make a small difference: '
                    'start them from other weights, or give each a view of its own (see '
                    'configs/_base_/datasets/cifar10_folder_views.py)',
                    logger='current',
                    level=logging.WARNING,
                )


def _weights(checkpoint: dict[str, Any]) -> Weights:
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
    for wrapper in ('module.', '_orig_mod.', 'module.'):  # of DDP, of torch.compile, of DDP in it
        weights = {key.removeprefix(wrapper): value for key, value in weights.items()}
    yield weights
    for prefix in ('architecture.', 'backbone.'):
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
