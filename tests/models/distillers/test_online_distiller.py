import copy
import gc
import weakref

import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from torch import nn

from mfef_mmrazor.models import OnlineDistill, OnlineDistiller
from mfef_mmrazor.models.distillers.online_distiller import Progress

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
BN1 = dict(bn1=dict(type='ModuleOutputs', source='backbone.bn1'))


class Keeper(OnlineDistiller):
    """A method whose loss is zero, and which shows what it was given."""

    def compute_distill_losses(self, records, labels):
        self.seen = records
        return dict(loss_nothing=0 * sum(z.sum() for z in records['logits']))


def algorithm(student=STUDENT, **options):
    torch.manual_seed(0)
    return OnlineDistill(students=[student, student], distiller=Keeper(**options))


def batch(size=16):
    generator = torch.Generator().manual_seed(1)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    return torch.randn(4, 3, size, size, generator=generator), samples


@pytest.fixture
def epoch():
    """Sets the epoch that mmengine's runner would announce."""
    hub = MessageHub.get_current_instance()
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)


def test_a_method_has_to_say_what_it_does():
    with pytest.raises(TypeError, match='compute_distill_losses'):
        OnlineDistiller()


def test_ramp_up_follows_the_epoch_of_the_runner(epoch):
    distiller = Keeper(ramp_up_epochs=80)
    for number, weight in ((0, 0.0067379), (40, 0.2865048), (80, 1.0), (200, 1.0), (40, 0.2865048)):
        epoch(number)
        assert distiller.ramp_up() == pytest.approx(weight, abs=5e-8)
    assert Keeper().ramp_up() == 1.0


@pytest.mark.parametrize('length, weight', [(0, 1.0), (10, 0.2865048)])  # 0: none at all
def test_a_ramp_up_in_iterations_takes_the_place_of_one_in_epochs(length, weight):
    distiller = Keeper(ramp_up_epochs=80, ramp_up_iters=length)
    distiller.progress = Progress(epoch=0, iteration=5)
    assert distiller.ramp_up() == pytest.approx(weight, abs=5e-8)


def test_default_records_are_each_students_logits_and_last_map():
    stages = dict(type='CifarResNet', depth=8, out_indices=(0, 1, 2))
    model = algorithm(dict(STUDENT, backbone=stages))
    inputs, samples = batch()
    model.loss(inputs, samples)
    seen = model.distiller.seen
    assert sorted(seen) == ['feature', 'logits']
    for i, student in enumerate(model.students):
        # in training mode batch norm goes by the batch alone, so a second pass gives the same
        assert torch.equal(seen['feature'][i], student.backbone(inputs)[-1])
        assert torch.equal(seen['logits'][i], student(inputs, mode='tensor'))
    assert not torch.equal(*seen['logits'])
    assert all(x.requires_grad for records in seen.values() for x in records)


def test_of_several_outputs_the_last_one_is_recorded():
    stages = dict(type='CifarResNet', depth=8, out_indices=(0, 1, 2))
    whole = dict(whole=dict(type='ModuleOutputs', source='backbone'))
    model = algorithm(dict(STUDENT, backbone=stages), recorders=whole)
    model.loss(*batch())
    seen = model.distiller.seen
    assert [x.shape[1] for x in seen['whole']] == [64, 64]
    assert all(torch.equal(*pair) for pair in zip(seen['whole'], seen['feature'], strict=True))


def test_other_recorders_join_or_replace_the_default_ones():
    model = algorithm(
        recorders=[
            dict(feature=dict(type='ModuleOutputs', source='backbone.layer1'), **BN1),
            dict(feature=dict(type='ModuleOutputs', source='backbone.layer2'), **BN1),
        ]
    )
    model.loss(*batch())
    seen = model.distiller.seen
    assert sorted(seen) == ['bn1', 'feature', 'logits']
    assert [x.shape[1] for x in seen['feature']] == [16, 32]


def test_a_recorded_feature_is_not_overwritten_by_the_relu_after_it():
    built = [copy.deepcopy(model) for model in algorithm().students]
    for student in built:
        student.backbone.relu.inplace = True
    model = OnlineDistill(students=built, distiller=Keeper(recorders=BN1))
    inputs, samples = batch()
    model.loss(inputs, samples)
    for student, x in zip(model.students, model.distiller.seen['bn1'], strict=True):
        assert (x < 0).any()
        assert torch.equal(x, student.backbone.bn1(student.backbone.conv1(inputs)))


def test_recorders_move_to_a_module_that_took_the_place_of_theirs():
    model = algorithm(recorders=BN1)
    inputs, samples = batch()
    model.loss(inputs, samples)
    before = model.distiller.seen['bn1']
    for student in model.students:
        student.backbone.bn1 = nn.BatchNorm2d(16)
        nn.init.constant_(student.backbone.bn1.bias, 5.0)
    for _ in range(2):
        model.loss(inputs, samples)
        for old, new in zip(before, model.distiller.seen['bn1'], strict=True):
            assert torch.allclose(new, old + 5.0, atol=1e-5)


def test_after_a_step_nothing_keeps_its_graph_alive():
    model = algorithm()
    losses = model.loss(*batch())
    buffers = [r.data_buffer for m in model.distiller.recorders for r in m.recorders.values()]
    assert buffers == [[]] * 4
    feature = weakref.ref(model.distiller.seen['feature'][0])
    assert feature() is not None
    del losses, model.distiller.seen
    gc.collect()
    assert feature() is None


def test_records_under_autocast_are_float32():
    model = algorithm(recorders=BN1)
    with torch.autocast('cpu', torch.bfloat16):
        assert model.students[0](batch()[0], mode='tensor').dtype is torch.bfloat16
        model.loss(*batch())
    assert {x.dtype for xs in model.distiller.seen.values() for x in xs} == {torch.float32}


def test_a_method_may_keep_its_maps_but_not_its_logits_in_half_precision():
    model = algorithm(recorders=dict(pooled=dict(type='ModuleInputs', source='head.fc')))
    model.distiller.half_precision_maps = True
    with torch.autocast('cpu', torch.bfloat16):
        model.loss(*batch())
    seen = {name: {x.dtype for x in xs} for name, xs in model.distiller.seen.items()}
    assert seen == dict(feature={torch.bfloat16}, logits={torch.float32}, pooled={torch.float32})


def test_double_precision_stays():
    model = algorithm().double()
    inputs, samples = batch()
    model.loss(inputs.double(), samples)
    assert {x.dtype for xs in model.distiller.seen.values() for x in xs} == {torch.float64}


def test_a_ramp_up_of_negative_length():
    with pytest.raises(ValueError, match='length is -1 epochs'):
        Keeper(ramp_up_epochs=-1)
    with pytest.raises(ValueError, match='ramp_up_iters=-1, expected a whole number, 0 or more'):
        Keeper(ramp_up_iters=-1)


def test_recorders_for_another_number_of_students():
    with pytest.raises(ValueError, match='3 sets of recorders for 2 students'):
        Keeper(recorders=[BN1] * 3)


def test_recorders_of_other_names_for_each_student():
    with pytest.raises(ValueError, match=r"student1 has \[.*'logits'\], student0 \['bn1', "):
        Keeper(recorders=[BN1, {}])


def test_a_source_that_is_not_there_is_named_with_its_neighbours():
    wrong = [BN1, dict(bn1=dict(type='ModuleOutputs', source='backbone.layer3.0.bn3'))]
    message = r"recorder 'bn1': student1 has no module 'backbone.layer3.0.bn3'; nearest: .*\.bn[12]"
    with pytest.raises(KeyError, match=message):
        algorithm(recorders=wrong)


def test_a_source_that_did_not_run_is_named():
    model = algorithm(recorders=dict(late=dict(type='ModuleOutputs', source='head.loss_module')))
    model.loss(*batch())
    with pytest.raises(ValueError, match="'late' recorded nothing: 'head.loss_module' of student0"):
        model.predict_all(*batch())
