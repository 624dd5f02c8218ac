"""Real runs, of which each must go by its own schedule."""

import pytest
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from torch import distributed

from mfef_mmrazor.functional import sigmoid_ramp_up
from mfef_mmrazor.models import OnlineDistill, OnlineDistiller

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
PIPELINE = [dict(type='mmpretrain.Resize', scale=16), dict(type='mmpretrain.PackInputs')]
RAMP_UP = 3


class Diary(OnlineDistiller):
    """A method that teaches nothing, and writes down the weights that its losses would have."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.weights: list[float] = []

    def compute_distill_losses(self, records, labels):
        self.weights.append(self.ramp_up())
        return dict(loss_nothing=0 * sum(z.sum() for z in records['logits']))


def runner(
    work_dir,
    epochs=None,
    iterations=None,
    ramp_up_iters=None,
    sampler='DefaultSampler',
    hooks=('mmrazor.RampUpHook', 'mmrazor.EpochSeedHook'),
    **options,
):
    """A runner whose epochs are two steps."""
    by_epoch = dict(by_epoch=True, max_epochs=epochs)
    by_iteration = dict(by_epoch=False, max_iters=iterations)
    return Runner(
        model=OnlineDistill(
            [STUDENT] * 2,
            Diary(ramp_up_epochs=RAMP_UP, ramp_up_iters=ramp_up_iters),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        ),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=5,
            num_workers=0,
            dataset=dict(type='mmpretrain.Digits', train_per_class=1, pipeline=PIPELINE),
            sampler=dict(type=sampler, shuffle=True),
        ),
        train_cfg=by_iteration if iterations else by_epoch,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type=hook) for hook in hooks],
        # of this test alone: the runners of one second and name share their logger
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
        **options,
    )


def expected(*epochs):
    return [sigmoid_ramp_up(epoch, RAMP_UP) for epoch in epochs]


def test_two_runners_built_before_the_first_trains(tmp_path):
    first, second = runner(tmp_path / 'first', 4), runner(tmp_path / 'second', 2)
    first.train()
    second.train()
    assert first.model.distiller.weights == expected(0, 0, 1, 1, 2, 2, 3, 3)
    assert second.model.distiller.weights == expected(0, 0, 1, 1)


def test_without_the_hook_mmengines_record_of_the_newest_runner_is_what_there_is(tmp_path):
    run = runner(tmp_path / 'alone', 2, hooks=())
    run.train()
    assert run.model.distiller.weights == expected(0, 0, 1, 1)


def test_a_model_is_let_go_after_its_training(tmp_path):
    run = runner(tmp_path / 'first', 3)
    run.train()
    again = runner(tmp_path / 'second', 1, hooks=())
    again.model = run.model
    again.train()
    assert run.model.distiller.weights == expected(0, 0, 1, 1, 2, 2, 0, 0)


def test_a_resumed_run_goes_on_at_its_epoch(tmp_path):
    runner(tmp_path / 'run', 2).train()
    resumed = runner(
        tmp_path / 'run', 3, resume=True, load_from=str(tmp_path / 'run' / 'epoch_2.pth')
    )
    runner(tmp_path / 'another', 1)
    resumed.train()
    assert resumed.model.distiller.weights == expected(2, 2)


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_in_a_training_by_iterations_epochs_are_counted_by_the_data(tmp_path, sampler):
    run = runner(tmp_path / 'run', iterations=7, sampler=sampler)
    run.train()
    assert run.model.distiller.weights == expected(0, 0.5, 1, 1.5, 2, 2.5, 3)


@pytest.mark.parametrize('length', [dict(epochs=3), dict(iterations=6)], ids=str)
def test_a_ramp_up_by_iterations(tmp_path, length):
    run = runner(tmp_path / 'run', ramp_up_iters=4, **length)
    run.train()
    weights = [sigmoid_ramp_up(iteration, 4) for iteration in range(6)]
    assert run.model.distiller.weights == weights and weights[-1] == 1


@pytest.mark.parametrize(
    'options, warning',
    [
        (dict(epochs=2), 'ramp_up_epochs=3, but the training has 2 epochs'),
        (dict(iterations=5), 'ramp_up_epochs=3, but the training has 2.5 epochs'),
        (dict(epochs=2, ramp_up_iters=5), 'ramp_up_iters=5, but the training has 4 iterations'),
        (dict(epochs=2, ramp_up_iters=4), None),
        (dict(iterations=6), None),
    ],
    ids=str,
)
def test_a_ramp_up_longer_than_the_training_is_warned_of(tmp_path, capsys, options, warning):
    runner(tmp_path / 'run', **options).call_hook('before_train')
    found = capsys.readouterr()
    if warning is None:
        assert 'never gets to its full weight' not in found.out + found.err
    else:
        assert warning in found.out + found.err


@pytest.fixture
def one_process_group(tmp_path):
    distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_a_wrapped_model_is_told_as_well(tmp_path, one_process_group):
    run = runner(tmp_path / 'wrapped', 2)
    run.model = MMDistributedDataParallel(run.model, broadcast_buffers=False)
    runner(tmp_path / 'another', 1)
    run.train()
    assert run.model.module.distiller.weights == expected(0, 0, 1, 1)
