"""Says what becomes of the schedules when a run goes on for longer than it was planned."""

import copy
import logging
import warnings
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner
from mmrazor.registry import HOOKS

from ...cfg_type import Cfg

HOWS = {
    'keep': 'as the run was started; after their end the values stay where they are',
    'config': 'as the config says now, from the step that is reached',
    'stretch': 'as the config says, every time in them multiplied by {factor:.3g}',
    'restart': 'from their start, every time in them multiplied by {factor:.3g}',
}
# what mmengine's schedules call their times
TIMES = (
    'T_max',
    'begin',
    'end',
    'milestones',
    'step_size',
    'total_iters',
    'total_steps',
    'periods',
)


@HOOKS.register_module()
class ContinuedScheduleHook(Hook):
    """Chooses the schedules of a run that is resumed with another length than it was planned for.

    mmengine takes them from the checkpoint, whatever the config says by now. Where the length is
    the same, only ``'config'`` does anything; ``'keep'`` only says in the log what will happen.

    Args:
        how: Which schedules to use. ``'keep'``: those that the run was started with. ``'config'``:
            those of the config as it is now, at the step that is reached. ``'stretch'``: like
            ``'config'``, with every time in them multiplied by new length / L, where L is the
            length that they were made for: that of the first start, or of the last ``'config'``.
            ``'restart'``: from their start, with every time multiplied by remaining length / L.

    Raises:
        ValueError: ``how`` is none of these; or there are several optimizers.

    Example:
        >>> ContinuedScheduleHook('stretch').how
        'stretch'
    """

    priority = 'VERY_HIGH'  # before anybody looks at the rate

    def __init__(self, how: str = 'keep') -> None:
        if how not in HOWS:
            raise ValueError(f'how={how!r}, expected one of {", ".join(HOWS)}')
        self.how = how
        self.planned: int | None = None  # length of the run when it was stopped, in iterations
        self.scheduled: int | None = None  # length that the times in the config are made for

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the length that the run is planned for, in iterations."""
        checkpoint['planned_iters'] = runner.max_iters
        checkpoint['scheduled_iters'] = self.scheduled or runner.max_iters

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the planned length of a run that is resumed."""
        if runner._resume:
            hub = checkpoint.get('message_hub') or {}
            former = (hub.get('runtime_info') or {}).get('max_iters')
            self.planned = checkpoint.get('planned_iters', former)
            self.scheduled = checkpoint.get('scheduled_iters', self.planned)

    def before_train(self, runner: Runner) -> None:
        """Make the schedules new, if they are not to be kept."""
        if not self.planned or not runner.param_schedulers:
            return
        if self.planned == runner.max_iters and self.how != 'config':
            return
        done = runner.iter if self.how == 'restart' else 0
        if self.how == 'config':
            self.scheduled = runner.max_iters
        factor = 1.0 if self.how == 'keep' else (runner.max_iters - done) / self.scheduled
        runner.logger.log(
            logging.WARNING if self.how == 'keep' else logging.INFO,
            f'resumed for {runner.max_iters} iterations, {self.planned} were planned. Schedules: '
            + HOWS[self.how].format(factor=factor)
            + ('; other choices: --schedule config, stretch or restart' * (self.how == 'keep')),
        )
        if self.how != 'keep' and runner.iter < runner.max_iters:
            self.renew(runner, factor)

    def renew(self, runner: Runner, factor: float) -> None:
        """Build the schedules again, and bring them to where they would be by now."""
        cfgs = runner.cfg.param_scheduler
        if not isinstance(runner.param_schedulers, list):
            raise ValueError(f'schedule={self.how!r}: found several optimizers, expected one')
        cfgs = [scaled(cfg, factor) for cfg in (cfgs if isinstance(cfgs, list) else [cfgs])]
        done, per_epoch = runner.iter, len(runner.train_dataloader)
        if self.how == 'restart':
            left, done = runner.max_iters - done, 0
            for cfg in cfgs:
                cfg.setdefault('end', -(-left // per_epoch) if cfg.get('by_epoch', True) else left)
        for group in runner.optim_wrapper.param_groups:
            for key in [key for key in group if key.startswith('initial_')]:
                group[key.removeprefix('initial_')] = group[key]
        schedulers: Any = runner.build_param_scheduler([never_if_empty(cfg) for cfg in cfgs])
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of schedules that step before the optimizer does
            for step in range(1, done + 1):
                for scheduler in schedulers:
                    if not scheduler.by_epoch or step % per_epoch == 0:
                        scheduler.step()
        runner.param_schedulers = schedulers


def never_if_empty(cfg: Cfg) -> Cfg:
    """A schedule's config; one that became empty, such as a short warm-up, never begins.

    It keeps its place, since mmengine finds the states in a checkpoint by their order.
    """
    if cfg.get('end') is not None and cfg['end'] <= cfg.get('begin', 0):
        return {**cfg, 'begin': INF, 'end': INF + 1}
    return cfg


def scaled(cfg: Cfg, factor: float) -> Cfg:
    """A schedule's config with every time in it multiplied.

    Example:
        >>> scaled(dict(type='MultiStepLR', milestones=[30, 60], gamma=0.1), 2.0)
        {'type': 'MultiStepLR', 'milestones': [60, 120], 'gamma': 0.1}
    """
    cfg = copy.deepcopy(dict(cfg))
    for key in set(TIMES) & set(cfg):
        value = cfg[key]
        least = 0 if key in ('begin', 'end') else 1
        if isinstance(value, (list, tuple)):
            cfg[key] = [max(least, round(each * factor)) for each in value]
        elif value is not None:
            cfg[key] = max(least, round(value * factor))
    return cfg
