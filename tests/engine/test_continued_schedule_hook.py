"""Learning rates of runs that are resumed for longer, against those of uninterrupted ones."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from mfef_mmrazor.engine import ContinuedScheduleHook
from mfef_mmrazor.engine.hooks.continued_schedule_hook import scaled

WARM = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', begin=1, by_epoch=True),
]
STEPS = dict(type='MultiStepLR', milestones=[1, 3], gamma=0.1)


class Toy(BaseModel):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return dict(loss=self.fc(torch.stack(inputs)).square().mean())


class Rates(Hook):
    """Notes the learning rate of every iteration."""

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(runner.optim_wrapper.get_lr()['lr'][0])


def rates(work_dir, epochs, schedule, how='keep', resume=False, **checkpoint):
    """Learning rate of every iteration, of 4 in an epoch."""
    runner = Runner(
        Toy(), str(work_dir),
        train_dataloader=dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False),
                              dataset=[dict(inputs=torch.ones(1))] * 8),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        param_scheduler=schedule, cfg=dict(param_scheduler=schedule),
        custom_hooks=[ContinuedScheduleHook(how)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **checkpoint)),
        load_from=find_latest_checkpoint(work_dir) if resume else None, resume=resume,
        log_level='ERROR', experiment_name=f'{how}{epochs}{resume}',
    )  # fmt: skip
    rates_hook = Rates()
    runner.register_hook(rates_hook)
    runner.train()
    return rates_hook.seen


@pytest.mark.parametrize('schedule', [WARM, STEPS], ids=['warm', 'steps'])
def test_what_each_choice_means(schedule, tmp_path):
    first = rates(tmp_path / 'run', 2, schedule)
    as_planned = rates(tmp_path / 'whole', 4, schedule)
    for folder in ('keep', 'config', 'stretch', 'restart'):
        (tmp_path / folder).mkdir()
        torch.save(
            torch.load(tmp_path / 'run/epoch_2.pth', weights_only=True),
            tmp_path / folder / 'epoch_2.pth',
        )
        (tmp_path / folder / 'last_checkpoint').write_text(str(tmp_path / folder / 'epoch_2.pth'))

    def resumed(how, epochs=4):
        return rates(tmp_path / how, epochs, schedule, how, resume=True)

    assert resumed('config') == pytest.approx(as_planned[8:])
    doubled = (
        [dict(WARM[0], end=8), dict(WARM[1], begin=2)]
        if schedule is WARM
        else dict(STEPS, milestones=[2, 6])
    )
    assert resumed('stretch') == pytest.approx(rates(tmp_path / 'double', 4, doubled)[8:])
    # two more epochs, after two that were planned: the very same again
    assert resumed('restart') == pytest.approx(first)
    assert len({round(rate, 9) for rate in resumed('keep')}) == 1


def test_times_of_the_config_are_those_of_the_first_plan_however_often_it_is_resumed(tmp_path):
    work_dir = tmp_path / 'run'
    rates(work_dir, 2, STEPS)
    rates(work_dir, 4, STEPS, 'stretch', resume=True)
    fourfold = rates(tmp_path / 'whole', 8, dict(STEPS, milestones=[4, 12]))
    assert rates(work_dir, 8, STEPS, 'stretch', resume=True) == pytest.approx(fourfold[16:])
    # with the times as they stand from here on, these are those of eight epochs
    rates(work_dir, 9, STEPS, 'config', resume=True)
    tenfold = rates(tmp_path / 'ten', 10, dict(STEPS, milestones=[1, 3]))
    assert rates(work_dir, 10, STEPS, 'stretch', resume=True) == pytest.approx(tenfold[36:])


def test_a_warm_up_that_becomes_shorter_than_an_epoch_is_left_out(tmp_path):
    schedule = [dict(WARM[0], by_epoch=True, end=1), dict(WARM[1], T_max=3)]
    rates(tmp_path / 'run', 4, schedule)
    longer = rates(tmp_path / 'run', 5, schedule, 'restart', resume=True)
    assert longer == [1.0] * 4  # one epoch, a fourth of the plan: the first of the cosine


def test_a_second_resume_after_a_warm_up_was_left_out(tmp_path):
    schedule = [dict(WARM[0], by_epoch=True, end=1), dict(WARM[1], T_max=7)]
    rates(tmp_path, 8, schedule)
    straight = rates(tmp_path, 11, schedule, 'restart', resume=True)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_9.pth'))
    assert rates(tmp_path, 11, schedule, 'restart', resume=True) == straight[4:]


@pytest.mark.parametrize(
    'how, schedule, expected',
    [
        ('config', dict(STEPS, milestones=[2, 3]), [1.0, 0.1, 0.01]),
        ('restart', dict(type='CosineAnnealingLR', by_epoch=True), [1.0, 0.75, 0.25]),
    ],
)
def test_an_epoch_that_was_not_finished_starts_over(tmp_path, how, schedule, expected):
    rates(tmp_path, 2, schedule, by_epoch=False)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_6.pth'))
    found = rates(tmp_path, 4, schedule, how, resume=True, by_epoch=False)
    assert found == pytest.approx([rate for rate in expected for _ in range(4)])


def test_lengths_that_are_scaled_stay_above_zero_and_beginnings_may_be_it():
    short = scaled(dict(T_max=2, milestones=[1, 40], begin=2, end=30), 0.1)
    assert short == dict(T_max=1, milestones=[1, 4], begin=0, end=3)


def test_nothing_happens_at_the_planned_length(tmp_path):
    whole = rates(tmp_path / 'whole', 2, STEPS)
    rates(tmp_path / 'half', 2, STEPS)
    for name in ('epoch_2.pth',):
        (tmp_path / 'half' / name).unlink()
    (tmp_path / 'half/last_checkpoint').write_text(str(tmp_path / 'half/epoch_1.pth'))
    assert rates(tmp_path / 'half', 2, STEPS, 'restart', resume=True) == whole[4:]


def test_another_schedule_of_the_same_length(tmp_path):
    steps, later = ([dict(STEPS, milestones=times)] for times in ([1, 3], [1, 2]))
    (tmp_path / 'run').mkdir()
    rates(tmp_path / 'run', 4, steps)
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_2.pth'))
    for how, expected in (('keep', [0.1] * 4 + [0.01] * 4), ('config', [0.01] * 8)):
        found = rates(tmp_path / 'run', 4, later, how, resume=True)
        assert found == pytest.approx(expected)
        (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_2.pth'))


def test_an_unknown_choice():
    with pytest.raises(
        ValueError, match="how='longer', expected one of keep, config, stretch, rest"
    ):
        ContinuedScheduleHook('longer')
