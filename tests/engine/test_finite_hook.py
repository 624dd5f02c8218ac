"""FiniteHook: whatever becomes NaN or infinite, the training ends there and saves nothing of it."""

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.structures import DataSample
from mmrazor.registry import HOOKS

from mfef_mmrazor.apis import load_config, train, user_errors
from mfef_mmrazor.engine.hooks.finite_hook import (
    FiniteHook,
    NonFiniteError,
    broken_images,
    image_names,
    non_finite,
)

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


@HOOKS.register_module()
class BreakHook(Hook):
    """Puts a bad number somewhere at an iteration (the first is 1), or at several."""

    priority = 'HIGHEST'

    def __init__(self, where, at, value='nan'):
        self.where, self.value = where, float(value)
        self.at = [at] if isinstance(at, int) else at

    def before_train(self, runner):
        model, hook = runner.model, self
        if '.' in self.where:
            compute = model.loss

            def loss(*args, **kwargs):
                losses = compute(*args, **kwargs)
                if runner.iter + 1 in hook.at:
                    losses[hook.where] = losses[hook.where] * hook.value
                return losses

            model.loss = loss
        if self.where == 'gradient':
            weight = model.peers[0].head.fc.weight
            weight.register_hook(lambda g: g * hook.value if runner.iter + 1 in hook.at else g)
        if self.where == 'start':
            with torch.no_grad():
                model.peers[0].head.fc.weight[0, 0] = self.value

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 not in self.at:
            return
        if self.where == 'pixel':
            inputs = data_batch['inputs']
            number = 3 if inputs[0].dim() == 3 else 0  # of the image, or of the view of all images
            inputs[number] = inputs[number].float()
            (inputs if number else inputs[0])[3][0, 0, 0] = self.value
        if self.where == 'lr':
            for group in runner.optim_wrapper.param_groups:
                group['lr'] = self.value
        if self.where == 'weight':
            with torch.no_grad():
                runner.model.peers[0].backbone.conv1.weight[0, 0, 0, 0] = self.value
        if self.where == 'distiller':
            with torch.no_grad():
                weight = next(runner.model.distiller.parameters())
                weight[(0,) * weight.ndim] = self.value


def run(work_dir, *, skip=0, wrapper=None, **broken):
    cfg = load_config(
        CONFIG,
        work_dir,
        {
            'train_dataloader.dataset.train_per_class': 8,  # 80 images: 3 steps an epoch
            'val_dataloader.dataset.indices': 20,
            'train_cfg.max_epochs': 2,
        },
    )
    cfg.experiment_name = work_dir.name  # else runs of one second share a log and its numbers
    cfg.optim_wrapper.update(wrapper or {})
    left_out = ('mmrazor.ResultsHook', 'mmrazor.FiniteHook')
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type not in left_out]
    cfg.custom_hooks.append(dict(type='mmrazor.BreakHook', **broken))
    if skip:
        cfg.custom_hooks.append(dict(type='mmrazor.FiniteHook', skip_nonfinite=skip))
    return train(cfg)  # adds the hook where it is missing


CASES = {
    'a loss': (dict(where='student1.loss', at=5), 'student1.loss is nan'),
    'infinite': (dict(where='student1.loss', at=5, value='inf'), 'student1.loss is inf'),
    'distillation': (dict(where='distill.loss_fused', at=5), 'distill.loss_fused'),
    'last step': (dict(where='student1.loss', at=6), 'student1.loss is nan'),
    'gradient': (dict(where='gradient', at=5), 'the gradient is nan'),
    'pixel': (dict(where='pixel', at=5), 'student0.loss is nan'),
    'infinite pixel': (dict(where='pixel', at=5, value='inf'), 'student0.loss is nan'),
    'huge lr': (dict(where='lr', at=5, value='1e30'), 'not finite in student0, student1'),
    'infinite lr': (dict(where='lr', at=5, value='inf'), 'not finite in student0, student1'),
    'weight': (dict(where='weight', at=5), 'student1.loss is nan'),
}


@pytest.mark.parametrize('case', CASES)
def test_training_stops_in_the_same_iteration(case, tmp_path, capsys):
    broken, message = CASES[case]
    with pytest.raises(SystemExit) as stopped, user_errors():
        run(tmp_path, **broken)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith('error: ') and error.count('\n') == 1
    assert message in error and f'at iteration {broken["at"]}' in error and 'image' in error
    assert broken['where'] != 'lr' or f'lr {float(broken["value"]):g}' in error
    assert [path.name for path in tmp_path.glob('epoch_*.pth')] == ['epoch_1.pth']
    stored = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert not non_finite(stored['state_dict'])
    batch = torch.load(tmp_path / f'nonfinite_iter_{broken["at"]}.pth', weights_only=True)
    assert len(batch['inputs']) == len(batch['labels']) == len(batch['names'])
    if broken['where'] == 'pixel':
        assert f'the pixels of {batch["names"][3]} are not finite' in error
        assert not batch['inputs'][3].isfinite().all()


def test_weights_that_are_broken_from_the_start(tmp_path):
    with pytest.raises(NonFiniteError, match=r'start from weights.*peers\.0\.head\.fc\.weight'):
        run(tmp_path, where='start', at=0, skip=1)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('where', ['student1.loss', 'pixel', 'gradient'])
def test_a_step_that_is_left_out_leaves_no_trace(where, tmp_path):
    runner = run(tmp_path, where=where, at=5, skip=1)
    assert not non_finite(runner.model.state_dict())
    assert runner.message_hub.get_info('skipped_nonfinite') == 1
    means = json.loads((tmp_path / 'results.json').read_text())['training_losses']
    assert all(math.isfinite(value) for value in means.values())
    momentum = runner.optim_wrapper.optimizer.state.values()
    assert momentum and all(s['momentum_buffer'].isfinite().all() for s in momentum)
    with pytest.raises(ValueError, match='skip_nonfinite=-1'):
        run(tmp_path, where=where, at=5, skip=-1)


def test_one_step_more_than_may_be_left_out_ends_the_training(tmp_path):
    broken = dict(where='student1.loss', at=[2, 4])
    runner = run(tmp_path / 'both', skip=2, **broken)
    assert runner.message_hub.get_info('skipped_nonfinite') == 2
    with pytest.raises(NonFiniteError, match='student1.loss is nan at iteration 4'):
        run(tmp_path / 'one', skip=1, **broken)


def test_weights_that_a_step_has_broken_cannot_be_left_out(tmp_path):
    with pytest.raises(NonFiniteError, match='the weights is .* at iteration 5'):
        run(tmp_path, where='lr', at=5, value='inf', skip=3)


def test_what_was_accumulated_with_a_step_that_is_left_out_goes_as_well(tmp_path):
    wrapper = dict(accumulative_counts=2)
    runner = run(tmp_path, wrapper=wrapper, where='pixel', at=3, skip=1)  # 3 and 4 are one update
    assert not non_finite(runner.model.state_dict())
    assert runner.message_hub.get_info('skipped_nonfinite') == 1


def test_on_a_gpu_a_gradient_is_noticed_when_it_has_been_applied(tmp_path, monkeypatch):
    begin = FiniteHook.before_train

    def before_train(self, runner):
        begin(self, runner)
        self.drops_gradients = False

    monkeypatch.setattr(FiniteHook, 'before_train', before_train)
    with pytest.raises(NonFiniteError, match='the gradient is nan, .*weights .* at iteration 4 '):
        run(tmp_path, where='gradient', at=4)
    assert [path.name for path in tmp_path.glob('epoch_*.pth')] == ['epoch_1.pth']
    assert (tmp_path / 'nonfinite_iter_4.pth').is_file()


class OneThatOverflows(torch.optim.SGD):
    """As torch's fused ones, of which a loss scaler asks for every step, also one to leave out."""

    _step_supports_amp_scaling = True

    def step(self, closure=None):
        if not self.found_inf:
            super().step(closure)


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='a scaler for the CPU: torch 2.3')
def test_what_overflows_in_float16_is_left_to_a_fused_optimizer():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, hook = OneThatOverflows([weight], lr=0.1), FiniteHook()
    hook.drops_gradients = True
    optimizer.register_step_pre_hook(hook._before_step)
    scaler = torch.amp.GradScaler('cpu', init_scale=1e38)
    scaler.scale(weight.sum() * 1e3).backward()
    scaler.step(optimizer)
    assert weight.item() == 1 and not hook.gradient_norms and weight.grad is not None


def test_images_are_named_one_by_one_also_where_a_sample_is_a_whole_batch():
    batch = DataSample(metainfo=dict(sample_idx=3)), DataSample(sample_idx=torch.tensor([5, 7]))
    assert image_names(dict(data_samples=batch)) == ['image 3', 'image 5', 'image 7']
    assert image_names(dict(data_samples=[DataSample(metainfo=dict(img_path='a.png'))])) == [
        'a.png'
    ]


def test_the_image_with_the_broken_pixel_is_found_in_views_as_well():
    samples = [DataSample(metainfo=dict(sample_idx=i)) for i in range(3)]
    views = [torch.zeros(3, 3, 2, 2), torch.zeros(3, 3, 2, 2)]
    views[1][2, 0, 1, 1] = float('nan')
    assert broken_images(dict(inputs=views, data_samples=samples)) == ['image 2']
    assert broken_images(dict(inputs=list(views[1]), data_samples=samples)) == ['image 2']
    assert broken_images(dict(inputs=views[0], data_samples=samples)) == []
