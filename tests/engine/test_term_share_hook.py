"""What is measured is what autograd says of the same losses, and the training is left as it is."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.hooks.term_share_hook import TermShareHook, draw_terms, measure
from mfef_mmrazor.models import OnlineDistill

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return OnlineDistill(
        [STUDENT, STUDENT],
        dict(type='MFEFDistiller'),
        dict(type='mmpretrain.ClsDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3),
    )


def batch():
    from mmpretrain.structures import DataSample

    draw = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 2, (3, 16, 16), generator=draw) for _ in range(4)]
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i % 3) for i in range(4)])


def test_gradients_are_those_of_each_term_alone(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses, norms = measure(model, batch())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    for term in ('student0.loss', 'distill.loss_fused', 'distill.loss_transfer'):
        model.load_state_dict(before)
        model.zero_grad()
        own = model.loss(**model.data_preprocessor(batch(), True))[term]
        own.backward()
        assert losses[term] == pytest.approx(own.item())
        for i, student in enumerate(model.students):
            grads = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
            norm = torch.cat(grads).norm().item() if grads else 0
            assert norms[f'student{i}.{term}'] == pytest.approx(norm, rel=1e-4, abs=1e-12)
    assert norms['student1.student0.loss'] == 0 < norms['student1.distill.loss_transfer']
    model.load_state_dict(before)


def test_frozen_weights_have_no_part_in_a_gradient(model):
    half_frozen = copy.deepcopy(model)
    half_frozen.students[0].backbone.requires_grad_(False)
    _, norms = measure(half_frozen, batch())
    _, expected = measure(model, batch())
    assert 0 < norms['student0.student0.loss'] < expected['student0.student0.loss']


def test_equal_students_are_left_for_the_model_itself_to_announce(model, log):
    twins = copy.deepcopy(model)
    twins.first_step_checked = False
    twins.students[1].load_state_dict(twins.students[0].state_dict())
    measure(twins, batch())
    assert not any('have the same weights' in line for line in log)
    twins.loss(**twins.data_preprocessor(batch(), True))
    assert sum('have the same weights' in line for line in log) == 1


def test_a_resumed_run_has_what_was_measured_before():
    first, second, checkpoint = TermShareHook(), TermShareHook(), {}
    first.history = [{'epoch': 0, 'share.student0.loss': 100.0}]
    first.before_save_checkpoint(None, checkpoint)
    second.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)
    assert second.history == first.history


def test_a_training_is_the_same_with_it_and_leaves_a_picture(tmp_path):
    small = {
        'train_cfg.max_epochs': 2,
        'train_dataloader.dataset.train_per_class': 4,
        'val_dataloader.dataset.indices': 20,
        'model.distiller.ramp_up_epochs': 0,
        'model.distiller.loss_guide': dict(type='KLDivergence', loss_weight=-1e-6),
        'visualizer.vis_backends.0.type': 'TensorboardVisBackend',
    }
    weights, runners = [], []
    for name, hooks in (('without', []), ('with', [dict(type='mmrazor.TermShareHook')])):
        cfg = load_config(CONFIG, tmp_path / name, small, seed=0)
        cfg.custom_hooks += hooks
        runners.append(train(cfg))
        weights.append(torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False))
    for key, value in weights[0]['state_dict'].items():
        assert torch.equal(value, weights[1]['state_dict'][key]), key
    for name in ('without', 'with'):  # the results hook says it, once
        (log,) = (tmp_path / name).glob('2*/*.log')
        assert log.read_text().count('distill.loss_guide is ') == 1
    assert 'term_shares' not in weights[0]
    entries = weights[1]['term_shares']
    assert [entry['epoch'] for entry in entries] == [0, 1]
    for entry in entries:
        shares = [x for name, x in entry.items() if name.startswith('share.')]
        assert sum(shares) == pytest.approx(100) and min(shares) > 0
    assert (tmp_path / 'with/terms.png').is_file()
    figure = draw_terms(tmp_path / 'again.png', entries, 'epoch')
    assert [axes.get_ylabel() for axes in figure.axes] == [
        'share of the loss (%)', 'gradient of student0', 'gradient of student1',
    ]  # fmt: skip
    (events,) = (tmp_path / 'with').rglob('events.out.tfevents*')
    assert b'terms/gradient.student0.distill.loss_transfer' in events.read_bytes()
    assert b'students.disagreement' in events.read_bytes()
