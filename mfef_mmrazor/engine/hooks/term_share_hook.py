"""Measures what each term of the loss contributes, and how hard it pulls at each student."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from torch import Tensor

from ...models.algorithms.online_distill import OnlineDistill
from ..position import by_iterations, position, steps_per_epoch
from ..random_state import kept_random_state
from ..results import UNITS, write_figure
from ..unwrap import unwrapped

if TYPE_CHECKING:  # slow to import, and few need it
    from matplotlib.figure import Figure

Entry = dict[str, float]
"""One measurement: ``epoch`` or ``iter``, ``share.TERM`` in percent, ``gradient.STUDENT.TERM``."""


@HOOKS.register_module()
class TermShareHook(Hook):
    r"""Answers why distillation does not help: is a term lost among the others, or drowning them?

    Before the first step of every epoch, a copy of the model computes the losses :math:`L_t` of
    that step's batch. For each term it gives the share :math:`|L_t| / \sum_s |L_s|` and, for each
    student with weights :math:`\theta_i`, the norm :math:`\|\partial L_t / \partial \theta_i\|`.
    They go to the log's scalars (TensorBoard shows them as ``terms/...``) and, at the end, to
    ``terms.png`` in the work dir. The training itself is not touched: model, batch and random
    numbers are as they were. It costs the time of a few steps and the memory of a second model, so
    it is for a config that asks for it: ``custom_hooks=[..., dict(type='mmrazor.TermShareHook')]``.

    :class:`ResultsHook` has the shares without it, from the logged losses, and says in the log when
    a term is lost or drowns the others.
    """

    priority = 'LOW'  # after RampUpHook has said how far the training is

    def __init__(self) -> None:
        self.history: list[Entry] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Measure at the first step of an epoch."""
        model = unwrapped(runner.model)
        if not isinstance(model, OnlineDistill) or runner.iter % steps_per_epoch(runner):
            return
        with kept_random_state():
            losses, gradients = measure(model, copy.deepcopy(data_batch))
        total = sum(abs(x) for x in losses.values()) or 1.0
        shares = {f'share.{term}': 100 * abs(x) / total for term, x in losses.items()}
        gradients = {f'gradient.{name}': norm for name, norm in gradients.items()}
        self.history.append({**position(runner), **shares, **gradients})
        runner.visualizer.add_scalars(
            {f'terms/{name}': x for name, x in {**shares, **gradients}.items()}, step=runner.iter
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what was measured."""
        checkpoint['term_shares'] = self.history

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take it back when a run is resumed."""
        if runner._resume:
            self.history = checkpoint.get('term_shares', [])

    def after_train(self, runner: Runner) -> None:
        """Draw the picture."""
        if self.history and is_main_process():
            unit = 'iter' if by_iterations(runner) else 'epoch'
            draw_terms(Path(runner.work_dir) / 'terms.png', self.history, unit)


def measure(
    model: OnlineDistill, data_batch: dict[str, Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """Every loss of one batch by its name, and the norm of its gradient, by student and name.

    Args:
        model: In training mode; a copy of it is used.
        data_batch: As it comes from the data loader.
    """
    model = copy.deepcopy(model)
    model.first_step_checked = True  # the model itself will, and says so once
    model.zero_grad()
    with torch.enable_grad():
        losses = model.loss(**model.data_preprocessor(data_batch, True))
    terms = {name: torch.as_tensor(x) for name, x in losses.items() if 'loss' in name}
    weights = [[p for p in s.parameters() if p.requires_grad] for s in model.students]
    norms = {}
    for name, term in terms.items():
        if not term.requires_grad:
            continue
        everything = [p for own in weights for p in own]
        found = iter(torch.autograd.grad(term, everything, retain_graph=True, allow_unused=True))
        for i, own in enumerate(weights):
            norms[f'student{i}.{name}'] = _norm([next(found) for _ in own])
    return {name: float(x.detach()) for name, x in terms.items()}, norms


def _norm(gradients: list[Tensor | None]) -> float:
    squares = [float(x.double().square().sum()) for x in gradients if x is not None]
    return sum(squares) ** 0.5


def draw_terms(path: Path, history: list[Entry], unit: str) -> 'Figure':
    """Shares of the loss above; below, for each student, the gradients of the terms (log scale)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [name for name in history[-1] if name != unit]
    shares = [name for name in names if name.startswith('share.')]
    students = sorted({name.split('.')[1] for name in names if name.startswith('gradient.')})
    figure = Figure(figsize=(9, 3 * (1 + len(students))), layout='constrained')
    axes = figure.subplots(1 + len(students), 1, sharex=True, squeeze=False)[:, 0]
    color = {name.removeprefix('share.'): f'C{i % 10}' for i, name in enumerate(shares)}
    prefixes = ['share.', *(f'gradient.{student}.' for student in students)]
    for panel, prefix in zip(axes, prefixes, strict=True):
        for term in color:
            known = [entry for entry in history if entry.get(prefix + term)]
            if known:
                xs, ys = zip(*((entry[unit], entry[prefix + term]) for entry in known), strict=True)
                panel.plot(xs, ys, color=color[term], marker='.', label=term)
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0].set(ylabel='share of the loss (%)', ylim=(0, None))
    for panel, student in zip(axes[1:], students, strict=True):
        panel.set(ylabel=f'gradient of {student}', yscale='log')
    axes[-1].set_xlabel(f'{UNITS[unit]}s before the measurement')
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right upper', fontsize='small')
    write_figure(path, figure)
    return figure
