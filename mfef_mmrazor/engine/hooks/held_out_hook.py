"""Passes the students' logits on held-out training images to the distiller."""

from collections import defaultdict
from typing import Any

import torch
from mmengine.dist import all_gather
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.datasets import KFoldDataset
from mmrazor.registry import HOOKS
from torch import Tensor

from ...cfg_type import Cfg
from ...models.data_samples import targets
from ..position import by_iterations, steps_per_epoch
from ..unwrap import unwrapped


def held_out(train: Cfg, val: Cfg) -> Cfg:
    """The fold that a ``KFoldDataset`` holds out, read as the validation data are; as configs.

    Raises:
        ValueError: One of the two is read by a pipeline, and the other is not.
    """
    images = dict(train['dataset'])
    if ('pipeline' in images) != ('pipeline' in val):
        raise ValueError(
            f'HeldOutHook: the training data, {images["type"]}, and the validation data, '
            f'{val["type"]}, are not read alike: one has a pipeline, the other is augmented by the '
            'data preprocessor. Take both from the same _base_/datasets file'
        )
    if 'pipeline' in val:  # else the data preprocessor augments, in training alone
        images['pipeline'] = val['pipeline']
    return dict(train, dataset=images, test_mode=True)


@HOOKS.register_module()
class HeldOutHook(Hook):
    """Before every epoch, the students' logits on held-out training images go to the distiller.

    For KDCL's variant ``'general'``. The training data are in mmpretrain's ``KFoldDataset``, whose
    fold is what is held out: no training step sees it. It is read as the validation data are (same
    pipeline, same batch size); validation and test images have no part in it.

    Raises:
        ValueError: The training data are in no ``KFoldDataset``, or read in another way than the
            validation data; or the distiller is not KDCL's.

    Example:
        >>> train_dataset = dict(  # a tenth of the digits is held out
        ...     type='KFoldDataset', num_splits=10, seed=0, dataset=dict(type='Digits'))
        >>> custom_hooks = [dict(type='mmrazor.HeldOutHook')]
    """

    kept: Tensor | None = None
    priority = 'ABOVE_NORMAL'  # before EpochSeedHook: no random number of the epoch is used up

    def before_train(self, runner: Runner) -> None:
        """Build the data loader of the held-out images."""
        distiller = unwrapped(runner.model).distiller
        if not hasattr(distiller, 'learn_held_out'):
            raise ValueError(
                f'HeldOutHook: {type(distiller).__name__} learns nothing from held-out images, '
                'KDCLDistiller does. Take the hook out of custom_hooks, and the data out of '
                'KFoldDataset'
            )
        train, val = runner.cfg.train_dataloader.dataset, runner.cfg.val_dataloader
        if not isinstance(runner.train_dataloader.dataset, KFoldDataset):
            raise ValueError(
                f'HeldOutHook: train_dataloader.dataset is a {train.type}, so nothing is held out; '
                "put it into dict(type='KFoldDataset', num_splits=10, seed=0, dataset=...)"
            )
        dataset = held_out(train, val.dataset)
        sampler = dict(type='DefaultSampler', shuffle=False)  # as many images for each process
        loader = dict(val, dataset=dataset, sampler=sampler)
        self.dataloader = runner.build_dataloader(loader, seed=runner.seed)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what the distiller has learnt at the start of this epoch."""
        checkpoint['held_out_weights'] = unwrapped(runner.model).distiller.weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with it, where a run was stopped within an epoch."""
        if runner._resume and ('mid_epoch' in checkpoint or by_iterations(runner)):
            self.kept = checkpoint.get('held_out_weights')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """In a training by iterations, begin an epoch."""
        if by_iterations(runner) and runner.iter and runner.iter % steps_per_epoch(runner) == 0:
            self.before_train_epoch(runner)

    @torch.no_grad()
    def before_train_epoch(self, runner: Runner) -> None:
        """Run the students over the held-out images."""
        model = unwrapped(runner.model)
        if self.kept is not None:
            model.distiller.weights, self.kept = self.kept, None
            return
        found: dict[str, list[Tensor]] = defaultdict(list)
        names = [f'student{i}' for i in range(len(model.students))]
        model.eval()
        for batch in self.dataloader:
            data = model.data_preprocessor(batch, False)
            found['labels'].append(targets(data['data_samples']))
            predicted = model.predict_logits(**data)
            for name in names:
                found[name].append(predicted[name])
        model.train()
        # of all processes, whose shares are made equal by counting an image or two twice
        whole = {name: torch.cat(all_gather(torch.cat(parts))) for name, parts in found.items()}
        model.distiller.learn_held_out([whole[name] for name in names], whole['labels'])
