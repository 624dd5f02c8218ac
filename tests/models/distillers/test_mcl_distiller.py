import pytest
import torch
from reference import assert_same, kd, records
from torch import nn

from mfef_mmrazor.models import MCLDistiller

LABELS = torch.tensor([0, 3, 0, 3, 2])  # the last one is alone in its class


def mcl(students, channels=16, **options):
    torch.manual_seed(0)
    return MCLDistiller(channels, num_students=students, **options).double()


def embeddings(distiller, maps):
    """Unit vectors, from the parameters themselves."""
    found = []
    for network, x in zip(distiller.embeddings, maps, strict=True):
        p = dict(network.named_parameters())
        hidden = x.flatten(2).mean(dim=2) @ p['mlp.0.weight'].T + p['mlp.0.bias']
        e = hidden * (hidden > 0) @ p['mlp.2.weight'].T + p['mlp.2.bias']
        found.append(e / e.pow(2).sum(dim=1, keepdim=True).sqrt())
    return found


def contrast(s):
    """Over the four images that have a partner."""
    total = 0
    for b, partner in ((0, 2), (2, 0), (1, 3), (3, 1)):
        others = [a for a in range(5) if a != b]
        total = total - (s[b, partner].exp() / s[b, others].exp().sum()).log()
    return total / 4


@pytest.mark.parametrize('students', [2, 3, 4])
def test_contrast_within_and_between_students_and_what_they_find_similar(students):
    channels = [16, 12, 8, 4][:students]
    options = dict(temperature=0.2, vcl_weight=0.3, icl_weight=0.7, tau=0.5)
    distiller = mcl(students, channels, **options)
    caught = records(students, channels)
    losses = distiller.compute_distill_losses(caught, LABELS)

    e = embeddings(distiller, caught['feature'])
    assert all(x.shape == (5, 128) for x in e)
    s = [[a @ b.T / 0.2 for b in e] for a in e]
    pairs = [(i, j) for i in range(students) for j in range(students) if i != j]
    expected = dict(
        loss_vcl=0.3 * sum(contrast(s[i][i]) for i in range(students)),
        loss_icl=0.7 * sum(contrast(s[i][j]) for i, j in pairs),
        loss_soft_vcl=sum(kd(s[j][j], s[i][i], 0.5) for i, j in pairs),
        loss_soft_icl=sum(kd(s[j][i], s[i][j], 0.5) for i, j in pairs),
    )
    assert_same(losses, expected, distiller, caught)


def test_by_default_the_weights_are_a_tenth_and_1_and_the_temperatures_a_tenth_and_3():
    distiller, caught = mcl(2), records(2)
    losses = distiller.compute_distill_losses(caught, LABELS)
    a, b = embeddings(distiller, caught['feature'])
    aa, ab, ba, bb = (x @ y.T / 0.1 for x, y in ((a, a), (a, b), (b, a), (b, b)))
    expected = dict(
        loss_vcl=0.1 * (contrast(aa) + contrast(bb)),
        loss_icl=0.1 * (contrast(ab) + contrast(ba)),
        loss_soft_vcl=kd(aa, bb, 3.0) + kd(bb, aa, 3.0),
        loss_soft_icl=kd(ab, ba, 3.0) + kd(ba, ab, 3.0),
    )
    for name, value in losses.items():
        assert abs(value - expected[name]) < 1e-10


def test_students_that_see_the_same_have_nothing_to_imitate():
    distiller, caught = mcl(3), records(3)
    for network in distiller.embeddings[1:]:
        network.load_state_dict(distiller.embeddings[0].state_dict())
    same = dict(feature=[caught['feature'][0]] * 3)
    losses = distiller.compute_distill_losses(same, LABELS)
    assert abs(losses['loss_soft_vcl']) < 1e-10
    assert abs(losses['loss_icl'] - 2 * losses['loss_vcl']) < 1e-10  # 6 pairs, 3 students


def test_a_batch_without_two_images_of_one_class():
    distiller, caught = mcl(2), records(2)
    losses = distiller.compute_distill_losses(caught, torch.arange(5))
    assert losses['loss_vcl'] == losses['loss_icl'] == 0
    sum(losses.values()).backward()
    assert all(x.grad.isfinite().all() for x in caught['feature'])


def test_another_embedding():
    distiller = mcl(2, embedding=dict(type='mmpretrain.LinearNeck', out_channels=6, gap_dim=2))
    assert [type(x.fc) for x in distiller.embeddings] == [nn.Linear] * 2
    assert distiller.similarities(records(2))[0, 1].shape == (5, 5)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=[64]), r'in_channels=\[64\] names 1 students, but there are 2'),
        (dict(icl_weight=-1), 'icl_weight=-1, but a weight must be 0 or more'),
        (dict(temperature=0), 'temperature=0, but a temperature must be positive'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        MCLDistiller(**{**dict(in_channels=64), **options})


def test_a_map_other_than_announced():
    with pytest.raises(ValueError, match=r'feature of student1 is \(5, 8, 6, 6\).*\[4, 4\]'):
        mcl(2, 4).similarities(records(2, [4, 8]))
