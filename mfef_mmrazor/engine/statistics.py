"""Batch-norm statistics in several processes."""

from mmengine.dist import broadcast, get_world_size
from mmengine.runner import Runner
from torch import Tensor

from .unwrap import averaging_hook, unwrapped


class CommonStatistics:
    """Lets all processes score with the statistics of the first: those are saved."""

    def __init__(self) -> None:
        self.own: list[tuple[Tensor, Tensor]] = []  # buffers and the values that they had

    def put_in(self, runner: Runner) -> None:
        """Take those of the first process, of the model and of its average."""
        if get_world_size() > 1:
            averaging = averaging_hook(runner)  # it puts in its own, in before_*_epoch
            models = [unwrapped(runner.model), *([averaging.ema_model] if averaging else [])]
            self.own = [(x, x.clone()) for model in models for x in model.buffers()]
            for buffer, _ in self.own:
                broadcast(buffer)

    def give_back(self) -> None:
        """Go on with those that this process had."""
        for buffer, own in self.own:
            buffer.copy_(own)
        self.own = []
