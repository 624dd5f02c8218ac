"""Makes what is random in an epoch a matter of the seed and the epoch alone."""

import functools

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed
from mmrazor.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds crops, flips, dropout and the like anew at the start of each epoch.

    So a run that was stopped goes on as if it had not been, and methods that are compared at a
    seed see the same augmented images, however many random numbers their initial weights took.
    Workers that load data are seeded when they start: it needs ``persistent_workers=False``.
    """

    def before_train_epoch(self, runner) -> None:
        """Seed this process, and the workers that the epoch will start."""
        entropy = (runner.seed, runner.epoch, get_rank())
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)  # room for worker ids
        set_random_seed(seed)
        loader = runner.train_dataloader
        if isinstance(loader.worker_init_fn, functools.partial):
            loader.worker_init_fn = functools.partial(loader.worker_init_fn, seed=seed)
