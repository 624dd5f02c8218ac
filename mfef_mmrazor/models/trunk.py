"""The low stages of a network, which students may share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmpretrain.models.backbones.resnet import ResNet
from torch import Tensor, nn

from ..cfg_type import Cfg
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


class Trunk:
    """The part that all students have in common, run once per step; false if there is none.

    Args:
        students: All of them; the others lose their own part, see :func:`share_low_modules`.
        stages: How many stages they share, with the stem; 0 for none.
        mean_gradient: Divide the gradient of the trunk's output by the number of students.

    Raises:
        ValueError: There is nothing to divide; or see :func:`share_low_modules`.
    """

    def __init__(
        self, students: Sequence[nn.Module], stages: int, mean_gradient: bool = False
    ) -> None:
        if mean_gradient and not stages:
            raise ValueError('mean_trunk_gradient: the students have no trunk; set shared_stages')
        self.first, self.number, self.mean_gradient = students[0], len(students), mean_gradient
        self.names = share_low_modules(students, stages) if stages else []

    def __bool__(self) -> bool:
        return bool(self.names)

    @contextmanager
    def running(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """A function from a student's images to what the student starts from.

        That is the images for the first student, and the trunk's map as soon as that student has
        run. Without a trunk, it is always the images.
        """
        maps: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.mean_gradient and output.requires_grad:
                output.register_hook(lambda gradient: gradient / self.number)
            maps.append(output)

        def start_of(images: Tensor) -> Tensor:
            return maps[0] if maps else images

        if not self:
            yield start_of
            return
        handle = self.first.get_submodule(self.names[-1]).register_forward_hook(keep)
        try:
            yield start_of
        finally:
            handle.remove()

    def weights(self) -> dict[str, Tensor]:
        """State dict of the shared modules, by their names in a whole network."""
        return {
            f'{name}.{key}': value
            for name in self.names
            for key, value in self.first.get_submodule(name).state_dict().items()
        }

    def check_recorders(self, recorders: Sequence[Mapping[str, Cfg]]) -> None:
        """Raise a ``ValueError`` for a recorder of what only the first student has.

        The others have no trunk of their own, so only the trunk's output can be recorded.

        Args:
            recorders: Configs by name, for each student.
        """
        inside = tuple(f'{name}.' for name in self.names)
        for i, cfgs in enumerate(recorders[1:] if self else [], start=1):
            for name, cfg in cfgs.items():
                kind, source = cfg.get('type'), cfg.get('source', '')
                within = f'{source}.'.startswith(inside)
                around = kind == 'ModuleInputs' and any(x.startswith(f'{source}.') for x in inside)
                output = kind in ('ModuleOutputs', 'FeatureMap') and source == self.names[-1]
                if (within or around) and not output:
                    raise ValueError(
                        f'recorder {name!r}: {source!r} of student{i} is inside or around the '
                        'stages that the students share; of those only the output can be recorded, '
                        f'ModuleOutputs of {self.names[-1]!r}'
                    )
