import copy

import pytest
import torch
from reference import (
    LABELS,
    W40,
    assert_same,
    batch_norm,
    cross_entropy,
    gradients,
    kd,
    records,
    separable,
)
from torch import nn

from mfef_mmrazor.functional import shifted_map
from mfef_mmrazor.models import FFSDDistiller

# larger than usual, so that no loss is near zero
WEIGHTS = dict(diversity_weight=30.0, fusion_weight=70.0, decoder_weight=50.0, ramp_up_epochs=80)


def ffsd(common=2, **options):
    torch.manual_seed(0)
    distiller = FFSDDistiller([4, 8, 16], 5, num_students=common + 1, **{**WEIGHTS, **options})
    nn.init.normal_(distiller.fused_classifier.head.fc.weight)
    for module in distiller.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained for a while
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return distiller.double()


def caught_of(common=2, size=3):
    shallow = [
        records(common + 1, channels, size * scale, seed=seed)['feature']
        for seed, (channels, scale) in enumerate([(4, 4), (8, 2)])
    ]
    return dict(stage1=shallow[0], stage2=shallow[1], **records(common + 1, 16, size, seed=2))


def unit(x):
    x = x.flatten(1)
    return x / x.pow(2).sum(dim=1, keepdim=True).sqrt()


def energy(x):
    return (x**2).sum(dim=1) / x.shape[1]


def distance(a, b):
    return (unit(a) - unit(b)).pow(2).mean()


def attention(learner, target):
    return distance(energy(learner), energy(target.detach()))


def turned(x):
    """Unit attention, and that of a peer that looks elsewhere, sample by sample."""
    before, after = unit(energy(x)), []
    for e, y in zip(energy(x), before, strict=True):
        n = e.pow(2).sum().sqrt()
        theta = y.sort().values[len(y) // 3 - 1]
        turned = torch.where(y > theta, n - y, y)
        after.append(torch.where(y == theta, n / 2, turned))
    return before, torch.stack(after)


def shifted(x):
    before, after = turned(x)
    n = energy(x).flatten(1).pow(2).sum(dim=1).sqrt()
    shift = (after - before).view(len(x), 1, *x.shape[2:])
    return x + shift * n[:, None, None, None] / x.shape[1]


def transposed(x, weight):
    """Every pixel lays its weighted kernel on an image twice as large; a border is cut off."""
    height, width = (2 * s for s in x.shape[2:])
    out = x.new_zeros(len(x), weight.shape[1], height + 2, width + 2)
    for i in range(3):
        for j in range(3):
            spread = torch.einsum('bchw,co->bohw', x, weight[:, :, i, j])
            out[:, :, i : i + height : 2, j : j + width : 2] += spread
    return out[:, :, 1:-1, 1:-1]


def decoded(decoder, x, norm=batch_norm):
    maps = []
    for convolution, bn, _ in decoder:
        x = norm(transposed(x, convolution.weight), bn).clamp(min=0)
        maps.append(x)
    return maps[::-1]


def running_norm(x, bn):
    x = (x - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + 1e-5).sqrt()
    return x * bn.weight[:, None, None] + bn.bias[:, None, None]


def by_hand(distiller, caught):
    """All losses, student after student."""
    z_leader, *z = caught['logits']
    leader, *common = zip(caught['stage1'], caught['stage2'], caught['feature'], strict=True)
    fused_map = separable(
        distiller.fused_classifier.fusion.fuse,
        torch.cat([maps[2].detach() for maps in common], dim=1),
    )
    fused = (
        fused_map.mean(dim=(2, 3)) @ distiller.fused_classifier.head.fc.weight.T
        + distiller.fused_classifier.head.fc.bias
    )
    m = len(common)

    def shallow(maps, decoder, hint):
        targets = decoded(decoder, hint.detach(), running_norm)
        return sum(attention(maps[s], targets[s]) for s in (0, 1))

    losses = dict.fromkeys(['loss_diversity', 'loss_shallow', 'loss_decoders'], 0.0)
    for i in range(1, m):
        previous = common[i - 1][2].detach()
        _, target = turned(previous)
        difference = (unit(energy(common[i][2])) - target).pow(2).mean()
        losses['loss_diversity'] += W40 * 30.0 * difference
        imitated = shallow(common[i], distiller.decoders[i], shifted(previous))
        losses['loss_shallow'] += W40 * 30.0 * imitated
    losses['loss_mutual'] = sum(
        kd(z[j], z[i], 2.0) / (m - 1) for i in range(m) for j in range(m) if i != j
    )
    losses['loss_fused'] = cross_entropy(fused)
    losses['loss_ensemble'] = kd(sum(z) / m, fused, 2.0)
    losses['loss_transfer'] = kd(fused, z_leader, 2.0)
    all_maps = torch.cat([maps[2] for maps in common], dim=1)
    leading = attention(leader[2], fused_map)
    leading = leading + attention(separable(distiller.widen, leader[2]), all_maps)
    leading = leading + shallow(leader, distiller.decoders[0], fused_map)
    losses['loss_map'] = W40 * 70.0 * leading
    for maps, decoder in zip([leader, *common[1:]], distiller.decoders, strict=True):
        made = decoded(decoder, maps[2].detach())
        for s in (0, 1):
            both = distance(made[s], maps[s].detach()) + attention(made[s], maps[s])
            losses['loss_decoders'] += W40 * 50.0 * both
    return losses, fused


@pytest.mark.parametrize('common', [2, 3, 4])
def test_common_students_leader_fusion_and_decoders_learn_what_they_should(common, epoch):
    epoch(40)
    distiller, caught = ffsd(common), caught_of(common)
    assert len(distiller.decoders) == common
    expected, fused = by_hand(distiller, caught)  # first: it needs the running statistics
    losses = distiller.compute_distill_losses(caught, LABELS)
    assert_same(losses, expected, distiller, caught)
    torch.testing.assert_close(distiller.fused_logits(caught), fused, rtol=0, atol=1e-10)


def test_what_a_decoder_teaches_is_constant_and_changes_nothing_in_it():
    decoder = ffsd().decoders[0]
    decoder[1][1].eval()  # a batch norm that is frozen stays so
    before = copy.deepcopy(decoder.state_dict())
    maps = decoder.teach(torch.randn(5, 16, 4, 4, dtype=torch.float64, requires_grad=True))
    assert [tuple(x.shape) for x in maps] == [(5, 4, 16, 16), (5, 8, 8, 8)]
    assert not any(x.requires_grad for x in maps)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    assert [name for name, x in decoder.named_modules() if not x.training] == ['1.1']


def test_by_default_the_weights_are_the_originals(epoch):
    caught = caught_of()
    for number, w in ((0, 0.006737946999085467), (5, 1.0)):  # e^-5; after that there is no ramp-up
        epoch(number)
        usual = FFSDDistiller([4, 8, 16], 5).double()
        scaled = FFSDDistiller([4, 8, 16], 5, **WEIGHTS | dict(ramp_up_epochs=0)).double()
        scaled.load_state_dict(usual.state_dict())
        losses, other = (x.compute_distill_losses(caught, LABELS) for x in (usual, scaled))
        weights = dict(
            loss_diversity=w * 1e-5 / 30,
            loss_shallow=w * 1e-5 / 30,
            loss_map=w * 10 / 70,
            loss_decoders=w * 1000 / 50,
        )
        for name, loss in losses.items():
            expected = weights.get(name, 1.0) * other[name].item()
            assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_no_loss_reaches_what_another_optimizer_of_the_original_trains(epoch):
    """So one joint step has the gradients of the original's separate steps."""
    epoch(80)
    distiller, caught = ffsd(3), caught_of(3)
    inputs = {f'student{i}': [xs[i] for xs in caught.values()] for i in range(4)}
    inputs['fusion'] = [
        *distiller.fused_classifier.fusion.parameters(),
        *distiller.fused_classifier.head.parameters(),
    ]
    inputs['widen'] = list(distiller.widen.parameters())
    inputs.update({f'decoder{i}': list(x.parameters()) for i, x in enumerate(distiller.decoders)})
    reached = {}
    for name, loss in distiller.compute_distill_losses(caught, LABELS).items():
        reached[name] = [
            part
            for part, leaves in inputs.items()
            if any(g.any() for g in gradients(loss, dict(enumerate(leaves))).values())
        ]
    assert reached == dict(
        loss_mutual=['student1', 'student2', 'student3'],
        loss_diversity=['student2', 'student3'],
        loss_shallow=['student2', 'student3'],
        loss_fused=['fusion'],
        loss_ensemble=['fusion'],
        loss_transfer=['student0'],
        loss_map=['student0', 'widen'],
        loss_decoders=['decoder0', 'decoder1', 'decoder2'],
    )


def test_under_autocast_the_losses_are_of_full_precision():
    distiller = ffsd().float()
    caught = {name: [x.detach().float() for x in xs] for name, xs in caught_of().items()}
    with torch.autocast('cpu', torch.bfloat16):
        losses = distiller.compute_distill_losses(caught, LABELS)
    assert {x.dtype for x in losses.values()} == {torch.float32}
    losses['loss_decoders'].backward()
    assert all(p.grad is not None and p.grad.any() for p in distiller.decoders.parameters())


def test_large_maps_do_not_overflow_in_half_precision():
    distiller = ffsd().float()
    # the shifted map of an active one is beyond the largest number of fp16, 65,504
    caught = {name: [20 * x.detach().float() for x in xs] for name, xs in caught_of().items()}
    assert shifted_map(caught['feature'][1]).max() > 65_504
    with torch.autocast('cpu', torch.float16):
        losses = distiller.compute_distill_losses(caught, LABELS)
    assert losses['loss_shallow'].isfinite()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_students=2), 'at least 3 students, but there are 2: list another one'),
        (dict(in_channels=64), 'in_channels=64, expected the channels of 3 stages'),
        (dict(in_channels=[32, 64]), r'in_channels=\[32, 64\], expected'),
        (dict(in_channels=[[4, 8, 16]] * 2 + [[8, 8, 16]]), 'all students have the same channels'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
        (dict(fusion_weight=-1), 'fusion_weight=-1, but a weight must be 0 or more'),
        (dict(ramp_up_epochs=-1), 'length is -1 epochs'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        FFSDDistiller(**{**dict(in_channels=[4, 8, 16], num_classes=5), **options})


def test_a_map_that_no_decoder_makes():
    caught = caught_of()
    caught['stage2'] = [x[:, :, :-1] for x in caught['stage2']]
    with pytest.raises(ValueError, match=r'stage1 of student0 .* expected \(10, 12\), twice'):
        ffsd().compute_distill_losses(caught, LABELS)


def test_a_map_other_than_announced():
    caught = caught_of()
    caught['stage2'][1] = caught['stage1'][1]
    with pytest.raises(ValueError, match=r'stage2 of student1 is \(5, 4, 12, 12\).*\[8, 8, 8\]'):
        ffsd().compute_distill_losses(caught, LABELS)
