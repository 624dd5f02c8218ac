import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from reference import LABELS, W40, assert_same, cross_entropy, kd, records
from test_all_distillers import config_of
from torch import nn

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates
from mfef_mmrazor.models import OnlineDistill, PCLDistiller


class Tiny(BaseModel):
    """A student small enough to be recomputed by hand."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(self.backbone(inputs).mean(dim=(2, 3)))
        if mode == 'tensor':
            return logits
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=nn.functional.cross_entropy(logits, labels))


SAMPLES = [DataSample().set_gt_label(int(label)) for label in LABELS]


def pcl(students=2, **options):
    torch.manual_seed(0)
    distiller = PCLDistiller(4, 5, num_students=students, **options)
    nn.init.normal_(distiller.head.fc.weight)  # far from uniform, so that no loss is near zero
    return OnlineDistill(students=[Tiny() for _ in range(students)], distiller=distiller).double()


def views(number, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LABELS), 3, 6, 6)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(number)]


def by_hand(weights, view):
    """Logits of a tiny student in training mode."""
    x = nn.functional.conv2d(view, weights['backbone.0.weight'], weights['backbone.0.bias'])
    x = x - x.mean(dim=(0, 2, 3), keepdim=True)
    x = x / (x.pow(2).mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()
    x = x * weights['backbone.1.weight'][:, None, None] + weights['backbone.1.bias'][:, None, None]
    return x.mean(dim=(2, 3)) @ weights['head.weight'].T + weights['head.bias']


def weights_of(model):
    return [
        {name: p.detach().clone() for name, p in student.named_parameters()}
        for student in model.students
    ]


def steps(model, number, seed=1):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    announce_updates(model, optimizer)
    for i in range(number):
        optimizer.zero_grad()
        sum(model.loss(views(len(model.students), seed + i), SAMPLES).values()).backward()
        optimizer.step()


@pytest.mark.parametrize('students', [2, 3, 4])
def test_the_common_classifier_and_the_peers_mean_teachers_teach(students, epoch):
    epoch(40)
    model = pcl(students)
    distiller, caught = model.distiller, records(students, channels=4)
    caught['image'] = images = views(students)
    learnt = dict(logits=caught['logits'], feature=caught['feature'])
    for teacher in distiller.mean_teachers:  # other weights than the students'
        for p in teacher.parameters():
            nn.init.normal_(p)
    means = [
        by_hand({k: p.detach() for k, p in teacher.module.named_parameters()}, view)
        for teacher, view in zip(distiller.mean_teachers, images, strict=True)
    ]
    z = caught['logits']
    pooled = torch.cat([x.flatten(2).mean(dim=2) for x in caught['feature']], dim=1)
    fused = pooled @ distiller.head.fc.weight.T + distiller.head.fc.bias
    pairs = [(i, j) for i in range(students) for j in range(students) if i != j]
    expected = dict(
        loss_fused=cross_entropy(fused),
        loss_transfer=W40 * sum(kd(fused, x, 3.0) for x in z),
        loss_peers=W40 * sum(kd(means[j], z[i], 3.0) for i, j in pairs) / (students - 1),
    )
    losses = distiller.compute_distill_losses(caught, LABELS)
    head = nn.ModuleDict(dict(head=distiller.head))  # all there is to train
    assert_same(losses, expected, head, learnt)
    assert torch.equal(distiller.fused_logits(caught), distiller.fused_logits(learnt))


def test_mean_teachers_are_the_mean_of_all_weights_and_then_a_moving_average():
    model = pcl(momentum=0.3)
    history = [weights_of(model)]
    for i in range(4):
        steps(model, 1, seed=i)
        history.append(weights_of(model))
    for student, teacher in enumerate(model.distiller.mean_teachers):
        assert teacher.steps == 5
        for name, found in teacher.module.named_parameters():
            w = [each[student][name] for each in history]
            expected = (w[0] + w[1] + w[2]) / 3  # 1/2 and 1/3 are more than 0.3
            for new in w[3:]:
                expected = 0.7 * expected + 0.3 * new
            torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-10)
        assert not torch.allclose(teacher.module.head.weight, history[-1][student]['head.weight'])


@pytest.mark.parametrize('frozen', [[], ['head']])
def test_an_optimizer_that_is_not_announced_is_noticed(frozen):
    model = pcl()
    for student in model.students:
        for part in frozen:
            student.get_submodule(part).requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model.loss(views(2), SAMPLES).values()).backward()
    model.loss(views(2), SAMPLES)  # nothing has moved yet
    optimizer.step()
    with pytest.raises(ValueError, match='PCLDistiller has to act when the optimizer steps'):
        model.loss(views(2), SAMPLES)


def test_by_default_the_average_moves_by_a_thousandth_a_step_in_the_end():
    model = pcl()
    steps(model, 1)
    teachers = model.distiller.mean_teachers
    for teacher in teachers:
        teacher.steps.fill_(2000)
    before = copy.deepcopy(teachers)
    model.distiller.after_update(model.students)
    for teacher, old, weights in zip(teachers, before, weights_of(model), strict=True):
        for name, new in weights.items():
            assert not torch.equal(old.module.get_parameter(name), new)
            expected = torch.lerp(old.module.get_parameter(name), new, 0.001)
            torch.testing.assert_close(teacher.module.get_parameter(name), expected)


@pytest.mark.parametrize('kind', ['foreach', 'fused'])
def test_accumulated_gradients_and_losses_without_them_move_the_mean_teachers_once(kind):
    model, once = pcl(), pcl()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, 0.9, **{kind: True}) for m in (model, once)]
    announce_updates(model, optimizers[0])
    announce_updates(once, optimizers[1])
    for i in range(3):
        for losses in (model, model, once):
            sum(losses.loss(views(2, seed=i), SAMPLES).values()).backward()
        with torch.no_grad():
            model.loss(views(2, seed=i), SAMPLES)
        for p in model.parameters():
            if p.grad is not None:
                p.grad /= 2
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for teacher, expected in zip(
        model.distiller.mean_teachers, once.distiller.mean_teachers, strict=True
    ):
        assert teacher.steps == expected.steps == 4  # with the weights that it starts from
        assert torch.allclose(teacher.module.head.weight, expected.module.head.weight)


def test_each_mean_teacher_sees_the_view_of_its_student():
    model, images = pcl(3), views(3)
    model.loss(images, SAMPLES)
    seen = []
    for teacher in model.distiller.mean_teachers:
        teacher.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    model.loss(images, SAMPLES)
    assert all(torch.equal(x, y) for (x, _), y in zip(seen, images, strict=True))
    assert not any(out.requires_grad for _, out in seen)


def test_nothing_but_the_average_moves_a_mean_teacher():
    model = pcl()
    steps(model, 1)
    before = copy.deepcopy(model.distiller.mean_teachers)
    model.eval()
    model.predict_all(views(1)[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before.state_dict().values(),
            model.distiller.mean_teachers.state_dict().values(),
            strict=True,
        )
    )
    model.train()
    sum(model.loss(views(2), SAMPLES).values()).backward()
    assert all(p.grad is None for p in model.distiller.mean_teachers.parameters())


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped():
    whole, first = pcl(), pcl()
    steps(whole, 5)
    steps(first, 2)
    second = pcl()
    steps(second, 1, seed=9)  # other weights, all of which the checkpoint replaces
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, 3, seed=3)
    expected = whole.state_dict()
    assert any('mean_teachers.1.module.head' in name for name in expected)
    for name, value in second.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_teachers_follow_weights_in_another_memory_layout():
    model = pcl().float().to(memory_format=torch.channels_last)
    for student in model.students:
        for p in student.parameters():
            nn.init.constant_(p, 2.0)
    model.distiller.before_step(model.students)
    assert all((p == 2).all() for p in model.distiller.mean_teachers.parameters())


class Weights(Hook):
    """Keeps the first student's weights after each step."""

    def __init__(self):
        self.history = []

    def after_train_iter(self, runner, *_, **__):
        self.history.append(copy.deepcopy(runner.model.architecture.state_dict()))


@pytest.mark.parametrize('averaged', [False, True])
def test_a_run_of_the_shipped_config(tmp_path, averaged):
    cfg = Config.fromfile(config_of('PCLDistiller'))
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.dataset.train_per_class = 8
    if averaged:  # as the card says
        average = dict(momentum=0.001, gamma=1, update_buffers=True)
        average.update(type='mmengine.EMAHook', ema_type='MomentumAnnealingEMA')
        cfg.custom_hooks.append(average)
    runner = Runner.from_cfg(cfg)
    weights = Weights()
    runner.register_hook(weights)
    runner.train()
    assert (tmp_path / 'results.json').exists()
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    *earlier, last = (each['head.fc.weight'] for each in weights.history)
    expected = sum([*earlier, last]) / 3 if averaged else last
    torch.testing.assert_close(saved['architecture.head.fc.weight'], expected)
    assert averaged or saved['distiller.mean_teachers.1.steps'] == 4


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=[64]), r'in_channels=\[64\] names 1 students, but there are 2'),
        (dict(momentum=0), 'momentum=0, the share .* must be between 0 and 1'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
        (dict(ramp_up_epochs=-1), 'length is -1 epochs'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        PCLDistiller(**{**dict(in_channels=64, num_classes=10), **options})


def test_a_map_other_than_announced():
    with pytest.raises(ValueError, match=r'feature of student1 is \(5, 8, 6, 6\).*\[4, 4\]'):
        pcl().distiller.fused_logits(records(2, [4, 8]))
