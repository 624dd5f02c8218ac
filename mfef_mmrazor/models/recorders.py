"""Recorders of what every method reads: a student's logits and its last feature map."""

import math
from typing import Any

from mmpretrain.models.heads import ConformerHead
from mmrazor.models.task_modules.recorder import ModuleOutputsRecorder
from mmrazor.registry import TASK_UTILS
from torch import Tensor, nn

POOLED_AFTER = ('stages', 'layers')
"""Where mmpretrain's backbones that give pooled features keep what comes before the pooling."""


@TASK_UTILS.register_module()
class LogitsRecorder(ModuleOutputsRecorder):
    """Records a head's logits (B, K); of a head with two classifiers, :func:`combined_logits`.

    Args:
        source: Name of the head, ``'head'``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ModuleDict(dict(head=nn.Linear(4, 10)))
        >>> recorder = LogitsRecorder('head')
        >>> recorder.initialize(model)
        >>> with recorder:
        ...     logits = model['head'](torch.rand(2, 4))
        >>> torch.equal(recorder.get_record_data(), logits)
        True
    """

    def forward_hook(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        """Keep the logits that the head has just given."""
        super().forward_hook(module, inputs, combined_logits(module, outputs))


def combined_logits(head: nn.Module | None, outputs: Any) -> Any:
    """Logits (B, K) of what a head gives: those of two classifiers as it predicts by them.

    That is their sum for mmpretrain's Conformer, and their mean for any other.

    Example:
        >>> import torch
        >>> combined_logits(None, [torch.ones(1, 2), torch.zeros(1, 2)])
        tensor([[0.5000, 0.5000]])
    """
    if not isinstance(outputs, (tuple, list)):
        return outputs
    total = sum(outputs[1:], outputs[0])
    return total if isinstance(head, ConformerHead) else total / len(outputs)


@TASK_UTILS.register_module()
class FeatureMapRecorder(ModuleOutputsRecorder):
    """Records a backbone's last feature map (B, C, H, W), whatever it hands on to the head.

    - The backbone gives maps (ResNet, Swin, ...): the last one.
    - It is a transformer (ViT, DeiT, BEiT, ...): its last tokens, each at its place in the image;
      class and distillation tokens are left out.
    - It gives pooled features (ConvNeXt, HorNet, EdgeNeXt, TinyViT, ...): what was pooled, the
      output of its last stage.
    - It gives (B, C, N) for N places of a square image (MlpMixer, EfficientFormer): the square.

    Anything else is recorded as it is. A method that needs a map then raises an error at the first
    step, which names the recorder to set. The recorder does not change what the network computes.

    Args:
        source: Name of the backbone, ``'backbone'``.

    Example:
        >>> import torch
        >>> from mmpretrain.models import VisionTransformer
        >>> from torch import nn
        >>> model = nn.ModuleDict(dict(backbone=VisionTransformer('deit-t', img_size=64)))
        >>> recorder = FeatureMapRecorder('backbone')
        >>> recorder.initialize(model)
        >>> with recorder:
        ...     features = model['backbone'](torch.rand(2, 3, 64, 64))
        >>> [tuple(x.shape) for x in features], tuple(recorder.get_record_data().shape)
        ([(2, 192)], (2, 192, 4, 4))
        >>> recorder.note
        'VisionTransformer gives (2, 192); its 16 patch tokens are taken as a map of 4 x 4'
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.note = ''
        """What was done to get a map, for the log; empty where the backbone gave one."""
        self._tokens: tuple[Tensor, tuple[int, int]] | None = None
        self._last_stage: Any = None

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Hook the backbone and, where it has any, its last stage."""
        super().prepare_from_model(model)
        self._backbone: Any = model.get_submodule(self.source)  # type: ignore[union-attr]
        for name in POOLED_AFTER:
            stages = getattr(self._backbone, name, None)
            if isinstance(stages, (nn.ModuleList, nn.Sequential)) and len(stages):
                stages[-1].register_forward_hook(self._keep_last_stage)

    def __enter__(self) -> None:
        super().__enter__()
        if hasattr(self._backbone, '_format_output'):
            # how mmpretrain's transformers get from their tokens to what they give
            format_output = self._backbone._format_output

            def keep_tokens(tokens: Tensor, *args: Any) -> Any:
                self._tokens = (tokens, args[0]) if args else None
                return format_output(tokens, *args)

            self._backbone._format_output = keep_tokens

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._backbone.__dict__.pop('_format_output', None)

    def forward_hook(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        """Keep the map behind what the backbone has just given."""
        if self.recording:
            self.data_buffer.append(self._map_of(outputs))
        self._tokens = self._last_stage = None

    def _keep_last_stage(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.recording:
            self._last_stage = output

    def _map_of(self, outputs: Any) -> Any:
        output = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
        if _is_map(output):
            return output
        last_stage = self._last_stage
        if self._tokens is not None:
            tokens, (height, width) = self._tokens
            found = _square(tokens[:, -height * width :].mT, height, width)
            what = 'patch tokens'
        elif _is_map(last_stage):
            found, what = last_stage, 'pixels of the last stage'
        elif isinstance(output, Tensor) and output.dim() == 3:
            found, what = _square(output), 'places'
        elif isinstance(last_stage, Tensor) and last_stage.dim() == 3:
            found, what = _square(last_stage.mT), 'tokens of the last stage'
        else:
            return output
        if not _is_map(found):
            return output
        height, width = found.shape[2:]
        given = f'gives {tuple(output.shape)}' if isinstance(output, Tensor) else 'gives no map'
        self.note = (
            f'{type(self._backbone).__name__} {given}; its {height * width} {what} are taken '
            f'as a map of {height} x {width}'
        )
        return found


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4


def _square(places: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
    """(B, C, N) as a map, of a square where no size is given; as it is where N is not a square."""
    side = math.isqrt(places.shape[2])
    height, width = height or side, width or side
    if height * width != places.shape[2]:
        return places
    return places.unflatten(2, (height, width))
