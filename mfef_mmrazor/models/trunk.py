"""The low stages of a network, which students may share."""

from collections.abc import Sequence

from mmpretrain.models.backbones.resnet import ResNet
from torch import nn

from .backbones import WideResNet


def low_modules(student: nn.Module, stages: int) -> list[str]:
    """Names of the stem's modules and of the first stages, in the order in which they run.

    Raises:
        ValueError: It is not known which modules these are, or no stage would be left.
    """
    backbone = getattr(student, 'backbone', None)
    if isinstance(backbone, WideResNet):
        stem, names = ['conv1'], [f'stages.{i}' for i in range(len(backbone.stages))]
    elif isinstance(backbone, ResNet):
        names = list(backbone.res_layers)
        stem = [name for name, _ in backbone.named_children() if name not in names]
    else:
        raise ValueError(
            f'shared_stages: found a {type(backbone or student).__name__}, expected students whose '
            "backbone is a CifarResNet, a WideResNet or one of mmpretrain's ResNets"
        )
    if not 0 < stages < len(names):
        raise ValueError(
            f'shared_stages={stages}, expected 0 to {len(names) - 1}: the backbone has '
            f'{len(names)} stages, and at least the last is not shared'
        )
    return [f'backbone.{name}' for name in [*stem, *names[:stages]]]


def share_low_modules(students: Sequence[nn.Module], stages: int) -> list[str]:
    """Share the stem and the first stages: the other students start from the first one's map.

    In the other students these modules are replaced by ``nn.Identity``, so they must be called with
    that feature map instead of images.

    Args:
        students: Changed in place, all but the first.
        stages: How many stages, beside the stem.

    Returns:
        Names of the shared modules, in the order in which they run.

    Raises:
        ValueError: These parts are not the same in all students, or see :func:`low_modules`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mfef_mmrazor.models import WideResNet
        >>> one, other = (nn.ModuleDict(dict(backbone=WideResNet(10))) for _ in range(2))
        >>> share_low_modules([one, other], stages=2)
        ['backbone.conv1', 'backbone.stages.0', 'backbone.stages.1']
        >>> [tuple(x.shape) for x in other.backbone(torch.rand(1, 32, 16, 16))]
        [(1, 64, 8, 8)]
    """
    first, *others = students
    shared = low_modules(first, stages)
    for i, student in enumerate(others, start=1):
        same = low_modules(student, stages) == shared and all(
            str(student.get_submodule(name)) == str(first.get_submodule(name)) for name in shared
        )
        if not same:
            raise ValueError(
                f'shared_stages={stages}, but stem and first stages of student{i} are not built '
                'like those of student0: only later parts of the networks may differ'
            )
    for student in others:
        for name in shared:
            parent, _, child = name.rpartition('.')
            setattr(student.get_submodule(parent), child, nn.Identity())
    return shared
