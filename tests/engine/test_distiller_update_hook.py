"""Real runs of SwitOKD's shipped config, on a few digits, in one process and in two."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from processes import in_processes
from torch import distributed

from mfef_mmrazor import compat
from mfef_mmrazor.apis import train
from mfef_mmrazor.engine.hooks import DistillerUpdateHook

CONFIG = Path(__file__).parents[2] / 'configs/switokd/switokd_resnet8-resnet20_1xb32-20e_digits.py'


def small(work_dir, **options):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'train_cfg.max_epochs': 4,
            'train_cfg.val_interval': 9,
            'train_dataloader.batch_size': 10,
            'train_dataloader.dataset.train_per_class': 6,
            **{key.replace('__', '.'): value for key, value in options.items()},
        }
    )
    return cfg


class Steps(Hook):
    """What each step did to the student and to the teacher."""

    def __init__(self):
        self.paused, self.moved, self.statistics = [], [], []

    def state(self, runner):
        """Weights and momentum of each, and the teacher's running means."""
        model = getattr(runner.model, 'module', runner.model)
        state = runner.optim_wrapper.optimizer.state
        learnt = [
            torch.cat(
                [
                    torch.cat(
                        [p.detach().flatten(), state[p].get('momentum_buffer', 0 * p).flatten()]
                    )
                    for p in student.parameters()
                ]
            )
            for student in model.students
        ]
        means = [b for n, b in model.students[1].named_buffers() if n.endswith('running_mean')]
        return learnt, torch.cat(means).clone()

    def before_train_iter(self, runner, *_, **__):
        self.before = self.state(runner)

    def after_train_iter(self, runner, *_, **__):
        (student, teacher), means = self.state(runner)
        (student_before, teacher_before), means_before = self.before
        model = getattr(runner.model, 'module', runner.model)
        self.paused.append(model.distiller.paused == [1])
        self.moved.append(
            (not torch.equal(student, student_before), not torch.equal(teacher, teacher_before))
        )
        self.statistics.append(not torch.equal(means, means_before))


def check(steps):
    assert {True, False} == set(steps.paused)
    for paused, moved in zip(steps.paused, steps.moved, strict=True):
        assert moved == (True, not paused)
    assert all(steps.statistics)  # as documented


def test_a_paused_teacher_keeps_its_weights_and_its_momentum(tmp_path):
    runner = Runner.from_cfg(small(tmp_path))
    steps = Steps()
    runner.register_hook(steps)
    runner.train()
    assert len(steps.paused) == 24
    check(steps)
    logged = runner.message_hub.get_scalar('train/distill.expert_share').data[0]
    for epoch in range(4):  # 6 batches each
        for batch in range(6):
            so_far = steps.paused[6 * epoch :][: batch + 1]
            assert logged[6 * epoch + batch] == pytest.approx(sum(so_far) / len(so_far))
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks  # as it was


def train_and_look_at_the_others(work_dir):
    """Train in one of several processes: all pause in the same steps, and have the same weights."""
    cfg = small(work_dir, train_dataloader__batch_size=5)
    cfg.launcher = 'pytorch'
    compat.init_cpu_processes()
    runner = Runner.from_cfg(cfg)
    steps = Steps()
    runner.register_hook(steps)
    runner.train()
    assert type(runner.model).__name__ == 'MMDistributedDataParallel'
    check(steps)
    weights = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    for mine in (weights, torch.tensor(steps.paused).float()):
        both = [torch.empty_like(mine) for _ in range(2)]
        distributed.all_gather(both, mine)
        assert torch.equal(*both)


def test_two_processes_pause_together(tmp_path):
    in_processes(2, train_and_look_at_the_others, tmp_path)


def test_our_own_training_needs_no_hooks_in_the_config(tmp_path):
    cfg = small(tmp_path, train_cfg__max_epochs=1)
    cfg.custom_hooks = []
    cfg.launcher = 'none'
    runner = train(cfg)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, DistillerUpdateHook))
    assert hook.handles and runner.iter == 6
    assert not runner.model.distiller.updates_announced  # by whoever trains it next
    assert [type(hook).__name__ for hook in runner.hooks].count('RampUpHook') == 1


def test_accumulated_gradients_are_refused(tmp_path):
    with pytest.raises(ValueError, match='accumulative_counts=2: SwitOKDDistiller decides batch'):
        Runner.from_cfg(small(tmp_path, optim_wrapper__accumulative_counts=2)).train()
