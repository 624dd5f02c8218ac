import copy
import gc

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS
from torch import nn

from mfef_mmrazor.models import (
    InMemoryDataPreprocessor,
    MapAdapter,
    MFEFDistiller,
    OnlineDistill,
)
from mfef_mmrazor.models.builder import build
from mfef_mmrazor.models.distillers.online_distiller import network_logits

MFEF = dict(type='MFEFDistiller', in_channels=64, num_classes=10)
RESNET18 = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)


def student(depth=8, classes=10):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='CifarResNet', depth=depth),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=64),
    )


def online(number=2, seed=0, students=None, **mfef):
    torch.manual_seed(seed)
    return OnlineDistill(students or [student()] * number, distiller={**MFEF, **mfef})


def batch(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (4,), generator=generator)
    samples = [DataSample().set_gt_label(y) for y in labels]
    return torch.randn(4, 3, size, size, generator=generator), samples


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def equal(one, other):
    """Whether both modules have the same weights and buffers, bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(autouse=True)
def first_epoch():
    MessageHub.get_current_instance().update_info('epoch', 0)
    yield
    MessageHub.get_current_instance().update_info('epoch', 0)


@pytest.mark.parametrize('number', [2, 3, 4])
def test_every_student_has_its_loss_and_every_weight_a_gradient(number):
    model = online(number)
    losses = model.loss(*batch())
    assert list(losses) == [f'student{i}.loss' for i in range(number)] + [
        f'distill.loss_{name}'
        for name in ('fused', 'ensemble', 'transfer', 'enhanced', 'self', 'guide')
    ]
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    names = [f'student{i}' for i in range(number)]
    enhanced = [*(f'enhanced{i}' for i in range(number)), 'enhanced_ensemble']
    assert list(model.predict_all(*batch())) == [*names, 'ensemble', 'fused', *enhanced]


def test_the_students_own_losses_are_those_they_compute_alone():
    model = online()
    losses = model.loss(*batch())
    for i, own in enumerate(model.students):
        assert torch.equal(losses[f'student{i}.loss'], own(*batch(), mode='loss')['loss'])


def test_every_student_sees_its_own_view():
    model = online()
    (first, samples), (second, _) = batch(0), batch(1)
    losses = model.loss([first, second], samples)
    torch.testing.assert_close(losses['student0.loss'], model.loss(first, samples)['student0.loss'])
    torch.testing.assert_close(
        losses['student1.loss'], model.loss(second, samples)['student1.loss']
    )
    assert losses['student1.loss'] != model.loss(first, samples)['student1.loss']
    fast = online()
    fast.data_preprocessor = InMemoryDataPreprocessor(num_views=3)
    with pytest.raises(ValueError, match=r'set data_preprocessor.num_views to 2$'):
        fast.loss([first, second, first], samples)
    with pytest.raises(ValueError, match=r'3 views .* 2 students: set num_views of MultiView'):
        model.loss([first] * 3, samples)


def test_mixed_labels_reach_the_students_and_the_fused_classifier():
    soft = dict(type='CrossEntropyLoss', use_soft=True)
    mixed = student()
    mixed['head']['loss'] = soft
    model = online(students=[mixed, mixed], head=dict(loss=soft))
    inputs, samples = batch()
    one_hot = [DataSample().set_gt_score(torch.eye(10)[s.gt_label[0]]) for s in samples]
    expected = online().loss(inputs, samples)
    for name, value in model.loss(inputs, one_hot).items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_students_differ_and_the_first_is_the_network_alone_at_that_seed():
    model = online(3, seed=5)
    torch.manual_seed(5)
    alone = build(student())
    alone.init_weights()
    assert equal(model.students[0], alone)
    assert not any(equal(model.students[0], peer) for peer in model.students[1:])
    assert equal(model, online(3, seed=5))


def test_students_start_the_same_whatever_the_method():
    plain = online(multi_scale=None, attention=None, fusion=None)
    for one, other in zip(online().students, plain.students, strict=True):
        assert equal(one, other)


def test_later_initialisation_honours_init_cfg_and_keeps_the_students():
    init_cfg = dict(type='Constant', layer='Linear', val=0.25)
    model = online(head=dict(init_cfg=init_cfg))
    before = copy.deepcopy(model)
    model.init_weights()  # as the runner does
    assert (model.distiller.fused_classifier.head.fc.weight == 0.25).all()
    for one, other in zip(model.students, before.students, strict=True):
        assert equal(one, other)
    constant = student()
    constant['head']['init_cfg'] = init_cfg
    assert (online(students=[student(), constant]).peers[0].head.fc.weight == 0.25).all()


def test_built_students_keep_their_weights_when_the_training_starts(tmp_path):
    built = [build(student()) for _ in range(4)]
    path = tmp_path / 'plain.pth'
    torch.save(built[0].state_dict(), path)
    distiller = dict(type='DMLDistiller')
    before = copy.deepcopy(built[1])
    as_they_are = OnlineDistill(built[1:3], distiller)
    loaded = OnlineDistill([copy.deepcopy(built[3]), student()], distiller, pretrained=str(path))
    same = OnlineDistill(copy.deepcopy(built[1:3]), distiller, same_initial_weights=True)
    for model in (as_they_are, loaded, same):
        model.init_weights()  # as the runner does
    assert equal(as_they_are.students[0], before)
    assert all(equal(each, built[0]) for each in loaded.students)
    assert equal(*same.students)
    with torch.no_grad():
        same.peers[0].head.fc.weight.fill_(0.5)  # as a training does
    trained = copy.deepcopy(same.peers[0])
    same.init_weights()
    assert equal(same.peers[0], trained)


def test_built_students_that_wait_for_their_initialisation_are_named(log):
    waiting = student()
    waiting['backbone']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=1.0)
    built = [build(waiting), build(waiting)]
    built[1].init_weights()
    OnlineDistill(built, dict(type='DMLDistiller'))
    (warning,) = (line for line in log if 'keeps the weights' in line)
    assert warning.startswith('student0 keeps') and 'init_cfg of backbone' in warning


def test_without_distillation_students_train_bit_for_bit_as_they_do_alone():
    off = dict(type='EnsembleKLDivergence', loss_weight=0.0)
    model = online(
        detach_features=True,
        loss_ensemble=off,
        **{name: dict(loss_weight=0.0) for name in ('loss_transfer', 'loss_self', 'loss_guide')},
    )
    alone = [build(student()) for _ in range(2)]
    for network, own in zip(alone, model.students, strict=True):
        network.load_state_dict(own.state_dict())

    def train(network):
        sgd = torch.optim.SGD(
            network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        for step in range(4):
            losses = network(*batch(seed=step), mode='loss')
            sgd.zero_grad()
            total(losses).backward()
            sgd.step()

    start = copy.deepcopy(alone)
    for network in (model, *alone):
        train(network)
    for first, network, own in zip(start, alone, model.students, strict=True):
        assert equal(network, own) and not equal(network, first)


def test_different_networks_train_together_without_an_adapter_in_the_config(log):
    model = online(students=[student(20), RESNET18], in_channels=[64, 512])
    losses = model.loss(*batch(size=32))
    assert isinstance(model.distiller.adapters[1], MapAdapter)
    said = '\n'.join(log)
    assert 'student1 goes from 512 to 64 channels through a MapAdapter' in said
    assert '[(8, 8), (4, 4)] pixels are average-pooled to (4, 4)' in said
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    before = copy.deepcopy(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for one, other in zip(before.students, model.students, strict=True):
        assert not equal(one, other)


def test_stopped_distillation_is_zero_and_still_reaches_every_weight():
    model = online()
    model.distillation_stopped = True
    losses = model.loss(*batch())
    assert [losses[k].item() for k in losses if k.startswith('distill')] == [0] * 6
    total(losses).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(p.grad.any() for p in model.distiller.parameters())
    gradients = [p.grad for p in model.students[0].parameters()]
    alone = copy.deepcopy(model.students[0])
    alone.zero_grad()
    alone(*batch(), mode='loss')['loss'].backward()
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, alone.parameters(), strict=True))


def test_mmrazors_hook_stops_the_distillation_in_a_real_run(tmp_path):
    pipeline = [dict(type='mmpretrain.Resize', scale=16), dict(type='mmpretrain.PackInputs')]
    runner = Runner(
        model=OnlineDistill(
            [student()] * 2,
            dict(MFEF, ramp_up_epochs=2),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        ),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=10,
            num_workers=0,
            dataset=dict(type='mmpretrain.Digits', train_per_class=1, pipeline=pipeline),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='mmrazor.StopDistillHook', stop_epoch=3)],
        experiment_name=tmp_path.name,
    )
    runner.train()

    def history(name):
        return runner.message_hub.get_scalar(f'train/{name}').data[0].tolist()

    *distilled, stopped = history('distill.loss_transfer')
    assert all(value > 0 for value in distilled) and stopped == 0
    # the ramp-up went by the runner's epochs: exp(-5), exp(-5/4), 1
    assert distilled[2] > 3 * distilled[1] > 9 * distilled[0]
    assert history('distill.loss_fused')[-1] == 0 and min(history('student1.loss')) > 0


def test_deployed_student_is_the_plain_network_bit_for_bit():
    model = online(students=[student(depth=32, classes=100)] * 2, num_classes=100)
    total(model.loss(*batch())).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    model.eval()
    inputs, _ = batch(seed=1)
    expected = model(inputs, mode='tensor')
    weights = {
        key.removeprefix('architecture.'): value
        for key, value in model.state_dict().items()
        if key.startswith('architecture.')
    }
    plain = build(student(depth=32, classes=100))
    assert list(weights) == list(plain.state_dict()) == list(model.architecture.state_dict())
    plain.load_state_dict(weights)
    assert sum(p.numel() for p in plain.parameters()) == 472_756
    assert torch.equal(plain.eval()(inputs, mode='tensor'), expected)
    kept = model.architecture
    del model
    assert torch.equal(kept(inputs, mode='tensor'), expected)


def test_weights_of_another_architecture_are_refused():
    attended = dict(attention=dict(type='DualAttentionConnector'))
    model, other = online(**attended), online()
    online(seed=1, **attended).load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match='unexpected: distiller.attention.0.gates.0.mlp.0.bias'):
        other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match='missing: distiller.attention.0.gates.0.mlp.0.bias'):
        model.load_state_dict(other.state_dict())
    narrow = online(multi_scale=dict(scales=2), **attended)
    with pytest.raises(ValueError, match=r'convs.0.conv.weight \(16, 16, 3, 3\) instead of \(32, '):
        narrow.load_state_dict(model.state_dict())


def test_predictions_are_those_of_each_student_their_mean_and_the_fused_classifier():
    model = online(3).eval()
    inputs, samples = batch()
    predictions = model.predict_all(inputs, samples)
    logits = [own(inputs, mode='tensor') for own in model.students]
    expected = {f'student{i}': z for i, z in enumerate(logits)}
    expected['ensemble'] = sum(logits) / 3
    maps = [own.backbone(inputs)[-1] for own in model.students]
    expected['fused'] = model.distiller.fused_logits(dict(logits=logits, feature=maps))
    for name, z in expected.items():
        scores = torch.stack([sample.pred_score for sample in predictions[name]])
        assert torch.allclose(scores, z.softmax(dim=1), atol=1e-6)
        assert not scores.requires_grad
        for sample, annotated, row in zip(predictions[name], samples, z, strict=True):
            assert sample.pred_label.item() == row.argmax().item()
            assert torch.equal(sample.gt_label, annotated.gt_label)
    assert not any('pred_score' in sample for sample in samples)
    assert len(model.predict_all(inputs)['fused']) == 4


def test_predict_mode_answers_for_the_first_student():
    model = online().eval()
    inputs, _ = batch()
    answer, own = (network(inputs, mode='predict') for network in (model, model.students[0]))
    for mine, theirs in zip(answer, own, strict=True):
        assert torch.equal(mine.pred_score, theirs.pred_score)


def test_predicting_changes_nothing_and_training_goes_on():
    model, untouched = online(), online()
    modules = list(model.modules())
    model.eval()
    assert not any(module.training for module in modules)
    model.predict_all(*batch(seed=1))
    assert not any(module.training for module in modules)
    assert equal(model, untouched)
    model.train()
    assert all(module.training for module in modules)
    model.predict_all(*batch(seed=1))
    assert all(module.training for module in modules)
    loss = total(model.loss(*batch()))
    assert loss.requires_grad
    assert torch.equal(loss, total(untouched.loss(*batch())))


def test_a_step_leaves_no_graph_behind_but_that_of_its_losses():
    def graph():
        gc.collect()
        tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor]
        return sum(x.grad_fn is not None for x in tensors)

    model = online()
    before = graph()
    losses = model.loss(*batch())
    assert graph() > before
    del losses
    assert graph() == before


class Twice(nn.Module):
    """A neck for a head with two classifiers."""

    def forward(self, maps):
        pooled = maps[-1].mean(dim=(2, 3))
        return ([pooled, 2 * pooled],)


@pytest.mark.parametrize(
    'method, term', [('DML', 'loss_mutual'), ('OKDPH', 'loss_transfer'), ('PCL', 'loss_peers')]
)
def test_students_with_two_classifiers_teach_with_their_sum(method, term):
    def conformer_like():
        built = build(student())
        built.neck = Twice()
        built.head = build(
            dict(type='mmpretrain.ConformerHead', num_classes=10, in_channels=[64] * 2)
        )
        return built

    options = dict(in_channels=64, num_classes=10, ramp_up_epochs=0) if method == 'PCL' else {}
    distiller = dict(type=f'{method}Distiller', **options)
    model = OnlineDistill([conformer_like(), conformer_like()], distiller)
    model.loss(*batch())[f'distill.{term}'].backward()
    for own in model.students:
        assert all(
            part.weight.grad.any() for part in (own.head.conv_cls_head, own.head.trans_cls_head)
        )
    outputs = own(batch()[0], mode='tensor')
    torch.testing.assert_close(network_logits(own, outputs), outputs[0] + outputs[1])


@pytest.mark.parametrize(
    'method, terms',
    [
        ('ONE', ['loss_transfer']),
        ('KDCL', ['loss_transfer']),
        ('OKDPH', ['loss_transfer']),
        ('MCL', ['loss_soft_vcl', 'loss_soft_icl']),
    ],
)
def test_a_teacher_that_is_not_detached_learns(method, terms):
    grads = []
    for detach in (True, False):
        torch.manual_seed(0)
        options = {term: dict(teacher_detach=detach) for term in terms}
        distiller = dict(type=f'{method}Distiller', **options)
        if method == 'ONE':
            distiller['ramp_up_epochs'] = 0
        model = OnlineDistill([student(), student()], distiller)
        total(model.loss(*batch())).backward()
        weights = model.students[0].parameters()
        grads.append(torch.cat([p.grad.flatten() for p in weights]))
    assert not torch.allclose(*grads, rtol=0.01)


def test_branches_with_the_same_weights_are_announced(log):
    for same in (False, True):
        model = OnlineDistill(
            [student(), student()], MFEF, shared_stages=2, same_initial_weights=same
        )
        log.clear()
        model.loss(*batch())
        assert any('student0 and student1 have the same weights' in line for line in log) == same


def test_no_activation_of_a_student_works_in_place():
    built = [build(student()) for _ in range(2)]

    def in_place():
        return [m for own in built for m in own.modules() if getattr(m, 'inplace', False)]

    assert in_place()
    online(students=built)
    assert not in_place()


def test_losses_under_autocast_are_float32():
    model = online(loss_mutual=dict(), loss_map=dict(), ramp_up_epochs=0)
    with torch.autocast('cpu', torch.bfloat16):
        assert model(batch()[0], mode='tensor').dtype is torch.bfloat16
        losses = model.loss(*batch())
    assert {name: v.dtype for name, v in losses.items()} == dict.fromkeys(losses, torch.float32)
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    'method, maps', [('MFEF', torch.bfloat16), ('FFL', torch.bfloat16), ('ONE', torch.float32)]
)
def test_the_precision_of_records(method, maps):
    model = OnlineDistill([student(), student()], dict(type=f'{method}Distiller'))

    def recorded():
        model.distiller.prepare_recorders(model.students)
        for own, recorders in zip(model.students, model.distiller.recorders, strict=True):
            with recorders:
                own(batch()[0], mode='tensor')
        records = model.distiller.collect_records()
        return {name: x.dtype for name, xs in records.items() for x in xs}

    with torch.autocast('cpu', torch.bfloat16):
        assert recorded() == dict(logits=torch.float32, feature=maps)
    for own in model.students:  # its own doing, in a training of full precision
        own.backbone.register_forward_hook(
            lambda module, args, found: tuple(x.bfloat16() for x in found)
        )
        own.neck.register_forward_pre_hook(
            lambda module, args: (tuple(x.float() for x in args[0]),)
        )
    assert recorded() == dict(logits=torch.float32, feature=torch.float32)


@pytest.mark.parametrize('method', ['MFEF', 'FFL'])
def test_maps_that_stay_in_bf16_teach_as_those_of_full_precision(method):
    grads, losses = [], []
    for half in (True, False):
        torch.manual_seed(0)
        model = online(type=f'{method}Distiller', ramp_up_epochs=0)
        assert model.distiller.half_precision_maps
        model.distiller.half_precision_maps = half
        with torch.autocast('cpu', torch.bfloat16):
            terms = model.loss(*batch())
        total(terms).backward()
        losses.append({name: v.item() for name, v in terms.items()})
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert torch.cosine_similarity(*grads, dim=0) > 0.999


def test_it_is_built_from_a_config_and_from_built_parts():
    cfg = dict(_scope_='mmrazor', type='OnlineDistill', students=[student()] * 2, distiller=MFEF)
    assert isinstance(MODELS.build(cfg), OnlineDistill)
    parts = [build(student()), build(student())]
    distiller = MFEFDistiller(64, 10)
    model = OnlineDistill(parts, distiller)
    assert model.students == parts and model.architecture is parts[0]
    assert model.distiller is distiller


@pytest.mark.parametrize(
    'students, distiller, error, message',
    [
        ([], MFEF, ValueError, 'students: found 0, expected a list of at least 2'),
        ([student()], MFEF, ValueError, 'students: found 1'),
        (3, MFEF, ValueError, 'students: found int'),
        (
            [student(), student(classes=7)],
            MFEF,
            ValueError,
            r'different numbers of classes \(student0: 10, student1: 7, distiller: 10\)',
        ),
        ([student(), nn.Linear(1, 1)], MFEF, TypeError, 'student1: found Linear, expected an mmen'),
        (
            [dict(type='mmpretrain.CifarResNet', depth=8), student()],
            MFEF,
            TypeError,
            'student0: found CifarResNet, expected an mmengine BaseModel',
        ),
        ([student(), None], MFEF, TypeError, 'student1: found NoneType'),
        ([student()] * 2, nn.Identity(), TypeError, 'distiller: found Identity'),
        ([student()] * 2, None, TypeError, 'distiller: found NoneType'),
        (
            [student()] * 2,
            dict(MFEF, num_students=3),
            ValueError,
            'the distiller was made for 3 students, but there are 2',
        ),
        (
            [student()] * 3,
            dict(MFEF, in_channels=[64, 64]),
            ValueError,
            r'in_channels=\[64, 64\] names 2 students, but there are 3',
        ),
        (
            [student()] * 2,
            dict(MFEF, attenton=None),
            TypeError,
            "MFEFDistiller has no argument 'attenton'; nearest: attention",
        ),
        (
            [student()] * 2,
            dict(MFEF, recorders=dict(feature=dict(type='ModuleOutputs', source='bakbone'))),
            KeyError,
            "recorder 'feature': student0 has no module 'bakbone'; nearest: backbone",
        ),
        (
            [student()] * 2,
            dict(MFEF, recorders=dict(feature=dict(type='ModuleOuputs', source='backbone'))),
            KeyError,
            "recorder 'feature': type='ModuleOuputs', expected the name of a recorder",
        ),
    ],
)
def test_mistakes_are_named(students, distiller, error, message):
    with pytest.raises(error, match=message):
        OnlineDistill(students, distiller)


def test_a_built_distiller_for_another_number_of_students():
    with pytest.raises(ValueError, match='made for 3 students, but there are 2'):
        OnlineDistill([student()] * 2, MFEFDistiller(64, 10, num_students=3))


def test_a_map_of_other_channels_is_named_at_the_first_step():
    with pytest.raises(ValueError, match=r'feature of student0 is \(4, 64, 4, 4\).*stands for'):
        online(in_channels=32).loss(*batch())


def test_in_channels_of_other_networks_are_checked_as_well():
    with pytest.raises(ValueError, match='feature of student1 is .*stands for'):
        online(students=[student(), RESNET18]).loss(*batch())


WRN = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='WideResNet', depth=10),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
TRUNK = {
    'CifarResNet': [f'backbone.{name}' for name in ('conv1', 'bn1', 'relu', 'layer1', 'layer2')],
    'WideResNet': ['backbone.conv1', 'backbone.stages.0', 'backbone.stages.1'],
}


def branches(cfg=None, number=2, distiller=MFEF, **options):
    """Students that share their first two stages."""
    torch.manual_seed(0)
    return OnlineDistill([cfg or student()] * number, distiller, shared_stages=2, **options)


def untied(model, cfg):
    """The same students as networks of their own, each with its copy of the trunk."""
    other = OnlineDistill([cfg] * len(model.students), MFEF)
    for i, network in enumerate(other.students):
        network.load_state_dict(model.student_weights(i))
    other.distiller.load_state_dict(model.distiller.state_dict())
    return other


def in_trunk(model, key):
    return key.startswith(tuple(f'{name}.' for name in model.trunk.names))


@pytest.mark.parametrize('cfg', [student(), WRN], ids=TRUNK)
def test_a_shared_trunk_is_that_of_networks_with_tied_weights(cfg):
    model = branches(cfg, number=3)
    assert model.trunk.names == TRUNK[cfg['backbone']['type']]
    apart = untied(model, cfg)
    inputs, samples = batch()
    for name, logits in apart.eval().predict_logits(inputs).items():
        assert torch.equal(model.eval().predict_logits(inputs)[name], logits)

    model, apart, inputs = model.double().train(), apart.double().train(), inputs.double()
    losses, expected = model.loss(inputs, samples), apart.loss(inputs, samples)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=0, atol=1e-10)
    total(losses).backward()
    total(expected).backward()
    gradients = [{k: p.grad for k, p in s.named_parameters()} for s in apart.students]
    for i, network in enumerate(model.students):
        for key, p in network.named_parameters():
            tied = i == 0 and in_trunk(model, key)
            own = sum(g[key] for g in gradients) if tied else gradients[i][key]
            torch.testing.assert_close(p.grad, own, rtol=0, atol=1e-10)


def test_the_mean_gradient_reaches_only_the_trunk():
    plain, mean = branches(number=3).double(), branches(number=3, mean_trunk_gradient=True).double()
    inputs, samples = batch()
    for model in (plain, mean):
        total(model.loss(inputs.double(), samples)).backward()
    with torch.no_grad():
        assert total(mean.loss(inputs.double(), samples)) > 0
    for (key, p), (_, q) in zip(plain.named_parameters(), mean.named_parameters(), strict=True):
        share = 3 if in_trunk(plain, key.removeprefix('architecture.')) else 1
        torch.testing.assert_close(q.grad * share, p.grad, rtol=0, atol=1e-10)


def test_the_trunk_runs_once_a_step_and_belongs_to_the_model_once():
    model, calls = branches(number=4), []
    alone = build(student())
    hooked = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for module in hooked:
        module.register_forward_hook(lambda m, *_: calls.append(m))
    total(model.loss(*batch())).backward()
    trunk = [
        m for name in model.trunk.names for m in model.architecture.get_submodule(name).modules()
    ]
    assert all(sum(m is call for call in calls) == (m in hooked) for m in trunk)
    assert model.architecture.backbone.bn1.num_batches_tracked == 1
    assert all(p.grad is not None for p in model.parameters())

    size = sum(p.numel() for p in alone.parameters())
    shared = sum(p.numel() for k, p in alone.named_parameters() if in_trunk(model, k))
    sizes = [sum(p.numel() for p in network.parameters()) for network in model.students]
    assert sizes == [size] + [size - shared] * 3
    params = [p for group in optimizer(model).param_groups for p in group['params']]
    assert len(params) == len(set(params)) == len(list(model.parameters()))
    model.predict_all(*batch())
    assert not model.architecture.get_submodule(model.trunk.names[-1])._forward_hooks


def optimizer(model):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4),
        paramwise_cfg=dict(custom_keys=dict(distiller=dict(decay_mult=0.02))),
    )
    return build_optim_wrapper(model, cfg).optimizer


def test_students_of_a_trunk_start_as_without_it_and_are_loaded_strictly():
    model, apart = branches(), online()
    assert equal(model.architecture, apart.architecture)
    apart = apart.peers[0].state_dict()
    for key, value in model.peers[0].state_dict().items():
        assert torch.equal(value, apart[key])
    assert list(model.student_weights(1)) == list(apart)

    again = branches()
    total(model.loss(*batch())).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    again.load_state_dict(model.state_dict())
    assert equal(again, model)
    with pytest.raises(ValueError, match='missing: peers.0.backbone.bn1.bias'):
        online().load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match='unexpected: peers.0.backbone.bn1.bias'):
        model.load_state_dict(online().state_dict())


def test_a_copy_has_a_trunk_of_its_own():
    model = branches()
    model.loss(*batch())
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied.architecture.backbone.conv1.weight)
    found, expected = (m.eval().predict_logits(batch()[0]) for m in (copied, model))
    for name in ('student0', 'student1'):
        assert not torch.equal(found[name], expected[name])


def test_ones_gate_reads_the_trunk():
    recorders = dict(feature=dict(type='ModuleOutputs', source='backbone.layer2'))
    one = dict(type='ONEDistiller', in_channels=32, recorders=recorders)
    model = branches(number=3, distiller=one)
    inputs, samples = batch()
    model.eval()
    x = model.architecture.backbone
    low = x.layer2(x.layer1(torch.relu(x.bn1(x.conv1(inputs)))))
    logits = list(model.predict_logits(inputs).values())[:3]
    gate = model.distiller.gate(torch.cat([low.mean(dim=(2, 3))] * 3, dim=1)).softmax(dim=1)
    expected = sum(g[:, None] * z for g, z in zip(gate.unbind(dim=1), logits, strict=True))
    assert torch.allclose(model.predict_logits(inputs)['fused'], expected, atol=1e-6)
    model.train()
    total(model.loss(inputs, samples)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    'recorder',
    [
        dict(type='ModuleOutputs', source='backbone.layer1'),
        dict(type='ModuleOutputs', source='backbone.layer2.0'),
        dict(type='ModuleOutputs', source='backbone.conv1'),
        dict(type='ModuleInputs', source='backbone.layer2'),
        dict(type='ModuleInputs', source='backbone'),  # no image, but the trunk's map
    ],
)
def test_a_recorder_cannot_look_inside_the_trunk(recorder):
    with pytest.raises(ValueError, match=rf"'low': '{recorder['source']}' of student1 is inside"):
        branches(distiller=dict(MFEF, recorders=dict(low=recorder)))


def test_views_and_different_networks_have_no_trunk():
    with pytest.raises(ValueError, match='have no trunk; set shared_stages'):
        OnlineDistill([student()] * 2, MFEF, mean_trunk_gradient=True)
    inputs, samples = batch()
    with pytest.raises(ValueError, match='make one view, or drop shared_stages'):
        branches().loss([inputs, inputs], samples)
    with pytest.raises(ValueError, match='student1 are not built like those of student0'):
        OnlineDistill([student(8), student(14)], MFEF, shared_stages=2)


def test_layer_wise_learning_rates_are_those_of_each_network_alone(monkeypatch):
    """With mmpretrain's own constructor; the distiller learns at the full rate."""
    vit = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='VisionTransformer', arch='deit-t', img_size=16, patch_size=8),
        head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192),
    )
    recipe = dict(
        constructor='LearningRateDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(layer_decay_rate=0.5, custom_keys={'.cls_token': dict(decay_mult=0.0)}),
    )

    def settings(model):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            groups = build_optim_wrapper(model, copy.deepcopy(recipe)).optimizer.param_groups
        return {group['param_name']: (group['lr'], group['weight_decay']) for group in groups}

    convnext = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='ConvNeXt', arch='atto', gap_before_final_norm=False),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=320),
    )
    model = OnlineDistill([vit, convnext], dict(type='DMLDistiller'))
    found = settings(model)
    for student, prefix in zip(model.students, ('architecture.', 'peers.0.'), strict=True):
        own = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        assert own == settings(student)
    assert found['architecture.backbone.cls_token'] == (0.5**13, 0.0)
    mfef = dict(type='MFEFDistiller', in_channels=320, num_classes=10)
    found = settings(OnlineDistill([convnext] * 2, mfef))
    assert {v[0] for k, v in found.items() if k.startswith('distiller.')} == {1.0}

    small = online()
    with pytest.raises(ValueError, match='CifarResNet of student0 does not know'):
        settings(small)
    monkeypatch.delattr(ImageClassifier, 'get_layer_depth')  # as TimmClassifier, which has none
    with pytest.raises(ValueError, match='CifarResNet of student0 does not know'):
        settings(small)


def test_a_head_that_does_not_fit_its_backbone_is_named():
    model = online()
    model.peers[0].head.fc = torch.nn.Linear(32, 10)
    with pytest.raises(ValueError, match='student1: .*cannot be multiplied.*in_channels of its'):
        model.loss(*batch())


def test_terms_that_are_not_trained_are_told(log, monkeypatch):
    model = online()
    monkeypatch.setattr(
        model.distiller, 'compute_distill_losses', lambda records, labels: dict(mutual=labels.sum())
    )
    for _ in range(2):
        assert 'distill.mutual' in model.loss(*batch())
    assert sum('its terms mutual are not trained' in line for line in log) == 1
