import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from reference import assert_same, cross_entropy, kd
from tiny import SAMPLES, Tiny, by_hand, views
from torch import nn

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates
from mfef_mmrazor.models import OKDPHDistiller, OnlineDistill

CONFIG = Path(__file__).parents[3] / 'configs/okdph/okdph_resnet8-x2_1xb32-20e_digits.py'


def okdph(students=2, **options):
    torch.manual_seed(0)
    distiller = OKDPHDistiller(num_students=students, **options)
    model = OnlineDistill([Tiny() for _ in range(students)], distiller).double()
    for p in model.parameters():
        nn.init.normal_(p)  # far from each other, so that no loss is near zero
    return model


def mean_of(students):
    own = [dict(student.named_parameters()) for student in students]
    return {name: sum(each[name] for each in own) / len(own) for name in own[0]}


@pytest.mark.parametrize('gradient', [True, False])
@pytest.mark.parametrize('students', [2, 3, 4])
def test_students_and_the_network_of_their_mean_learn_and_teach(students, gradient):
    options = dict(label_weight=0.7, transfer_weight=0.3, tau=2.0, hybrid_gradient=gradient)
    model, images = okdph(students, **options), views(students + 1)
    losses = model.loss(images, SAMPLES)
    own = [
        by_hand(dict(student.named_parameters()), view)
        for student, view in zip(model.students, images, strict=False)
    ]
    hybrid = by_hand(mean_of(model.students), images[-1])
    target = (sum(own) + hybrid) / (students + 1)
    on_labels = cross_entropy(hybrid) if gradient else cross_entropy(hybrid).detach()
    expected = dict(
        {f'student{i}.loss': 0.7 * cross_entropy(z) for i, z in enumerate(own)},
        **{
            'distill.loss_hybrid': students * (1 - 0.7) * on_labels,
            'distill.loss_transfer': 0.3 * sum(kd(target, z, 2.0) for z in own),
        },
    )
    if not gradient:  # as in the released code: a constant
        constant = losses.pop('distill.loss_hybrid')
        assert not constant.requires_grad
        assert constant.item() == pytest.approx(expected.pop('distill.loss_hybrid').item())
    assert_same(losses, expected, nn.ModuleList(model.students), {})


def test_a_hybrid_term_of_weight_zero_has_no_graph():
    losses = okdph(label_weight=1.0).loss(views(3), SAMPLES)
    assert losses['distill.loss_hybrid'].item() == 0
    assert not losses['distill.loss_hybrid'].requires_grad


def test_without_views_all_networks_see_the_same():
    model, (image,) = okdph(), views(1)
    losses, expected = model.loss(image, SAMPLES), model.loss([image] * 3, SAMPLES)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    with pytest.raises(ValueError, match=r'gives 2 views .* set num_views of MultiView to \[3\]'):
        model.loss([image] * 2, SAMPLES)


def weights_of(model):
    return [copy.deepcopy(student.state_dict()) for student in model.students]


def steps(model, optimizer, number, seed=1):
    for i in range(number):
        optimizer.zero_grad()
        sum(model.loss(views(3, seed + i), SAMPLES).values()).backward()
        optimizer.step()


def sgd(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    announce_updates(model, optimizer)
    return optimizer


@pytest.mark.parametrize('averaging', [0.25, 1.0])
def test_every_three_steps_students_move_towards_their_mean(averaging):
    averaged = okdph(averaging=averaging, interval=3)
    plain = okdph(averaging=0.0, interval=3)
    steps(averaged, sgd(averaged), 2)
    steps(plain, sgd(plain), 2)
    for own, expected in zip(weights_of(averaged), weights_of(plain), strict=True):
        assert all(torch.equal(own[name], expected[name]) for name in own)

    before = weights_of(plain)  # `plain` goes through the third step as well
    steps(averaged, sgd(averaged), 1, seed=3)
    steps(plain, sgd(plain), 1, seed=3)
    apart = weights_of(plain)
    assert not torch.equal(apart[0]['head.weight'], before[0]['head.weight'])
    for own, student in zip(weights_of(averaged), apart, strict=True):
        for name, value in own.items():  # the running statistics as well
            expected = student[name]
            if expected.is_floating_point():
                mean = (apart[0][name] + apart[1][name]) / 2
                expected = averaging * mean + (1 - averaging) * student[name]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_by_default_weights_temperature_and_averaging_are_the_papers():
    paper = dict(label_weight=0.8, transfer_weight=0.8, tau=4.0, averaging=0.5, interval=5)
    usual, written = okdph(), okdph(**paper, hybrid_gradient=True)
    for model in (usual, written):
        steps(model, sgd(model), 5)
    for own, expected in zip(weights_of(usual), weights_of(written), strict=True):
        assert all(torch.equal(own[name], expected[name]) for name in own)


class StandsStill(torch.optim.SGD):
    """As torch's fused optimizers, which are asked for a step that overflows as well."""

    def step(self, closure=None):
        pass


def test_steps_that_change_nothing_and_those_after_the_distillation_do_not_count():
    model, counted = okdph(), []
    optimizer = StandsStill(model.parameters(), lr=0.1)
    announce_updates(model, optimizer)
    for overflows, stopped, learns in (
        (1, False, True), (0, False, False), (0, False, True), (0, True, True),
    ):  # fmt: skip
        optimizer.zero_grad()
        if learns:  # without a gradient: a step that FiniteHook has left out
            sum(model.loss(views(3), SAMPLES).values()).backward()
        optimizer.found_inf = torch.tensor(overflows)  # as a loss scaler tells a fused optimizer
        model.distillation_stopped = stopped
        optimizer.step()
        counted.append(model.distiller.steps.item())
    assert counted == [0, 0, 1, 1]


def test_a_resumed_run_averages_when_it_would_have_without_the_stop():
    whole, first = okdph(interval=3), okdph(interval=3)
    steps(whole, sgd(whole), 4)
    steps(first, sgd(first), 2)
    second = okdph(interval=3)
    steps(second, sgd(second), 1, seed=9)  # other weights, all of which the checkpoint replaces
    second = okdph(interval=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.distiller.steps == 2
    steps(second, sgd(second), 2, seed=3)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())


def test_the_fused_predictor_is_the_network_of_the_mean_weights_and_statistics():
    model = okdph(3)
    optimizer = sgd(model)
    optimizer.zero_grad()
    sum(model.loss(views(4), SAMPLES).values()).backward()
    optimizer.step()
    model.eval()
    states = [student.state_dict() for student in model.students]
    hybrid = Tiny().double().eval()
    hybrid.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).double().mean(dim=0)
            for name in states[0]
        }
    )
    (image,) = views(1)
    torch.testing.assert_close(model.predict_logits(image)['fused'], hybrid(image))
    for state, student in zip(states, model.students, strict=True):
        assert all(torch.equal(state[k], v) for k, v in student.state_dict().items())

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs):
            return self.model.predict_logits(inputs)['fused']

    # as tools/export_student.py does
    traced = torch.jit.trace(Fused().eval(), image[:2], check_trace=False)
    torch.testing.assert_close(traced(image), hybrid(image))


def test_students_start_from_the_same_weights_if_asked_for():
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='CifarResNet', depth=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    )
    distiller = dict(type='OKDPHDistiller')
    for same in (False, True):
        torch.manual_seed(0)
        model = OnlineDistill([student] * 3, distiller, same_initial_weights=same)
        first, *others = (x.backbone.conv1.weight for x in model.students)
        assert all(torch.equal(first, other) == same for other in others)
    deeper = dict(student, backbone=dict(type='CifarResNet', depth=14))
    with pytest.raises(ValueError, match='same_initial_weights: student1 is not the same network'):
        OnlineDistill([student, deeper], dict(type='DMLDistiller'), same_initial_weights=True)
    with pytest.raises(ValueError, match='OKDPHDistiller: student1 is not the same network'):
        OnlineDistill([student, deeper], distiller)
    with pytest.raises(ValueError, match='shared_stages: OKDPHDistiller needs students'):
        OnlineDistill([student, student], distiller, shared_stages=1)


@pytest.mark.parametrize(
    'backbone, flag',
    [
        (dict(type='CifarResNet', depth=8), 'with_cp'),
        (dict(type='CifarDenseNet', depth=10, growth_rate=4), 'memory_efficient'),
    ],
)
def test_students_that_are_recomputed_in_the_backward_pass(backbone, flag):
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, **{flag: True}),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    )
    with pytest.raises(ValueError, match=f'{flag}=True in a student.*hybrid_gradient=False'):
        OnlineDistill([student, student], dict(type='OKDPHDistiller'))
    for no_gradient in (dict(hybrid_gradient=False), dict(label_weight=1.0)):
        OnlineDistill([student, student], dict(type='OKDPHDistiller', **no_gradient))


def test_a_run_that_recomputes_modules():
    model = okdph()
    turn_on_activation_checkpointing(model, ['peers.0.backbone'])
    model.loss(views(3), SAMPLES)  # the hybrid network is run in the first student's modules
    turn_on_activation_checkpointing(model, ['architecture.backbone'])
    with pytest.raises(ValueError, match='activation_checkpointing: .* leave it out'):
        model.loss(views(3), SAMPLES)


def test_students_that_no_view_tells_apart_are_announced(log):
    twins = 'student0 and student1 have the same weights'

    model, images = okdph(), views(3)
    model.students[1].load_state_dict(model.students[0].state_dict())
    model.loss(images[0], SAMPLES)
    model.loss(images[0], SAMPLES)
    assert sum(twins in line for line in log) == 1
    log.clear()
    model.first_step_checked = False
    model.loss(images, SAMPLES)  # each sees a view of its own
    assert not any(twins in line for line in log)


def test_a_run_of_the_shipped_config(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 2
    cfg.train_dataloader.dataset.train_per_class = 8  # 3 steps an epoch
    cfg.model.distiller.averaging = 1.0
    cfg.model.distiller.interval = 6
    runner = Runner.from_cfg(cfg)
    first, second = runner.model.students
    assert torch.equal(first.head.fc.weight, second.head.fc.weight)
    runner.train()
    for epoch, apart in ((1, True), (2, False)):
        saved = torch.load(tmp_path / f'epoch_{epoch}.pth', weights_only=True)['state_dict']
        own = [saved[f'{student}.head.fc.weight'] for student in ('architecture', 'peers.0')]
        assert torch.equal(*own) != apart and saved['distiller.steps'] == 3 * epoch
    assert (tmp_path / 'results.json').exists()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(label_weight=1.5), 'label_weight=1.5, expected a share between 0 and 1'),
        (dict(averaging=-1), 'averaging=-1, expected a share'),
        (dict(transfer_weight=-1), 'transfer_weight=-1, but a weight must be 0 or more'),
        (dict(interval=0), 'interval=0, expected a whole number of steps'),
        (dict(interval='epoch'), "interval='epoch', expected a whole number"),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        OKDPHDistiller(**options)
