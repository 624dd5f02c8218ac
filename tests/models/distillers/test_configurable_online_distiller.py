"""Methods written in the config equal the classes; mistakes are named when it is built."""

import pytest
import torch
from mmrazor.registry import MODELS
from torch import nn
from torch.nn import functional as F

from mfef_mmrazor.models import ConfigurableOnlineDistiller, DMLDistiller, FFLDistiller

KD = dict(preds_S=dict(recorder='logits', student='i'))
LABELS = torch.tensor([1, 0, 2, 1])


def records(students, dtype=torch.float32):
    torch.manual_seed(0)
    return dict(
        logits=[torch.randn(4, 3, dtype=dtype, requires_grad=True) for _ in range(students)],
        feature=[torch.rand(4, 8, 4, 4, dtype=dtype, requires_grad=True) for _ in range(students)],
    )


def gradients(losses, recorded, *modules):
    """All gradients of the sum of the losses, in a fixed order."""
    leaves = [*recorded['logits'], *recorded['feature']]
    leaves += [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(sum(losses.values()), leaves, allow_unused=True)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.parametrize('students', [2, 3])
def test_dml_is_the_class_bit_for_bit(students):
    everyone = dict(recorder='logits', student='all')
    configured = ConfigurableOnlineDistiller(
        distill_losses=dict(loss_mutual=dict(type='MutualKLDivergence', tau=1.0)),
        loss_forward_mappings=dict(loss_mutual=dict(preds=everyone)),
        num_students=students,
    )
    recorded = records(students)
    expected = DMLDistiller(num_students=students).compute_distill_losses(recorded, LABELS)
    found = configured.compute_distill_losses(recorded, LABELS)
    assert torch.equal(found['loss_mutual'], expected['loss_mutual'])
    assert_same(gradients(found, recorded), gradients(expected, recorded))


def test_a_term_that_is_not_minimised_is_told_of(log):
    everyone = dict(recorder='logits', student='all')
    ConfigurableOnlineDistiller(
        distill_losses=dict(
            mutual=dict(type='MutualKLDivergence'), loss_mutual=dict(type='MutualKLDivergence')
        ),
        loss_forward_mappings=dict(mutual=dict(preds=everyone), loss_mutual=dict(preds=everyone)),
    )
    (note,) = (line for line in log if 'not minimised' in line)
    assert "'mutual' is logged but not minimised" in note


def test_one_entry_is_all_ordered_pairs():
    pairs = ConfigurableOnlineDistiller(
        distill_losses=dict(loss_mutual=dict(type='KLDivergence', tau=1.0)),
        loss_forward_mappings=dict(
            loss_mutual=dict(**KD, preds_T=dict(recorder='logits', student='j', detach=True))
        ),
    )
    recorded = records(2)
    expected = DMLDistiller().compute_distill_losses(recorded, LABELS)
    found = pairs.compute_distill_losses(recorded, LABELS)
    assert found['loss_mutual'].item() == pytest.approx(expected['loss_mutual'].item(), rel=1e-6)


@MODELS.register_module()
class FromTheMean(nn.Module):
    """A loss that detaches nothing by itself."""

    def forward(self, preds_S, preds_T):
        return (preds_S - torch.stack(preds_T).mean(dim=0)).square().sum()


@pytest.mark.parametrize('detach', [True, False])
def test_a_list_of_sources_is_a_constant_if_asked_for(detach):
    everyone = dict(recorder='logits', student='all', detach=detach)
    distiller = ConfigurableOnlineDistiller(
        distill_losses=dict(loss_mean=dict(type='FromTheMean')),
        loss_forward_mappings=dict(
            loss_mean=dict(preds_S=dict(recorder='logits', student=0), preds_T=everyone)
        ),
    )
    recorded = records(2)
    distiller.compute_distill_losses(recorded, LABELS)['loss_mean'].backward()
    a, b = recorded['logits']
    difference = a.detach() - (a.detach() + b.detach()) / 2
    assert torch.allclose(a.grad, difference * (2 if detach else 1))
    assert b.grad is None if detach else torch.allclose(b.grad, -difference)


@pytest.mark.parametrize('letter', ['i', 'j'])
def test_one_letter_is_every_student_once(letter):
    each = ConfigurableOnlineDistiller(
        distill_losses=dict(loss_ce=dict(type='mmpretrain.CrossEntropyLoss')),
        loss_forward_mappings=dict(
            loss_ce=dict(
                cls_score=dict(recorder='logits', student=letter),
                label=dict(from_batch='gt_label'),
            )
        ),
        num_students=3,
    )
    recorded = records(3)
    expected = sum(F.cross_entropy(z, LABELS) for z in recorded['logits'])
    found = each.compute_distill_losses(recorded, LABELS)['loss_ce']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def ffl_config(students):
    return dict(
        connectors=dict(
            fused=dict(
                type='FeatureFusionConnector',
                in_channels=[8] * students,
                out_channels=8,
                inputs=[dict(recorder='feature', student=i) for i in range(students)],
            ),
            pooled=dict(type='mmpretrain.GlobalAveragePooling', inputs=dict(connector='fused')),
            classified=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=3,
                in_channels=8,
                inputs=[dict(connector='pooled')],
            ),
        ),
        distill_losses=dict(
            loss_fused=dict(type='mmpretrain.CrossEntropyLoss'),
            loss_ensemble=dict(type='EnsembleKLDivergence', tau=3.0),
            loss_transfer=dict(type='KLDivergence', tau=3.0),
        ),
        loss_forward_mappings=dict(
            loss_fused=dict(
                cls_score=dict(connector='classified'), label=dict(from_batch='gt_label')
            ),
            loss_ensemble=dict(
                preds_S=dict(connector='classified'),
                preds_T=dict(recorder='logits', student='all', detach=True),
            ),
            loss_transfer=dict(**KD, preds_T=dict(connector='classified', detach=True)),
        ),
        ramped_losses=['loss_ensemble', 'loss_transfer'],
        ramp_up_epochs=80,
        fused='classified',
        num_students=students,
    )


@pytest.mark.parametrize('students', [2, 3])
def test_ffl_is_the_class_bit_for_bit(students):
    ffl = FFLDistiller(in_channels=8, num_classes=3, num_students=students)
    configured = ConfigurableOnlineDistiller(**ffl_config(students))
    parts = configured.connectors
    fused = ffl.fused_classifier
    parts['fused'].load_state_dict(fused.fusion.state_dict())
    parts['classified'].load_state_dict(fused.head.state_dict())

    recorded = records(students)
    expected = ffl.compute_distill_losses(recorded, LABELS)
    found = configured.compute_distill_losses(recorded, LABELS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert_same(
        gradients({k: found[k] for k in sorted(found)}, recorded, *parts.values()),
        gradients({k: expected[k] for k in sorted(found)}, recorded, fused.fusion, fused.head),
    )
    ffl.eval(), configured.eval()
    assert torch.equal(configured.fused_logits(recorded), ffl.fused_logits(recorded))


def test_a_connector_runs_once_a_step():
    configured = ConfigurableOnlineDistiller(**ffl_config(2))
    norm = next(m for m in configured.modules() if isinstance(m, nn.BatchNorm2d))
    configured.compute_distill_losses(records(2), LABELS)  # three losses read it
    assert norm.num_batches_tracked == 1
    configured.compute_distill_losses(records(2), LABELS)
    assert norm.num_batches_tracked == 2


def test_under_autocast_what_connectors_give_is_of_full_precision():
    configured, recorded = ConfigurableOnlineDistiller(**ffl_config(2)), records(2)
    with torch.autocast('cpu', torch.bfloat16):
        assert configured.fused_logits(recorded).dtype is torch.float32


class InATuple(nn.Identity):
    def forward(self, x):
        return (super().forward(x),)


def test_a_connector_may_give_a_tuple_as_necks_do():
    read = dict(recorder='logits', student=0)
    distiller = ConfigurableOnlineDistiller(
        distill_losses=LOSS,
        loss_forward_mappings=mapping(preds_S=dict(connector='same'), preds_T=read),
        connectors=dict(same=dict(type=InATuple, inputs=read)),
    )
    assert distiller.compute_distill_losses(records(2), LABELS)['loss'].item() == 0


@pytest.mark.parametrize('detach', [False, True])
def test_detach_is_for_the_argument_that_says_so(detach):
    squared = ConfigurableOnlineDistiller(
        distill_losses=dict(loss=dict(type='mmrazor.L2Loss', normalize=False)),
        loss_forward_mappings=dict(
            loss=dict(
                s_feature=dict(recorder='feature', student=0),
                t_feature=dict(recorder='feature', student=1, detach=detach),
            )
        ),
    )
    recorded = records(2)
    found = squared.compute_distill_losses(recorded, LABELS)
    learner, teacher = torch.autograd.grad(found['loss'], recorded['feature'], allow_unused=True)
    assert learner.abs().sum() > 0 and (teacher is None) == detach


def mapping(**changes):
    return dict(loss=dict(**KD, preds_T=dict(recorder='logits', student='j')) | changes)


LOSS = dict(loss=dict(type='KLDivergence'))
FUSION = dict(type='FeatureFusionConnector', in_channels=[8, 8], out_channels=8)
MISTAKES = {
    'loss name': (dict(loss_forward_mappings=dict(los={})), KeyError, "'los'.*nearest: loss"),
    'no mapping': (dict(loss_forward_mappings={}), KeyError, "without a mapping: 'loss'"),
    'argument': (
        dict(loss_forward_mappings=mapping(preds=dict(recorder='logits', student=0))),
        TypeError,
        r"KLDivergence.forward takes \['preds_S', 'preds_T'\].*'preds'",
    ),
    'missing argument': (
        dict(loss_forward_mappings=dict(loss=KD)),
        TypeError,
        "missing a required argument: 'preds_T'",
    ),
    'recorder': (
        dict(loss_forward_mappings=mapping(preds_T=dict(recorder='logit', student='j'))),
        KeyError,
        "loss.preds_T: recorder 'logit'.*nearest: logits",
    ),
    'student': (
        dict(loss_forward_mappings=mapping(preds_T=dict(recorder='logits', student=2))),
        ValueError,
        'student=2, expected one of',
    ),
    'student of what is no recorder': (
        dict(
            loss_forward_mappings=mapping(preds_T=dict(connector='fusion', student='j')),
            connectors=dict(
                fusion=dict(
                    type='FeatureFusionConnector',
                    in_channels=[64, 64],
                    out_channels=64,
                    inputs=KD['preds_S'] | dict(student=0),
                )
            ),
        ),
        ValueError,
        "loss.preds_T: only a recorder has a 'student'",
    ),
    'batch': (
        dict(loss_forward_mappings=mapping(preds_T=dict(from_batch='labels'))),
        KeyError,
        "from_batch 'labels', expected one of",
    ),
    'source key': (
        dict(loss_forward_mappings=mapping(preds_T=dict(recorder='logits', studnet=1))),
        KeyError,
        "'studnet'.*nearest: student",
    ),
    'two sources': (
        dict(loss_forward_mappings=mapping(preds_T=dict(recorder='logits', connector='x'))),
        ValueError,
        "one of 'recorder', 'connector' and 'from_batch'",
    ),
    'no source': (
        dict(loss_forward_mappings=mapping(preds_T='logits')),
        ValueError,
        "expected a dict as source, got 'logits'",
    ),
    'connector': (
        dict(loss_forward_mappings=mapping(preds_T=dict(connector='fuse'))),
        KeyError,
        "connector 'fuse', expected one of",
    ),
    'no inputs': (dict(connectors=dict(fused=FUSION)), KeyError, "'fused' has no 'inputs'"),
    'circle': (
        dict(
            connectors=dict(
                a=dict(**FUSION, inputs=[dict(connector='b')]),
                b=dict(**FUSION, inputs=[dict(connector='a')]),
            )
        ),
        ValueError,
        'a <- b <- a',
    ),
    'ramped': (dict(ramped_losses=['los']), KeyError, "ramped_losses 'los'"),
    'ramped as a string': (dict(ramped_losses='los'), KeyError, "ramped_losses 'los'.*: loss"),
    'temperature': (
        dict(distill_losses=dict(loss=dict(type='KLDivergence', tau=0))),
        ValueError,
        'loss.tau=0, but a temperature must be positive',
    ),
    'connector that nothing trains': (
        dict(
            connectors=dict(fused=dict(**FUSION, inputs=[dict(recorder='feature', student='all')])),
            fused='fused',
        ),
        ValueError,
        "connector 'fused': no loss reads it",
    ),
    'fused': (dict(fused='classified'), KeyError, "fused 'classified'"),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_named_when_it_is_built(mistake):
    changes, error, message = MISTAKES[mistake]
    config = dict(distill_losses=LOSS, loss_forward_mappings=mapping()) | changes
    with pytest.raises(error, match=message):
        ConfigurableOnlineDistiller(**config)
