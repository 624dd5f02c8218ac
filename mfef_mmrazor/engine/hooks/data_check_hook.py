"""Looks at the training data before the first step, for what would only show later."""

import copy
import logging
from typing import Any

from mmengine.dataset import ClassBalancedDataset, InfiniteSampler, RepeatDataset
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.datasets.samplers import RepeatAugSampler
from mmpretrain.evaluation import Accuracy
from mmrazor.registry import HOOKS
from torch.utils.data import DataLoader

from ...datasets import InMemory
from ...models.student_facts import number_of_classes
from ..random_state import kept_random_state
from ..unwrap import unwrapped

# what batch norm says, torch's and that of ONE's gate
NEEDS_TWO = ('more than 1 value per channel', 'a batch of one image')


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Before the training, refuses data on which it would fail late, or mean nothing.

    - There is one class alone: every network is right on all of it.
    - There are more classes than the network tells apart.
    - There is no whole batch, and only whole ones are taken.
    - The last batch of an epoch has one image, and the model cannot be trained on one, as a batch
      norm gets a single number of each channel. A copy of the model tries it.

    It warns of images that are repeated within an epoch but cropped alike each time, and of classes
    that no validation image has.

    Raises:
        ValueError: One of these; in ``before_train``.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the data set and the size of the last batch."""
        model, loader = unwrapped(runner.model), runner.train_dataloader
        network = getattr(model, 'architecture', model)
        _check_classes(loader.dataset, number_of_classes(network))
        _check_topk(runner, number_of_classes(network))
        if not len(loader):
            raise ValueError(
                f'train_dataloader: the {len(loader.sampler)} images of this process make no batch '
                f'of {loader.batch_size} (drop_last={loader.drop_last}); with drop_last=True take '
                'a smaller batch_size'
            )
        warn_of_repeats(loader)
        if runner.val_loop is not None:
            warn_of_absent_classes(runner.val_dataloader.dataset)
        if isinstance(loader.sampler, InfiniteSampler) or loader.drop_last or not loader.batch_size:
            return
        images = len(loader.sampler)  # of this process
        if images % loader.batch_size == 1:
            _check_single_image(model, loader, images)


def _check_classes(dataset: Any, expected: int | None) -> None:
    names = getattr(dataset, 'metainfo', {}).get('classes')
    found = len(names or ())
    if names and found == 1:
        raise ValueError(
            f'train_dataloader.dataset has one class, {names[0]!r}, expected two or more: any '
            'network is right on all of it'
        )
    if expected and found > expected:
        raise ValueError(
            f'train_dataloader.dataset has {found} classes, but num_classes={expected} in the head '
            'of the network; set it to the number of classes'
        )
    if expected and 1 < found < expected:
        print_log(
            f'train_dataloader.dataset has {found} classes, but num_classes={expected} in the head '
            'of the network: no image is of the others. Set it to the number of classes',
            logger='current',
            level=logging.WARNING,
        )


def _check_topk(runner: Runner, classes: int | None) -> None:
    for metric in runner.val_loop.evaluator.metrics if runner.val_loop else []:
        if isinstance(metric, Accuracy) and classes and max(metric.topk) > classes:
            raise ValueError(
                f'val_evaluator: topk={metric.topk}, but there are {classes} classes; set topk to '
                'what there can be, such as (1,)'
            )


def warn_of_repeats(loader: DataLoader[Any]) -> None:
    """Warn of an ``InMemory`` data set whose images come several times in an epoch."""
    dataset: Any = loader.dataset
    repeated = isinstance(loader.sampler, RepeatAugSampler)
    while hasattr(dataset, 'dataset'):  # a wrapper
        repeated |= isinstance(dataset, (ClassBalancedDataset, RepeatDataset))
        dataset = dataset.dataset
    if repeated and isinstance(dataset, InMemory):
        print_log(
            'train_dataloader: an image that comes several times in an epoch gets the same crop '
            'and flip each time, as InMemory draws them by the number of the image; if the copies '
            'are to differ, use the data set with a pipeline, without InMemory',
            logger='current',
            level=logging.WARNING,
        )


def warn_of_absent_classes(dataset: Any) -> None:
    """Warn of classes that no image of a validation data set has."""
    names = getattr(dataset, 'metainfo', {}).get('classes') or ()
    try:
        found = {label for i in range(len(dataset)) for label in dataset.get_cat_ids(i)}
    except (AttributeError, KeyError, NotImplementedError):  # it does not say the labels
        return
    absent = [str(name) for label, name in enumerate(names) if label not in found]
    if absent:
        print_log(
            f'val_dataloader.dataset has no image of {len(absent)} of {len(names)} classes '
            f'({", ".join(absent[:5])}{", ..." * (len(absent) > 5)}): metrics that are a mean over '
            'classes, such as single-label/recall, count them as 0 %',
            logger='current',
            level=logging.WARNING,
        )


def _check_single_image(model: Any, loader: DataLoader[Any], images: int) -> None:
    try:
        with kept_random_state():
            batch = loader.collate_fn([loader.dataset[0]])
            trial = copy.deepcopy(model).train()
            trial(**trial.data_preprocessor(batch, True), mode='loss')
    except ValueError as error:
        if not any(words in str(error) for words in NEEDS_TWO):
            return  # something else, which the first step will say
        raise ValueError(
            f'train_dataloader: {images} images in batches of {loader.batch_size} leave one image '
            'for the last, and the batch norm in the model needs two; set drop_last=True or '
            'another batch_size'
        ) from None
