"""Ends a training at the first loss, gradient or weight that is not a finite number."""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer

from ...models.builder import shortened
from ..checkpoint_files import write_atomically
from ..unwrap import optim_wrappers, unwrapped

GRADIENTS, WEIGHTS = 'the gradient', 'the norm of the weights'


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a weight is NaN or infinite."""


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops at the first step whose losses, gradient or new weights are NaN or infinite.

    The message names the loss term or the student, the iteration, the learning rate and the images
    of the batch, which is saved in the work dir as ``nonfinite_iter_<n>.pth``. No checkpoint is
    written after such a step, so the last one is finite. On the CPU a gradient that is not finite
    is dropped, not applied; on a GPU, for which the optimizer does not wait, it is noticed when it
    has been applied.

    Args:
        skip_nonfinite: How many such steps of a run are left out, with a warning, before it is
            stopped: their gradients are dropped and batch-norm statistics put back. With it, the
            optimizer waits for the GPU.

    Raises:
        ValueError: ``skip_nonfinite`` is negative.

    Example:
        >>> FiniteHook(skip_nonfinite=3).skip_nonfinite
        3
    """

    priority = 'HIGHEST'  # before anything is made of the numbers

    def __init__(self, skip_nonfinite: int = 0) -> None:
        if skip_nonfinite < 0:
            raise ValueError(f'skip_nonfinite={skip_nonfinite}, expected 0 or more')
        self.skip_nonfinite = skip_nonfinite
        self.weights: list[Tensor] = []
        self.gradient_norms: list[Tensor] = []
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        """Look at the weights that the training starts from, and at every step's gradient."""
        bad = non_finite(unwrapped(runner.model).state_dict())
        if bad:
            raise NonFiniteError(
                f'the training would start from weights that are not finite: {shortened(bad)}. '
                'Look at load_from, init_cfg and the pretrained weights'
            )
        self.handles = [
            wrapper.optimizer.register_step_pre_hook(self._before_step)
            for wrapper in optim_wrappers(runner)
        ]
        self.weights = list(unwrapped(runner.model).parameters())  # slow to gather at each step
        on_gpu = self.weights[0].is_cuda
        self.drops_gradients = not on_gpu or bool(self.skip_nonfinite)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what a step that is left out must not change."""
        self.gradient_norms = []
        if self.skip_nonfinite:
            self.buffers = [(x, x.clone()) for x in unwrapped(runner.model).buffers()]

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if getattr(optimizer, 'found_inf', None) is not None:
            return  # a fused optimizer, which leaves out by itself what overflows in float16
        norm = total_norm(p.grad for group in optimizer.param_groups for p in group['params'])
        self.gradient_norms.append(norm)
        if self.drops_gradients and not norm.isfinite():
            optimizer.zero_grad(set_to_none=True)  # torch's optimizers then change nothing

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check the step."""
        numbers = {
            name: torch.as_tensor(value).detach()
            for name, value in (outputs or {}).items()
            if 'loss' in name
        }
        if self.gradient_norms:
            numbers[GRADIENTS] = torch.stack(self.gradient_norms).sum()
        numbers[WEIGHTS] = total_norm(self.weights)
        # mmengine's log waits for the losses as well
        device = numbers[WEIGHTS].device
        sums = [x.to(device, torch.float32).sum() for x in numbers.values()]
        values = torch.stack(sums).tolist()
        bad = {name: x for name, x in zip(numbers, values, strict=True) if not math.isfinite(x)}
        if bad:
            self.report(runner, data_batch, bad)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer as it was."""
        self.weights = []
        for handle in self.handles:
            handle.remove()

    def report(self, runner: Runner, batch: Any, bad: dict[str, float]) -> None:
        """Leave the step out if that is allowed, else stop."""
        terms = [name for name in bad if name not in ('loss', GRADIENTS, WEIGHTS)]
        found = [f'{name} is {bad[name]}' for name in terms or bad]
        if not terms and WEIGHTS in bad:
            weights = [
                name
                for name, x in unwrapped(runner.model).named_parameters()
                if not total_norm([x]).isfinite()  # of 1e30 as well
            ]
            found.append(f'not finite in {shortened(owners(weights))}')
        iteration = runner.iter + 1
        lr = max(lr for wrapper in optim_wrappers(runner) for lr in wrapper.get_lr()['lr'])
        what = f'{", ".join(found)} at iteration {iteration} (lr {lr:g})'
        hub = runner.message_hub
        skipped = hub.get_info('skipped_nonfinite', 0)
        if WEIGHTS not in bad and skipped < self.skip_nonfinite:
            for now, before in self.buffers:
                now.copy_(before)
            for wrapper in optim_wrappers(runner):  # what was accumulated with them is lost as well
                wrapper.zero_grad()
            hub.update_info('skipped_nonfinite', skipped + 1)
            runner.logger.warning(
                f'{what}: left out, {skipped + 1} of {self.skip_nonfinite} such steps; batch: '
                f'{shortened(image_names(batch))}'
            )
            return
        rank = f'_rank{get_rank()}' if get_rank() else ''
        path = Path(runner.work_dir, f'nonfinite_iter_{iteration}{rank}.pth')
        save_batch(path, batch)
        broken = broken_images(batch)
        if broken:
            what += f'; the pixels of {shortened(broken)} are not finite'
        last = hub.get_info('last_ckpt') if 'last_ckpt' in hub.runtime_info else None
        raise NonFiniteError(
            f'{what}, epoch {runner.epoch + 1}; batch of {shortened(image_names(batch))}, saved in '
            f'{path}. ' + (f'Last checkpoint: {last}' if last else 'No checkpoint was saved yet')
        )


def total_norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """Sum of the tensors' norms: finite only if all of them are; those that are None left out."""
    found = [x.detach() for x in tensors if x is not None]
    return torch.stack(torch._foreach_norm(found)).sum() if found else torch.zeros(())


def non_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that have a number that is not finite."""
    return [
        name
        for name, x in tensors.items()
        if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all()
    ]


def owners(weights: Sequence[str]) -> list[str]:
    """What an :class:`OnlineDistill`'s weights belong to.

    Example:
        >>> owners(['architecture.head.fc.weight', 'peers.0.head.fc.bias', 'distiller.a.weight'])
        ['student0', 'student1', 'distiller']
    """
    found = []
    for name in weights:
        first, second, *_ = [*name.split('.'), '']
        if first == 'architecture':
            first = 'student0'
        elif first == 'peers':
            first = f'student{int(second) + 1}'
        found.append(first)
    return list(dict.fromkeys(found))


def image_names(batch: Any) -> list[str]:
    """Files of a batch's images, or their places in the data set where there are none."""
    samples = batch.get('data_samples') or [] if isinstance(batch, dict) else []
    names = []
    for sample in samples:
        number = sample.get('sample_idx', '?')
        numbers = number.tolist() if isinstance(number, Tensor) else [number]  # InMemory: many
        path = sample.get('img_path')
        names += [str(path)] if path else [f'image {number}' for number in numbers]
    return names


def broken_images(batch: Any) -> list[str]:
    """Names of the images that have a pixel that is not finite."""
    inputs = batch.get('inputs', []) if isinstance(batch, dict) else []
    # views are a list of batches, with one view of each image in each
    several = isinstance(inputs, (list, tuple)) and len(inputs) and isinstance(inputs[0], Tensor)
    views = inputs if several and inputs[0].dim() == 4 else [inputs]
    names = image_names(batch)
    return [
        name
        for i, name in enumerate(names)
        if any(i < len(view) and not view[i].float().isfinite().all() for view in views)
    ]


def save_batch(path: Path, batch: Any) -> None:
    """Save a batch as tensors and names, to look at."""
    samples = batch.get('data_samples') or [] if isinstance(batch, dict) else []
    file = io.BytesIO()
    torch.save(
        dict(
            inputs=batch.get('inputs') if isinstance(batch, dict) else None,
            labels=[sample.get('gt_label') for sample in samples],
            names=image_names(batch),
        ),
        file,
    )
    write_atomically(path, file.getvalue())
