"""mmengine's checkpoints, saved so that no crash can lose a run."""

import os
import shutil
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from torch import Tensor, nn

from ..checkpoint_files import POINTER, newest_checkpoint, write_atomically
from ..same_run import check_same, identity
from ..statistics import CommonStatistics
from ..unwrap import averaging_hook, is_accumulating, optim_wrappers, unwrapped

Tensors = dict[str, Tensor]


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are whole or not there.

    A checkpoint is sealed with a digest, written to a temporary file, flushed to the disk and
    renamed. With ``max_keep_ckpts`` and ``save_best`` an old file is removed only when the new one
    is safely there. ``last_checkpoint`` names the newest one relative to the work dir, so the work
    dir can be moved.

    A resumed run goes on from the newest intact checkpoint. Each process gets back its batch-norm
    statistics, averaged ones (``EMAHook``) included, and the gradients that it had accumulated for
    the next step; ``EarlyStoppingHook`` gets back its counts. When early stopping ends a training,
    a checkpoint is saved. Resuming from that checkpoint trains no further.

    ``tools/train.py`` takes it where a config's ``default_hooks`` have a ``CheckpointHook``.
    Storage other than local files is used as mmengine does.

    Args:
        allow_changes: Whether a run may be resumed with another method, other students, another
            batch size or another number of processes.
        **kwargs: As in :class:`mmengine.hooks.CheckpointHook`.

    Example:
        >>> default_hooks = dict(
        ...     checkpoint=dict(type='mmrazor.SafeCheckpointHook', interval=1, max_keep_ckpts=2))
    """

    backend_args: dict[str, Any] | None

    def __init__(self, *args: Any, allow_changes: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_changes = allow_changes
        # while a checkpoint is saved, what each process has for itself: buffers of the model and of
        # its average, and gradients
        self.of_processes: dict[str, list[Tensors]] = {}
        self.metrics: dict[str, float] = {}  # of the last validation
        self.saved_at: dict[str, int] = {}  # 'epoch' and 'iter' that were over
        # of a run that is resumed
        self.gradients: Tensors = {}
        self.accumulation: list[dict[str, Any]] = []
        self.statistics = CommonStatistics()

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to go on from, for scripts that leave the choice to mmengine."""
        if runner._resume and runner._load_from is None:
            newest = newest_checkpoint(runner.work_dir, self.out_dir)
            runner._load_from = str(newest) if newest else None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on only as the same run; put in the buffers of this process.

        A training that early stopping had ended does not go on, unless its settings would let it.
        """
        if not runner._resume:
            return
        self.saved_at = {unit: checkpoint['meta'][unit] for unit in ('epoch', 'iter')}
        if not self.allow_changes:
            check_same(checkpoint['meta'].get('run', {}), identity(runner))
        checkpoint['state_dict'].update(own_share(checkpoint, 'buffers'))
        averaging = averaging_hook(runner)  # it has loaded the average by now
        if averaging:
            averaged, buffers = averaging.ema_model.module, own_share(checkpoint, 'ema_buffers')
            averaged.load_state_dict({**averaged.state_dict(), **buffers})
        self.gradients = own_share(checkpoint, 'gradients')
        self.accumulation = checkpoint.get('accumulation', [])
        counts = checkpoint.get('early_stopping', [])
        for hook, counted in zip(early_stopping(runner), counts, strict=False):
            if hook.monitor == counted['monitor']:
                vars(hook).update(counted)
                if has_ended_training(hook):
                    runner.train_loop.stop_training = True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add what the run is, what each process has, and what early stopping has counted."""
        checkpoint['meta']['run'] = identity(runner)
        checkpoint.update(self.of_processes)
        if 'gradients' in self.of_processes:
            checkpoint['accumulation'] = accumulation(runner)
        checkpoint['early_stopping'] = [
            dict(monitor=hook.monitor, wait_count=hook.wait_count, best_score=hook.best_score)
            for hook in early_stopping(runner)
        ]

    def before_train(self, runner: Runner) -> None:
        """Find out where the files go; put back the gradients of a run that is resumed."""
        if self.gradients:
            self._put_back_gradients(runner)
        folder = self.out_dir or runner.work_dir
        local = isinstance(get_file_backend(folder, backend_args=self.backend_args), LocalBackend)
        if local and self.file_client_args is None:
            self.backend_args = dict(backend='checkpoint')
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend):
            self._warn_of_a_full_disk(runner)
        if self.save_best:  # in the folder of today: that of the saved path may be another run's
            self._set_best({key: self._here(path) for key, path in self._best().items()})

    def before_val(self, runner: Runner) -> None:
        """Score with the batch-norm statistics that are saved; some loops do so by themselves."""
        if not hasattr(runner.val_loop, 'statistics'):
            self.statistics.put_in(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Keep what was measured for :meth:`after_val`."""
        self.metrics = metrics

    def after_val(self, runner: Runner) -> None:
        """Save the best when all hooks have the scores.

        The newest checkpoint is saved once more then. With a part of the hooks' scores in it, a
        resumed run would count the validation twice.
        """
        self.statistics.give_back()
        super().after_val_epoch(runner, self.metrics)

    def after_train(self, runner: Runner) -> None:
        """Save the end of a training that is not where mmengine expects it, at whatever interval:
        one that was stopped early, or in which an epoch was started over."""
        unexpected = runner.train_loop.stop_training or runner.iter != runner.max_iters
        if self.save_last and unexpected:
            self.save_unless_saved(runner, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_train(runner)

    def save_unless_saved(self, runner: Runner, meta: dict[str, int]) -> None:
        """Save a checkpoint of a position, ``epoch`` and ``iter``, if the last is of another."""
        if self.saved_at != meta:
            step = meta['epoch' if self.by_epoch else 'iter']
            self._save_checkpoint_with_step(runner, step, dict(meta))

    def _put_back_gradients(self, runner: Runner) -> None:
        """Unless they would be added to others of another scale."""
        now, then = accumulation(runner), self.accumulation
        if [each['how'] for each in now] == [each['how'] for each in then]:
            for wrapper, saved in zip(optim_wrappers(runner), then, strict=True):
                wrapper._inner_count = saved['iterations']
            for name, weight in unwrapped(runner.model).named_parameters():
                if name in self.gradients:
                    weight.grad = self.gradients[name].to(weight.device)
            runner.logger.info('the gradients of the last iterations were saved: none is lost')
        self.gradients = {}

    def _warn_of_a_full_disk(self, runner: Runner) -> None:
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        files = max(length // self.interval, 1) if self.interval > 0 else 1  # or never
        if self.max_keep_ckpts > 0:
            # the old one goes when the new one is there
            files = min(files, self.max_keep_ckpts + 1)
        needed = checkpoint_size(runner) * (
            files + (len(self.key_indicators) if self.save_best else 0)
        )
        Path(self.out_dir).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.out_dir).free
        if needed > free:
            runner.logger.warning(
                f'the checkpoints will take about {needed / 2**20:.0f} MiB, but {self.out_dir} has '
                f'{free / 2**20:.0f} MiB left; set default_hooks.checkpoint.max_keep_ckpts, or '
                'another work dir'
            )

    def _here(self, path: str | None) -> str | None:
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    def _best(self) -> dict[str | None, str | None]:
        """Path of the best checkpoint by metric; the metric is None where there is one only."""
        if len(self.key_indicators) == 1:
            return {None: self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best(self, paths: dict[str | None, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[None]
        else:
            self.best_ckpt_path_dict = paths

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """mmengine's, in another order: the new file, the pointer, then the old file goes."""
        old = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                old = [self.filename_tmpl.format(self.keep_ckpt_ids.popleft())]
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.save(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            if isinstance(self.file_backend, LocalBackend):  # those of SignalHook
                old += [path.name for path in Path(self.out_dir).glob('epoch_*_iter_*.pth')]
            for name in old:
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def save(self, runner: Runner, name: str, meta: dict[str, Any]) -> None:
        """Save a checkpoint under a name, and let the pointer name it."""
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        # mmengine adds to meta in the first process
        self.saved_at = {unit: meta[unit] for unit in ('epoch', 'iter')}
        getattr(runner.val_loop, 'statistics', self.statistics).give_back()  # it may be scoring
        if get_world_size() > 1:
            self.of_processes['buffers'] = all_gather_object(saved_buffers(unwrapped(runner.model)))
            averaging = averaging_hook(runner)
            if averaging:
                own = saved_buffers(averaging.ema_model.module)
                self.of_processes['ema_buffers'] = all_gather_object(own)
        if is_accumulating(runner):
            own = saved_gradients(unwrapped(runner.model))
            self.of_processes['gradients'] = all_gather_object(own)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.of_processes = {}
        if is_main_process():
            local = isinstance(self.file_backend, LocalBackend)
            named = os.path.relpath(self.last_ckpt, runner.work_dir) if local else self.last_ckpt
            write_atomically(Path(runner.work_dir, POINTER), named.encode())

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        """mmengine's, which finds no older best file to remove until the new one is there."""
        if not self.save_best:
            return
        before = self._best()
        self._set_best(dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)
        after = self._best()
        self._set_best({key: path or before.get(key) for key, path in after.items()})
        for key, path in before.items():
            if path and after[key] and after[key] != path and is_main_process():
                self._remove(path)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)


def early_stopping(runner: Runner) -> list[EarlyStoppingHook]:
    """The hooks that end a training which gets no better."""
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def has_ended_training(hook: EarlyStoppingHook) -> bool:
    """Whether a hook's counts are such that it has ended the training."""
    threshold = hook.stopping_threshold
    reached = threshold is not None and hook.rule_map[hook.rule](hook.best_score, threshold)
    return reached or hook.wait_count >= max(hook.patience, 1)


def own_share(checkpoint: dict[str, Any], key: str) -> Tensors:
    """What this process had saved; nothing where there was another number of processes."""
    shares = checkpoint.get(key, [])
    return shares[get_rank()] if len(shares) == get_world_size() else {}


def accumulation(runner: Runner) -> list[dict[str, Any]]:
    """How each optimizer accumulates gradients, and over how many iterations it has by now."""
    return [
        dict(how=f'{type(w).__name__} of {w._accumulative_counts}', iterations=w._inner_count)
        for w in optim_wrappers(runner)
    ]


def saved_gradients(model: nn.Module) -> Tensors:
    """What the model's gradients are by now, on the CPU."""
    return {name: x.grad.cpu() for name, x in model.named_parameters() if x.grad is not None}


def saved_buffers(model: nn.Module) -> Tensors:
    """Those of a model's buffers that are saved, on the CPU."""
    state = model.state_dict()
    return {name: state[name].cpu() for name, _ in model.named_buffers() if name in state}


def checkpoint_size(runner: Runner) -> int:
    """About how many bytes a checkpoint takes: model, optimizer and accumulated gradients."""
    size = sum(x.nbytes for x in unwrapped(runner.model).state_dict().values())
    for wrapper in optim_wrappers(runner):
        defaults = wrapper.optimizer.defaults
        kept = 2 if 'betas' in defaults else 1 if defaults.get('momentum') else 0
        if wrapper._accumulative_counts > 1:
            kept += get_world_size()
        size += kept * sum(p.nbytes for group in wrapper.param_groups for p in group['params'])
    return size
