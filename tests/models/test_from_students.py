import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import LinearClsHead
from mmpretrain.models.heads import MultiTaskHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mfef_mmrazor.models import DMLDistiller, FFLDistiller, MutualKLDivergence, OnlineDistill
from mfef_mmrazor.models.from_students import arguments_of_distiller
from mfef_mmrazor.models.student_facts import number_of_classes

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
SMOOTH = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
MIXUP, CUTMIX = (dict(augments=dict(type=kind, alpha=1.0)) for kind in ('Mixup', 'CutMix'))
PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor')


def student(recipe=None, neck='GlobalAveragePooling', **head):
    cfg = copy.deepcopy(STUDENT)
    cfg['head'].update(head)
    cfg['neck'] = dict(type=neck)
    return dict(cfg, train_cfg=copy.deepcopy(recipe))


def online(students, distiller='MFEFDistiller', preprocessor=None, **options):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return OnlineDistill(
            students, dict(type=distiller, **options), data_preprocessor=preprocessor
        )


def batch():
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)), samples


def same_losses(one, other):
    one, other = one.loss(*batch()), other.loss(*batch())
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('method', ['FFLDistiller', 'MFEFDistiller', 'ONEDistiller'])
def test_sizes_need_not_be_given(method):
    sizes = dict(in_channels=64, num_classes=10)
    if method == 'ONEDistiller':
        del sizes['num_classes']
    given, left_out = (online([student()] * 2, method, **x) for x in (sizes, {}))
    assert same_losses(given, left_out)


def test_a_methods_own_channels():
    assert online([student()] * 3, 'OKDDipDistiller').distiller.query.in_features == 64
    other = copy.deepcopy(STUDENT)
    other['backbone'] = dict(type='WideResNet', depth=10)
    other['head']['in_channels'] = 64
    wide = copy.deepcopy(other)
    wide['backbone']['widen_factor'] = 2
    wide['head']['in_channels'] = 128
    assert online([wide, other, other], 'OKDDipDistiller').distiller.query.in_features == 64
    with pytest.raises(ValueError, match=r'found peers whose maps have \[64, 128\] channels'):
        online([other, other, wide], 'OKDDipDistiller')
    with pytest.raises(ValueError, match='FFSDDistiller needs the channels of the stages'):
        online([student()] * 3, 'FFSDDistiller')


def test_channels_that_no_head_tells():
    with pytest.raises(ValueError, match=r'FFLDistiller needs in_channels, .* in_channels=\.\.\.'):
        online(
            [student()] * 2,
            'FFLDistiller',
            recorders=dict(feature=dict(type='ModuleOutputs', source='backbone.layer2')),
        )
    with pytest.raises(TypeError, match="DMLDistiller has no argument 'in_channels'"):
        online([student()] * 2, 'DMLDistiller', in_channels=64)


def test_plain_students_train_as_with_the_plain_loss_given():
    own = dict(head=dict(type='mmpretrain.LinearClsHead', loss=dict(type='CrossEntropyLoss')))
    assert same_losses(online([student()] * 2), online([student()] * 2, **own))
    assert same_losses(
        online([student()] * 2, 'ONEDistiller'),
        online([student()] * 2, 'ONEDistiller', loss_ce=dict(type='mmpretrain.CrossEntropyLoss')),
    )


def test_the_losses_of_the_students_are_taken_over_unless_the_distiller_has_its_own(log):
    model = online([student(loss=SMOOTH)] * 2, enhanced_head={})
    own = model.distiller.fused_classifier.head.loss_module
    assert own.label_smooth_val == 0.1
    assert own is not model.architecture.head.loss_module
    assert [head.loss_module.label_smooth_val for head in model.distiller.enhanced_heads] == [
        0.1
    ] * 2
    assert not any('differ' in line for line in log)
    plain = online([student(loss=SMOOTH)] * 2, head=dict(loss=dict(type='CrossEntropyLoss')))
    assert type(plain.distiller.fused_classifier.head.loss_module).__name__ == 'CrossEntropyLoss'
    online([student(loss=SMOOTH), student()])
    found = 'differ (LabelSmoothLoss, CrossEntropyLoss); its own classifiers take'
    assert any(found in line for line in log)


def test_a_subclass_with_further_arguments_is_told_as_much():
    class Mine(FFLDistiller):
        def __init__(self, extra=1.0, **kwargs):
            super().__init__(**kwargs)

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        mine = OnlineDistill([student(loss=SMOOTH)] * 2, dict(type=Mine)).distiller
    assert mine.num_classes == 10
    assert mine.fused_classifier.head.loss_module.label_smooth_val == 0.1


def test_a_loss_per_label_weighs_as_much_in_the_fused_classifier_as_in_the_heads():
    several = dict(type='MultiLabelLinearClsHead')
    model = online([student(**several)] * 2)
    inputs, samples = batch()
    _, records = model._run_students(inputs, samples, mode='tensor')
    head = model.architecture.head
    fused = model.distiller.fused_logits(records)
    expected = head._get_loss(fused, samples)['loss']
    found = model.loss(inputs, samples)['distill.loss_fused'].item()
    assert found == pytest.approx(expected.item())


def test_batches_are_mixed_as_the_students_agree(log):
    model = online([student(MIXUP)] * 2, preprocessor=PREPROCESSOR)
    (augment,) = model.data_preprocessor.batch_augments.augments
    assert type(augment).__name__ == 'Mixup'
    assert model.data_preprocessor.to_onehot and model.data_preprocessor.num_classes == 10
    assert any("mixed as the students' train_cfg says: Mixup" in line for line in log)
    assert online([student()] * 2, preprocessor=PREPROCESSOR).data_preprocessor.num_classes == 10


@pytest.mark.parametrize('recipes', [(MIXUP, CUTMIX), (MIXUP, None), (None, MIXUP)])
@pytest.mark.parametrize('preprocessor', [None, PREPROCESSOR])
def test_students_that_want_different_batches(recipes, preprocessor):
    with pytest.raises(ValueError, match=r'students differ \(student0: (Mixup|none)'):
        online([student(recipe) for recipe in recipes], preprocessor=preprocessor)


def test_augments_of_the_common_data_preprocessor_decide(log):
    chosen = dict(PREPROCESSOR, batch_augments=None)
    model = online([student(MIXUP), student()], preprocessor=chosen)
    assert model.data_preprocessor.batch_augments is None
    counts = "counts, not the students' own (student0: Mixup, student1: none)"
    assert any(counts in line for line in log)


def test_a_data_preprocessor_that_cannot_mix():
    views = dict(type='mmpretrain.SelfSupDataPreprocessor')
    with pytest.raises(ValueError, match='Mixup.* cannot be done by a SelfSupDataPreprocessor'):
        online([student(MIXUP)] * 2, preprocessor=views)


def test_one_student_of_several_labels_and_one_of_one():
    with pytest.raises(ValueError, match='student1 has a multi-label head, student0 does not'):
        online([student(), student(type='MultiLabelLinearClsHead')], 'DMLDistiller')


def test_losses_between_softmaxes_become_losses_per_label(log):
    students = [student(type='MultiLabelLinearClsHead')] * 2
    model = online(students, loss_mutual=dict(type='MutualKLDivergence'), tau=2.0)
    assert any('loss_mutual compare sigmoids label by label' in line for line in log)
    logits = [torch.randn(4, 10) for _ in range(2)]
    p, q = ((z / 2).sigmoid() for z in logits)
    bernoulli = torch.distributions.Bernoulli
    expected = 4 * torch.distributions.kl_divergence(bernoulli(q), bernoulli(p)).sum() / 4
    assert model.distiller.loss_transfer(*logits).item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="loss_mutual.divergence.*type='BernoulliKLDivergence'"):
        online(students, 'DMLDistiller', loss_mutual=dict(type='StandardizedKLDivergence'))


@pytest.mark.parametrize('kind', ['MutualKLDivergence', MutualKLDivergence])
def test_a_loss_per_label_of_ones_own_stays_as_it_is(kind):
    own = dict(type='BernoulliKLDivergence', tau=4.0, loss_weight=7.0)
    several = [student(type='MultiLabelLinearClsHead')] * 2
    model = online(several, 'DMLDistiller', loss_mutual=dict(type=kind, divergence=own))
    divergence = model.distiller.loss_mutual.divergence
    assert (divergence.tau, divergence.loss_weight) == (4.0, 7.0)


def test_a_margin_in_the_logits_is_warned_of(log):
    online([student(type='ArcFaceClsHead'), student()], 'DMLDistiller')
    (warning,) = (line for line in log if 'margin' in line)
    assert warning.startswith('student0: the logits of an ArcFaceClsHead')


def test_one_class_teaches_nothing():
    with pytest.raises(ValueError, match='num_classes=1, expected two or more'):
        online([student(num_classes=1)] * 2, 'DMLDistiller')
    model = online([student(type='MultiLabelLinearClsHead', num_classes=1)] * 2, 'DMLDistiller')
    assert model.multi_label == 1


@MODELS.register_module()
class TwiceTheLogitsHead(LinearClsHead):
    """A user's own head, whose prediction is not a softmax of its logits."""

    def predict(self, feats, data_samples=None):
        return self._get_predictions(2 * self(feats), data_samples)


@pytest.mark.parametrize('shared_stages', [0, 1])
def test_a_users_own_head_predicts_itself(shared_stages):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = OnlineDistill(
            [student(type='TwiceTheLogitsHead')] * 2,
            dict(type='DMLDistiller'),
            shared_stages=shared_stages,
        ).eval()
    inputs, samples = batch()
    logits = model.predict_logits(inputs, samples)
    for name, predictions in model.predict_all(inputs, samples).items():
        factor = 1 if name == 'ensemble' else 2
        expected = (factor * logits[name]).softmax(dim=1)
        assert torch.equal(torch.stack([p.pred_score for p in predictions]), expected)
    assert not any('pred_score' in sample for sample in samples)


def test_the_loss_of_all_heads_can_be_switched():
    model = online([student()] * 2)
    model.head.loss_module = MODELS.build(dict(SMOOTH, _scope_='mmpretrain'))
    heads = [x.head for x in model.students] + [model.distiller.fused_classifier.head]
    assert [head.loss_module.label_smooth_val for head in heads] == [0.1] * 3
    own = online([student()] * 2, head=dict(loss=dict(type='CrossEntropyLoss', loss_weight=0.5)))
    own.head.loss_module = MODELS.build(dict(SMOOTH, _scope_='mmpretrain'))
    assert own.distiller.fused_classifier.head.loss_module.loss_weight == 0.5


def test_a_normalisation_of_ones_own_that_is_ignored_is_told(log):
    own = dict(student(), data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3))
    common = dict(PREPROCESSOR, mean=[125.0] * 3, std=[60.0] * 3)
    online([student(), own], preprocessor=common)
    told = [line for line in log if 'normalisation' in line]
    assert len(told) == 1 and told[0].startswith('student1: its own normalisation (mean [0.0, 0.0')
    log.clear()
    online([own, own])  # of the first student, for all
    assert not any('normalisation' in line for line in log)


def test_views_cannot_be_mixed():
    views = dict(type='mmpretrain.InMemoryDataPreprocessor', num_views=2)
    with pytest.raises(ValueError, match=r'\(Mixup\) cannot mix the num_views=2'):
        online([student(MIXUP)] * 2, preprocessor=views)


def test_a_data_preprocessor_for_other_classes(log):
    """As a config of mmpretrain's brings one, whose head alone was changed."""
    cfg = dict(student(MIXUP), data_preprocessor=dict(num_classes=1000))
    model = online([cfg, cfg])
    assert any(line.startswith('data_preprocessor: num_classes=10, as the heads') for line in log)
    images, samples = batch()
    data = model.data_preprocessor(dict(inputs=list(images), data_samples=samples), True)
    assert model.loss(**data)['student0.loss'].isfinite()


def test_a_multi_label_head_that_keeps_no_number_of_classes():
    head = dict(type='CSRAClsHead', num_heads=2, lam=0.1, num_classes=5, in_channels=64)
    csra = dict(student(), head=head, neck=None)
    model = online([csra, csra], in_channels=64)
    images, samples = batch()
    losses = model.loss(images, [sample.set_gt_score(torch.ones(5)) for sample in samples])
    assert model.multi_label == 5 and all(x.isfinite().all() for x in losses.values())


@pytest.mark.parametrize('shared_stages', [0, 2])
def test_students_start_alike_also_where_the_whole_is_initialised(shared_stages):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = OnlineDistill(
            [student()] * 2,
            dict(type='DMLDistiller'),
            shared_stages=shared_stages,
            same_initial_weights=True,
            init_cfg=dict(type='Xavier', layer='Linear'),
        )
    before = model.architecture.head.fc.weight.clone()
    model.init_weights()
    first, second = (each.head.fc.weight for each in model.students)
    assert torch.equal(first, second) and not torch.equal(first, before)


def test_a_head_of_several_tasks_has_no_number_of_classes():
    heads = {name: dict(type='LinearClsHead', num_classes=k) for name, k in dict(a=3, b=5).items()}
    head = MultiTaskHead(heads, in_channels=64)
    assert number_of_classes(torch.nn.ModuleDict(dict(head=head))) is None


def test_students_of_several_tasks_are_refused():
    tasks = {name: dict(type='LinearClsHead', num_classes=k) for name, k in dict(a=3, b=5).items()}
    several = dict(STUDENT, head=dict(type='MultiTaskHead', task_heads=tasks, in_channels=64))
    with pytest.raises(ValueError, match='student0: a MultiTaskHead has logits for each'):
        online([several] * 2, 'DMLDistiller')


def test_a_method_that_does_not_take_the_number_of_students():
    class Two(DMLDistiller):
        def __init__(self, num_classes=10):
            super().__init__()

    with pytest.raises(TypeError, match='Two does not take num_students: let its __init__ have'):
        arguments_of_distiller(Two, dict(type=Two), [])
