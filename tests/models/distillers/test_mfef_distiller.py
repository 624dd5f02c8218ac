import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from reference import assert_same, batch_norm, cross_entropy, kd, separable
from torch import nn
from torch.nn import functional as F

from mfef_mmrazor.functional import kd_loss
from mfef_mmrazor.models import (
    DANetConnector,
    FeatureFusionConnector,
    MapAdapter,
    MFEFDistiller,
    OnlineDistill,
)

PLAIN = dict(multi_scale=None, attention=None, enhanced_head=None)
AUXILIARY = ['adapters', 'multi_scale', 'attention', 'fused_classifier']
LABELS = torch.tensor([0, 3, 1, 4, 2])


@pytest.fixture(autouse=True)
def epoch():
    """Sets the epoch that mmengine's runner would announce: 0 at first."""
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 0)
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)


def mfef(in_channels=16, num_classes=5, attention=dict(reduction=4), enhanced_head=None, **options):
    torch.manual_seed(0)
    distiller = MFEFDistiller(
        in_channels, num_classes, attention=attention, enhanced_head=enhanced_head, **options
    )
    nn.init.normal_(
        distiller.fused_classifier.head.fc.weight
    )  # far from uniform, so that no loss is near zero
    return distiller.double()


def records(students=2, channels=16, size=6, classes=5):
    """Leaves, as if the students' networks ended there."""
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape):
        x = torch.randn(shape, dtype=torch.float64, generator=generator)
        return x.requires_grad_()

    return dict(
        logits=[leaf(5, classes) for _ in range(students)],
        feature=[leaf(5, channels, size, size) for _ in range(students)],
    )


def map_of(distiller, caught):
    fused_map, _ = distiller.fused_classifier(distiller.informative_maps(caught))
    return fused_map


def has_gradient(module):
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    'options, parameters',
    [
        (dict(), 58_588),
        (dict(multi_scale=None), 58_588 - 2 * 14_680),
        (dict(attention=dict()), 58_588 + 2 * 680),
        (dict(enhanced_head=None), 58_588 - 2 * 6_500),
        (PLAIN, 16_228),
        (dict(PLAIN, fusion=None), 6_500),
        (dict(multi_scale=dict(scales=2)), 58_588 - 2 * (14_680 - 9_280)),
        (dict(num_students=3), 3 * (14_680 + 6_500) + 21_028),
        (dict(num_students=4), 4 * (14_680 + 6_500) + 25_828),
        (dict(in_channels=[512, 64]), 58_588 + 512 * 64 + 2 * 64),
    ],
)
def test_parameters(options, parameters):
    distiller = MFEFDistiller(**{**dict(in_channels=64, num_classes=100), **options})
    assert sum(p.numel() for p in distiller.parameters()) == parameters


class FFL(nn.Module):
    """The loss of Feature Fusion Learning beyond the students' own cross-entropies."""

    def __init__(self, channels, classes):
        super().__init__()
        total = 2 * channels
        self.depthwise = nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False)
        self.bn1 = nn.BatchNorm2d(total)
        self.pointwise = nn.Conv2d(total, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, maps, logits, labels, w, tau=3.0):
        x = self.bn1(self.depthwise(torch.cat(maps, dim=1))).relu()
        x = self.bn2(self.pointwise(x)).relu()
        fused = self.fc(F.avg_pool2d(x, x.shape[-1]).flatten(1))

        def kl(teacher, student):
            p, q = (teacher.detach() / tau).softmax(dim=1), (student / tau).softmax(dim=1)
            return tau**2 * (p * (p / q).log()).sum(dim=1).mean()

        transfer = kl(fused, logits[0]) + kl(fused, logits[1])
        ensemble = kl((logits[0] + logits[1]) / 2, fused)
        own = -fused.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean()
        return own + w * (transfer + ensemble)


@pytest.mark.parametrize('number, w', [(0, 0.006737947), (40, 0.2865047969), (80, 1.0)])
def test_without_multi_scale_and_attention_it_is_ffl(number, w, epoch):
    epoch(number)
    distiller, ffl = mfef(**PLAIN), FFL(16, 5).double()
    theirs = [p for name, p in distiller.state_dict().items()]
    ffl.load_state_dict(dict(zip(ffl.state_dict(), theirs, strict=True)))

    mine, other = records(), records()
    loss = sum(distiller.compute_distill_losses(mine, LABELS).values())
    expected = ffl(other['feature'], other['logits'], LABELS, w)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-8)
    loss.backward(), expected.backward()
    for ours, reference in [
        *zip(mine['logits'] + mine['feature'], other['logits'] + other['feature'], strict=True),
        *zip(distiller.parameters(), ffl.parameters(), strict=True),
    ]:
        assert ours.grad.abs().sum() > 0
        assert torch.allclose(ours.grad, reference.grad, rtol=0, atol=1e-8)


@pytest.mark.parametrize('students', [2, 3, 4])
def test_maps_go_through_multi_scale_then_attention_then_fusion_then_the_head(students):
    distiller, caught = mfef(num_students=students).eval(), records(students)
    for module in distiller.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias)
    maps = [
        distiller.attention[i](distiller.multi_scale[i](x)) for i, x in enumerate(caught['feature'])
    ]
    fused_map = distiller.fused_classifier.fusion(maps)
    assert torch.equal(map_of(distiller, caught), fused_map)
    expected = distiller.fused_classifier.head.fc(fused_map.flatten(2).mean(dim=2))
    assert torch.allclose(distiller.fused_logits(caught), expected, rtol=0, atol=1e-12)
    assert len({id(module) for module in [*distiller.multi_scale, *distiller.attention]}) == (
        2 * students
    )


def test_without_fusion_the_maps_are_averaged():
    distiller, caught = mfef(**PLAIN, fusion=None), records()
    first, second = caught['feature']
    assert torch.allclose(map_of(distiller, caught), (first + second) / 2)


def hierarchical_split(module, x):
    """The multi-scale block group by group, its 3x3 convolutions as nine shifts."""
    first, *groups = x.split(module.width, dim=1)
    kept, passed = [first], first[:, :0]
    for group, block in zip(groups, module.convs, strict=True):
        joined = torch.cat([group, passed], dim=1)
        height, width = joined.shape[2:]
        padded, weight = F.pad(joined, (1, 1, 1, 1)), block.conv.weight
        y = sum(
            torch.einsum(
                'oc,bchw->bohw', weight[:, :, i, j], padded[..., i : i + height, j : j + width]
            )
            for i in range(3)
            for j in range(3)
        )
        y = batch_norm(y, block.bn).clamp(min=0)
        last = group is groups[-1]
        half = len(y[0]) if last else len(y[0]) - len(y[0]) // 2
        kept.append(y[:, :half])
        passed = y[:, half:]
    return torch.cat(kept, dim=1)


def adapted(adapter, x, size):
    """Average pooling to the size, then the 1x1 convolution of a MapAdapter, if there is one."""
    x = F.adaptive_avg_pool2d(x, size)
    if isinstance(adapter, nn.Identity):
        return x
    x = torch.einsum('oc,bchw->bohw', adapter.conv.conv.weight[:, :, 0, 0], x)
    return batch_norm(x, adapter.conv.bn).clamp(min=0)


@pytest.mark.parametrize(
    'in_channels, sizes',
    [([16] * 2, [6] * 2), ([16] * 3, [6] * 3), ([16] * 4, [6] * 4), ([24, 16], [6, 3])],
)
def test_the_enhanced_classifiers_learn_and_teach(in_channels, sizes, epoch):
    epoch(40)
    students = len(in_channels)
    distiller = mfef(
        in_channels,
        num_students=students,
        attention=None,
        enhanced_head=dict(),
        loss_self=dict(loss_weight=2.0),
        loss_guide=dict(tau=2.0),
    )
    for head in distiller.enhanced_heads:
        nn.init.normal_(head.fc.weight)
    caught = records(students)
    generator = torch.Generator().manual_seed(2)
    caught['feature'] = [
        torch.randn(5, c, s, s, dtype=torch.float64, generator=generator).requires_grad_()
        for c, s in zip(in_channels, sizes, strict=True)
    ]
    losses = distiller.compute_distill_losses(caught, LABELS)

    def classified(head, x):
        return x.flatten(2).sum(dim=2) / x[0, 0].numel() @ head.fc.weight.t() + head.fc.bias

    z, w, size = caught['logits'], 0.2865047968601901, (min(sizes), min(sizes))
    maps = [
        hierarchical_split(extract, adapted(adapter, x, size))
        for extract, adapter, x in zip(
            distiller.multi_scale, distiller.adapters, caught['feature'], strict=True
        )
    ]
    fused_map = separable(distiller.fused_classifier.fusion.fuse, torch.cat(maps, dim=1))
    fused = classified(distiller.fused_classifier.head, fused_map)
    enhanced = [classified(h, x) for h, x in zip(distiller.enhanced_heads, maps, strict=True)]
    expected = dict(
        loss_fused=cross_entropy(fused),
        loss_ensemble=w * kd(sum(z) / students, fused, 3.0),
        loss_transfer=w * sum(kd(fused, x, 3.0) for x in z),
        loss_enhanced=sum(cross_entropy(x) for x in enhanced),
        loss_self=2 * w * sum(kd(e, x, 3.0) for e, x in zip(enhanced, z, strict=True)),
        loss_guide=w * sum(kd(fused, e, 2.0) for e in enhanced),
    )
    assert_same(losses, expected, distiller, caught)

    found = distiller.auxiliary_logits(caught)
    assert list(found)[1:] == [*(f'enhanced{i}' for i in range(students)), 'enhanced_ensemble']
    torch.testing.assert_close(found['fused'], fused)
    torch.testing.assert_close(found['enhanced1'], enhanced[1])
    torch.testing.assert_close(found['enhanced_ensemble'], sum(enhanced) / students)


def test_terms_of_the_enhanced_classifiers_can_be_dropped():
    without = mfef()
    bare = mfef(enhanced_head=dict(), loss_self=None, loss_guide=None)
    bare.load_state_dict(without.state_dict(), strict=False)
    assert list(without.auxiliary_logits(records())) == ['fused']
    expected = without.compute_distill_losses(records(), LABELS)
    losses = bare.compute_distill_losses(records(), LABELS)
    assert losses.pop('loss_enhanced') > 0
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


@pytest.mark.parametrize('students', [2, 3])
def test_every_term_is_what_it_is_called(students, epoch):
    epoch(40)
    distiller = mfef(
        num_students=students, loss_mutual=dict(), loss_map=dict(loss_weight=7.0), tau=2.0
    )
    caught = records(students)
    z, fused = caught['logits'], distiller.fused_logits(caught)
    fused_map, w = map_of(distiller, caught), 0.2865047969

    def attention(x):
        energy = x.pow(2).sum(dim=1).flatten(1)
        return energy / energy.norm(dim=1, keepdim=True)

    expected = dict(
        loss_fused=F.cross_entropy(fused, LABELS),
        loss_ensemble=w * kd_loss(fused, sum(z) / students, 2.0),
        loss_transfer=w * sum(kd_loss(x, fused, 2.0) for x in z),
        loss_mutual=w * sum(kd_loss(a, b, 2.0) for a in z for b in z) / (students - 1),
        loss_map=w * 7 * sum(
            (attention(x) - attention(fused_map)).pow(2).mean() for x in caught['feature']
        ),
    )  # fmt: skip
    losses = distiller.compute_distill_losses(caught, LABELS)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-6
    )
    assert all(value > 1e-3 for value in losses.values())


def test_the_ramp_up_weighs_all_terms_but_the_cross_entropy(epoch):
    distiller = mfef(loss_mutual=dict(), loss_map=dict())
    values = {}
    for number in (0, 40, 80):
        epoch(number)
        losses = distiller.compute_distill_losses(records(), LABELS)
        values[number] = {name: value.item() for name, value in losses.items()}
    for name, last in values[80].items():
        weights = (1, 1) if name == 'loss_fused' else (0.006737947, 0.2865047969)
        assert (values[0][name] / last, values[40][name] / last) == pytest.approx(weights)


def test_terms_can_be_dropped_and_have_their_own_temperature():
    bare = mfef(loss_transfer=None, loss_ensemble=None)
    assert list(bare.compute_distill_losses(records(), LABELS)) == ['loss_fused']
    distiller = mfef(loss_transfer=dict(tau=1.5), ramp_up_epochs=0, attention=None)
    caught = records()
    fused = distiller.fused_logits(caught)
    losses = distiller.compute_distill_losses(caught, LABELS)
    expected = sum(kd_loss(z, fused, 1.5) for z in caught['logits'])
    assert losses['loss_transfer'].item() == pytest.approx(expected.item())
    assert distiller.loss_ensemble.tau == 3.0


def test_parts_can_be_swapped_by_their_type():
    distiller = mfef(attention=dict(type='DANetConnector'))
    assert all(isinstance(module, DANetConnector) for module in distiller.attention)
    assert distiller.attention[0].query.in_channels == 16


def test_swapping_the_students_leaves_the_loss_as_it_is(epoch):
    epoch(80)
    distiller, swapped = mfef(), mfef()
    state = distiller.state_dict()
    for part in ('multi_scale', 'attention'):
        for name, value in getattr(distiller, part).state_dict().items():
            index, _, rest = name.partition('.')
            state[f'{part}.{1 - int(index)}.{rest}'] = value
    halves = torch.cat([torch.arange(16, 32), torch.arange(16)])
    for name, value in distiller.fused_classifier.fusion.state_dict().items():
        if 'pointwise_conv.conv' in name:
            state[f'fused_classifier.fusion.{name}'] = value[:, halves]
        elif 'depthwise_conv' in name and value.dim():
            state[f'fused_classifier.fusion.{name}'] = value[halves]
    swapped.load_state_dict(state)
    caught = records()
    losses = distiller.compute_distill_losses(caught, LABELS)
    reversed_records = {name: values[::-1] for name, values in caught.items()}
    others = swapped.compute_distill_losses(reversed_records, LABELS)
    for name, value in losses.items():
        assert others[name].item() == pytest.approx(value.item(), rel=1e-12)
    assert swapped.compute_distill_losses(caught, LABELS)['loss_fused'] != losses['loss_fused']


def test_the_ensemble_of_identical_students_is_the_student(epoch):
    epoch(80)
    distiller, caught = mfef(), records()
    caught = {name: [values[0], values[0].clone()] for name, values in caught.items()}
    losses = distiller.compute_distill_losses(caught, LABELS)
    expected = kd_loss(distiller.fused_logits(caught), caught['logits'][0], 3.0)
    assert losses['loss_ensemble'].item() == pytest.approx(expected.item(), rel=1e-12)


class TestGradientRouting:
    """On real students, one backward pass a test."""

    @staticmethod
    def setup(detach_features=False, **options):
        torch.manual_seed(0)
        student = dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CifarResNet', depth=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
        )
        distiller = dict(
            type='MFEFDistiller',
            in_channels=64,
            num_classes=10,
            detach_features=detach_features,
            **options,
        )
        model = OnlineDistill(students=[student, student], distiller=distiller)
        inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        return model, inputs, [DataSample().set_gt_label(i) for i in range(4)]

    @pytest.mark.parametrize('learner', [0, 1])
    def test_the_fused_classifier_teaches_one_student_and_nothing_else(self, learner):
        model, inputs, _ = self.setup()
        distiller = model.distiller
        distiller.prepare_recorders(model.students)
        for student, recorders in zip(model.students, distiller.recorders, strict=True):
            with recorders:
                student(inputs, mode='tensor')
        caught = distiller.collect_records()
        fused = distiller.fused_logits(caught)
        distiller.loss_transfer(caught['logits'][learner], fused).backward()
        assert has_gradient(model.students[learner].backbone)
        assert has_gradient(model.students[learner].head)
        assert not has_gradient(model.students[1 - learner])
        assert not has_gradient(distiller)

    def test_the_whole_transfer_leaves_the_fused_path_alone(self):
        model, inputs, samples = self.setup()
        model.loss(inputs, samples)['distill.loss_transfer'].backward()
        assert all(has_gradient(student) for student in model.students)
        assert not has_gradient(model.distiller)

    @pytest.mark.parametrize('detach_features', [False, True])
    @pytest.mark.parametrize('term', ['loss_ensemble', 'loss_fused'])
    def test_the_fused_loss_reaches_backbones_only_through_the_maps(self, term, detach_features):
        model, inputs, samples = self.setup(detach_features)
        model.loss(inputs, samples)[f'distill.{term}'].backward()
        for student in model.students:
            assert not has_gradient(student.head)
            assert has_gradient(student.backbone) != detach_features
        assert has_gradient(model.distiller.multi_scale)
        assert has_gradient(model.distiller.fused_classifier)
        assert not has_gradient(model.distiller.enhanced_heads)

    # term -> what has a gradient: students' backbones and heads, extraction, enhanced heads, fusion
    ENHANCED = {
        'loss_enhanced': [True, False, True, True, False],
        'loss_self': [True, True, False, False, False],
        'loss_guide': [True, False, True, True, False],
        'loss_transfer': [True, True, False, False, False],
        'loss_fused': [True, False, True, False, True],
    }

    @pytest.mark.parametrize('term', ENHANCED)
    def test_who_learns_from_which_term_of_the_enhanced_classifiers(self, term):
        model, inputs, samples = self.setup()
        model.loss(inputs, samples)[f'distill.{term}'].backward()
        parts = [
            *zip(*((student.backbone, student.head) for student in model.students), strict=True),
            *(getattr(model.distiller, name) for name in ('multi_scale', 'enhanced_heads')),
            [model.distiller.fused_classifier],
        ]
        for part, learns in zip(parts, self.ENHANCED[term], strict=True):
            assert {has_gradient(module) for module in part} == {learns}

    def test_an_enhanced_classifier_teaches_its_own_student_alone(self):
        model, inputs, samples = self.setup(enhanced_head=dict())
        records = []
        compute = model.distiller.compute_distill_losses
        model.distiller.compute_distill_losses = lambda r, y: records.append(r) or compute(r, y)
        model.loss(inputs, samples)
        maps = model.distiller.informative_maps(records[0])
        enhanced = model.distiller.enhanced_logits(maps)
        model.distiller.loss_self(records[0]['logits'][1], enhanced[1]).backward()
        assert [has_gradient(student) for student in model.students] == [False, True]

    @pytest.mark.parametrize('detach_features', [False, True])
    def test_detached_students_get_the_gradient_of_their_own_losses_alone(self, detach_features):
        gradients = []
        own = ('student', 'distill.loss_transfer', 'distill.loss_self')
        for terms in (own, ('student', 'distill')):
            model, inputs, samples = self.setup(detach_features)
            losses = model.loss(inputs, samples)
            sum(value for name, value in losses.items() if name.startswith(terms)).backward()
            gradients.append([p.grad for s in model.students for p in s.parameters()])
        same = [torch.equal(a, b) for a, b in zip(*gradients, strict=True)]
        assert all(same) if detach_features else not all(same)


@pytest.mark.parametrize('in_channels, adapted', [([16, 24], 1), ([24, 16], 0)])
def test_maps_of_other_channels_and_sizes_are_adapted_and_the_log_says_so(
    in_channels, adapted, log
):
    distiller = mfef(in_channels)
    caught = records()
    other = torch.randn(5, 24, 3, 3, dtype=torch.float64)
    caught['feature'][adapted] = other
    for _ in range(2):
        fused_map = map_of(distiller, caught)
    assert fused_map.shape == (5, 16, 3, 3)
    kinds = [type(adapter) for adapter in distiller.adapters]
    assert kinds == ([nn.Identity, MapAdapter] if adapted else [MapAdapter, nn.Identity])
    assert log[0].startswith(
        f'MapAdapters: the feature map of student{adapted} goes from 24 to 16 channels through a'
    )
    assert 'average-pooled to (3, 3)' in log[1] and len(log) == 2


def test_maps_that_are_recorded_in_half_precision_are_compared_in_full():
    distiller, seen = mfef(loss_map=dict()).float(), []
    caught = records()
    half = [x.detach().bfloat16() for x in caught['feature']]
    caught = dict(logits=[x.detach().float() for x in caught['logits']], feature=half)
    distiller.loss_map.register_forward_pre_hook(lambda module, maps: seen.extend(maps))
    with torch.autocast('cpu', torch.bfloat16):
        distiller.compute_distill_losses(caught, LABELS)
    assert [x.dtype for x in seen] == [torch.float32] * 4


def test_the_fused_loss_takes_soft_labels():
    distiller = mfef(head=dict(loss=dict(type='CrossEntropyLoss', use_soft=True)))
    hard = mfef().compute_distill_losses(records(), LABELS)['loss_fused']
    soft = distiller.compute_distill_losses(records(), F.one_hot(LABELS, 5).double())['loss_fused']
    assert soft.item() == pytest.approx(hard.item())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=[64, 64, 64]), r'in_channels=\[64, 64, 64\] names 3 students.* are 2'),
        (dict(multi_scale=dict(scales=3)), 'in_channels=64 cannot be divided into scales=3'),
        (dict(attention=dict(reduction=128)), 'reduction=128 leaves no unit'),
        (dict(ramp_up_epochs=-5), 'length is -5 epochs'),
        (dict(recorders=[{}]), '1 sets of recorders for 2 students'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        MFEFDistiller(**{**dict(in_channels=64, num_classes=10), **options})


@pytest.mark.parametrize('shape', [(5, 8, 6, 6), (5, 16)])
def test_a_map_other_than_announced(shape):
    distiller, caught = mfef(), records()
    caught['feature'][1] = torch.rand(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'feature of student1 is .*in_channels=\[16, 16\] stands'):
        distiller.compute_distill_losses(caught, LABELS)


def test_a_misspelt_part():
    with pytest.raises(TypeError, match="FeatureFusionConnector has no argument 'out_chanels'"):
        mfef(fusion=dict(out_chanels=8))
    assert isinstance(mfef().fused_classifier.fusion, FeatureFusionConnector)
