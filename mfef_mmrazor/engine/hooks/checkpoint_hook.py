"""mmengine's checkpoints, saved so that no crash can lose a run."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS

from ..checkpoint_files import POINTER, newest_checkpoint, write_atomically


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are whole or not there.

    A checkpoint is sealed with a digest, written beside, flushed to the disk and renamed. With
    ``max_keep_ckpts`` and ``save_best`` an old file is removed when the new one is safely there.
    ``last_checkpoint`` names the newest one relative to the work dir, which can be moved. A run
    that is resumed goes on from the newest checkpoint that is intact.

    ``tools/train.py`` takes it wherever a config has a ``CheckpointHook``. Storage other than local
    files is used as mmengine does.

    Args:
        **kwargs: As in :class:`mmengine.hooks.CheckpointHook`.

    Example:
        >>> default_hooks = dict(
        ...     checkpoint=dict(type='mmrazor.SafeCheckpointHook', interval=1, max_keep_ckpts=2))
    """

    backend_args: dict | None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to go on from, for scripts that leave the choice to mmengine."""
        if runner._resume and runner._load_from is None:
            newest = newest_checkpoint(runner.work_dir)
            runner._load_from = str(newest) if newest else None

    def before_train(self, runner: Runner) -> None:
        """Find out where the files go."""
        folder = self.out_dir or runner.work_dir
        local = isinstance(get_file_backend(folder, backend_args=self.backend_args), LocalBackend)
        if local and self.file_client_args is None:
            self.backend_args = dict(backend='checkpoint')
        super().before_train(runner)
        if self.save_best:  # in the folder of today: that of the saved path may be another run's
            self._set_best({key: self._here(path) for key, path in self._best().items()})

    def _here(self, path: str | None) -> str | None:
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    def _best(self) -> dict[str | None, str | None]:
        """Path of the best checkpoint by metric; the metric is None where there is one only."""
        if len(self.key_indicators) == 1:
            return {None: self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best(self, paths: dict) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[None]
        else:
            self.best_ckpt_path_dict = paths

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
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

    def save(self, runner: Runner, name: str, meta: dict) -> None:
        """Save a checkpoint under a name, and let the pointer name it."""
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
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
        if is_main_process():
            local = isinstance(self.file_backend, LocalBackend)
            named = os.path.relpath(self.last_ckpt, runner.work_dir) if local else self.last_ckpt
            write_atomically(Path(runner.work_dir, POINTER), named.encode())

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
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
