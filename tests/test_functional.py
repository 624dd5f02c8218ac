import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import rel_entr, softmax

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def numpy_kd(student, teacher, tau):
    p, q = (softmax(z.detach().numpy() / tau, axis=1) for z in (teacher, student))
    return tau**2 * rel_entr(p, q).sum(axis=1).mean()


STUDENT, TEACHER = random(5, 7, seed=1), random(5, 7, seed=2)
TAUS = pytest.mark.parametrize('tau', [1.0, 3.0, 0.5])


@TAUS
def test_kd_is_the_divergence_scipy_computes(tau):
    expected = numpy_kd(STUDENT, TEACHER, tau)
    assert expected > 0.1
    assert functional.kd_loss(STUDENT, TEACHER, tau).item() == pytest.approx(expected, rel=1e-12)


@TAUS
def test_kd_is_zero_and_flat_at_equality_and_positive_elsewhere(tau):
    z = TEACHER.clone().requires_grad_()
    loss = functional.kd_loss(z, TEACHER, tau)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0 and gradient.abs().max() < 1e-15
    for seed in range(20):
        assert functional.kd_loss(TEACHER + 0.1 * random(5, 7, seed=seed), TEACHER, tau) > 0


def test_kd_ignores_a_constant_added_to_a_row():
    shift = random(5, 1, seed=3, scale=10.0)
    expected = functional.kd_loss(STUDENT, TEACHER, 3.0).item()
    assert functional.kd_loss(STUDENT + shift, TEACHER, 3.0).item() == pytest.approx(expected)
    assert functional.kd_loss(STUDENT, TEACHER + shift, 3.0).item() == pytest.approx(expected)


def test_kd_at_a_high_temperature_is_the_distance_of_centred_logits():
    centred = [z - z.mean(dim=1, keepdim=True) for z in (STUDENT, TEACHER)]
    limit = (centred[0] - centred[1]).pow(2).sum(dim=1).mean() / (2 * 7)
    assert functional.kd_loss(STUDENT, TEACHER, 1e4).item() == pytest.approx(limit.item(), rel=1e-3)


@TAUS
def test_kd_gradient_is_the_difference_of_the_distributions(tau):
    z = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.kd_loss(z, TEACHER, tau), z)
    expected = tau * ((STUDENT / tau).softmax(dim=1) - (TEACHER / tau).softmax(dim=1)) / 5
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-14)


def test_kd_passes_gradcheck_in_both_arguments():
    pair = [z.clone().requires_grad_() for z in (STUDENT, TEACHER)]
    assert torch.autograd.gradcheck(lambda s, t: functional.kd_loss(s, t, 3.0), pair)


def test_kd_refuses_other_shapes_and_temperatures():
    with pytest.raises(ValueError, match=r'\(5, 7\), teacher logits \(5, 6\)'):
        functional.kd_loss(STUDENT, TEACHER[:, :6])
    for tau in (0.0, -1.0, float('nan')):
        with pytest.raises(ValueError, match=f'tau is {tau}'):
            functional.kd_loss(STUDENT, TEACHER, tau)


def test_ensemble_is_the_mean_of_the_logits():
    logits = [random(5, 7, seed=seed) for seed in range(3)]
    expected = np.mean([z.numpy() for z in logits], axis=0)
    assert np.allclose(functional.ensemble_logits(iter(logits)), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize('number', [2, 3, 4])
def test_mutual_kd_is_the_mean_over_peers_summed_over_learners(number):
    logits = [random(5, 7, seed=seed).requires_grad_() for seed in range(number)]
    loss = functional.mutual_kd_loss(logits, 3.0)
    pairs = [numpy_kd(a, b, 3.0) for a in logits for b in logits if a is not b]
    assert loss.item() == pytest.approx(sum(pairs) / (number - 1))
    # a peer is a constant: the gradient is that of the learner's own terms
    probabilities = [(z / 3.0).softmax(dim=1).detach() for z in logits]
    for gradient, p in zip(torch.autograd.grad(loss, logits), probabilities, strict=True):
        expected = 3.0 / 5 * (p - (sum(probabilities) - p) / (number - 1))
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-14)


def test_mutual_kd_needs_two():
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        functional.mutual_kd_loss([STUDENT])


def numpy_attention(x):
    energy = (x.numpy() ** 2).mean(axis=1).reshape(len(x), -1)
    return energy / np.sqrt((energy**2).sum(axis=1, keepdims=True))


def test_attention_map_is_the_unit_vector_of_the_energies():
    x = random(3, 8, 4, 6)
    assert np.allclose(functional.attention_map(x), numpy_attention(x), rtol=1e-12)


def test_attention_map_loss_is_what_numpy_computes():
    a, b = random(3, 8, 4, 6, seed=1), random(3, 5, 4, 6, seed=2)
    expected = ((numpy_attention(a) - numpy_attention(b)) ** 2).mean()
    assert functional.attention_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)


def test_attention_map_loss_compares_maps_at_the_smaller_size():
    a, b = random(3, 8, 8, 8, seed=1), random(3, 8, 4, 4, seed=2)
    pooled = a.view(3, 8, 4, 2, 4, 2).mean(dim=(3, 5))
    expected = ((numpy_attention(pooled) - numpy_attention(b)) ** 2).mean()
    assert functional.attention_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)
    assert functional.attention_map_loss(b, a).item() == pytest.approx(expected, rel=1e-12)


def test_attention_map_loss_of_a_dead_map_is_finite():
    dead = torch.zeros(2, 4, 4, 4, requires_grad=True)
    loss = functional.attention_map_loss(dead, torch.ones(2, 4, 4, 4))
    (gradient,) = torch.autograd.grad(loss, dead)
    assert loss.isfinite() and gradient.isfinite().all()


def test_whole_map_loss_is_what_numpy_computes_at_the_smaller_size():
    a, b = random(3, 8, 8, 8, seed=1), random(3, 8, 4, 4, seed=2)
    pooled = a.view(3, 8, 4, 2, 4, 2).mean(dim=(3, 5))
    rows = [x.numpy().reshape(3, -1) for x in (pooled, b)]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    expected = ((units[0] - units[1]) ** 2).mean()
    assert functional.whole_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)
    assert functional.whole_map_loss(b, a).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('size', [(1, 1), (1, 2), (3, 3), (8, 8)])
def test_shifted_attention_turns_over_what_is_above_the_lowest_third(size):
    x = random(4, 8, *size)
    y = numpy_attention(x)
    n = np.sqrt(((x.numpy() ** 2).mean(axis=1) ** 2).sum(axis=(1, 2)))[:, None]
    theta = np.sort(y, axis=1)[:, max(0, y.shape[1] // 3 - 1)][:, None]
    expected = np.where(y > theta, n - y, np.where(y < theta, y, n / 2))
    assert np.allclose(functional.shifted_attention(x), expected, rtol=1e-12)
    learner = random(4, 5, *size, seed=1)
    loss = ((numpy_attention(learner) - expected) ** 2).mean()
    assert functional.diversity_loss(learner, x).item() == pytest.approx(loss, rel=1e-12)
    # the shift is n / C times that of the unit attention, in every channel
    shift = ((expected - y) * n / 8).reshape(4, 1, *size)
    assert np.allclose(functional.shifted_map(x), x.numpy() + shift, rtol=1e-12)


def test_sizes_meet_at_the_smallest_height_and_width():
    tall, wide = torch.rand(1, 2, 8, 4), torch.rand(1, 2, 4, 8)
    assert functional.smallest_size([tall, wide]) == (4, 4)
    assert functional.resize(tall, (8, 4)) is tall
    expected = tall.view(1, 2, 4, 2, 4).mean(dim=3)
    assert torch.allclose(functional.resize(tall, (4, 4)), expected)


@pytest.mark.parametrize(
    'epoch, weight', [(0, 0.0067379), (40, 0.2865048), (79, 0.9992191), (80, 1.0), (300, 1.0)]
)
def test_ramp_up_over_80_epochs(epoch, weight):
    assert functional.sigmoid_ramp_up(epoch, 80) == pytest.approx(weight, abs=5e-8)


def test_ramp_up_rises_and_can_be_switched_off():
    weights = [functional.sigmoid_ramp_up(epoch, 10) for epoch in range(11)]
    assert weights == sorted(set(weights))
    assert functional.sigmoid_ramp_up(0, 0) == 1.0
    with pytest.raises(ValueError, match='length is -1 epochs'):
        functional.sigmoid_ramp_up(0, -1)


def test_peer_means_leave_the_learner_out():
    z = [random(5, 7, seed=i) for i in range(4)]
    for i, mean in enumerate(functional.peer_means(z)):
        assert torch.allclose(mean, (sum(z) - z[i]) / 3, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        functional.peer_means(z[:1])


def test_weighted_logits_and_their_precision_under_autocast():
    z, weights = [random(5, 7, seed=i).float() for i in range(3)], random(5, 3).float().softmax(1)
    expected = sum(weights[:, i : i + 1] * x for i, x in enumerate(z))
    with torch.autocast('cpu', torch.bfloat16):
        found = functional.weighted_logits(weights, z)
    assert found.dtype is torch.float32 and torch.allclose(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r'weights are \(5, 3\), expected \(batch, 2\)'):
        functional.weighted_logits(weights, z[:2])


def test_attended_logits_follow_the_keys_and_are_not_scaled():
    queries, keys, z = (
        [random(5, d, seed=s + i) for i in range(3)] for d, s in ((4, 0), (4, 5), (7, 9))
    )
    for query, found in zip(queries, functional.attended_logits(queries, keys, z), strict=True):
        for b in range(5):
            share = softmax([float(query[b] @ key[b]) for key in keys])
            expected = sum(s * x[b] for s, x in zip(share, z, strict=True))
            assert torch.allclose(found[b], expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match='3 queries, 2 keys and 3 logits'):
        functional.attended_logits(queries, keys[:2], z)


def losses_of(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, reduction='none')


STUDENTS = pytest.mark.parametrize('students', [2, 3, 4])
SCALES = pytest.mark.parametrize('scale', [0.01, 1.0, 5.0, 20.0])


def students_logits(students, scale=3.0, batch=40, classes=6):
    generator = torch.Generator().manual_seed(students)
    labels = torch.randint(classes, (batch,), generator=generator)
    return [random(batch, classes, seed=i, scale=scale) for i in range(students)], labels


@STUDENTS
@SCALES
def test_minlogit_target_is_no_worse_than_any_student(students, scale):
    z, labels = students_logits(students, scale)
    target = functional.minlogit_target(z, labels)
    assert (target.gather(1, labels[:, None]) == 0).all()
    for x in z:
        margins = x - x.gather(1, labels[:, None])
        assert (target <= margins).all()
        assert (losses_of(target, labels) <= losses_of(x, labels)).all()


@STUDENTS
def test_naive_target_is_the_best_student_of_each_sample(students):
    z, labels = students_logits(students)
    target = functional.naive_target(z, labels)
    losses = torch.stack([losses_of(x, labels) for x in z])
    assert len(losses.argmin(dim=0).unique()) == students
    assert torch.equal(losses_of(target, labels), losses.amin(dim=0))
    assert all(any(torch.equal(row, x[b]) for x in z) for b, row in enumerate(target))


@STUDENTS
@SCALES
@pytest.mark.parametrize('mixed', [False, True])
def test_linear_weights_are_on_the_simplex_and_scipy_finds_none_better(students, scale, mixed):
    z, labels = students_logits(students, scale)
    if mixed:
        labels = random(40, 6, seed=8).softmax(dim=1)
    weights = functional.linear_weights(z, labels)
    assert weights.shape == (40, students) and (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(40, dtype=torch.float64), atol=1e-12)

    target = functional.linear_target(z, labels)
    assert torch.allclose(target, functional.weighted_logits(weights, z))
    losses = losses_of(target, labels)
    assert all((losses <= losses_of(x, labels) + 1e-6).all() for x in z)
    for b in range(0, 40, 5):
        rows, label = torch.stack([x[b] for x in z]), labels[b]

        def loss(alpha, rows=rows, label=label):
            return losses_of((torch.tensor(alpha) @ rows)[None], label[None]).item()

        found = minimize(
            loss,
            np.full(students, 1 / students),
            method='SLSQP',
            bounds=[(0, 1)] * students,
            constraints=dict(type='eq', fun=lambda alpha: alpha.sum() - 1),
            options=dict(ftol=1e-12),
        )
        assert losses[b].item() <= found.fun + 1e-6


@SCALES
def test_linear_weights_of_two_students_against_a_dense_grid(scale):
    z, labels = students_logits(2, scale)
    share = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None]
    losses = losses_of(functional.linear_target(z, labels), labels)
    inside = 0
    for b in range(len(labels)):
        grid = losses_of(share * z[0][b] + (1 - share) * z[1][b], labels[b].expand(len(share)))
        assert losses[b] <= grid.min() + 1e-6
        assert losses[b] >= grid.min() - scale**2 * 1e-6  # the grid's own step
        inside += 0 < int(grid.argmin()) < 10_000
    assert inside > 10 or scale < 1  # small logits: the better student alone is best


def test_linear_weights_of_students_that_agree_are_equal():
    z, labels = students_logits(1)
    weights = functional.linear_weights(z * 3, labels)
    assert torch.allclose(weights, torch.full_like(weights, 1 / 3), rtol=0, atol=1e-6)


@STUDENTS
@pytest.mark.parametrize('mixed', [False, True])
def test_general_weights_sum_to_1_and_scipy_finds_none_better(students, mixed):
    z, labels = students_logits(students)
    scores = torch.nn.functional.one_hot(labels, 6).double()
    if mixed:
        labels = scores = random(40, 6, seed=8).softmax(dim=1)

    def error(weights):
        mixture = sum(w * x.softmax(dim=1) for w, x in zip(weights, z, strict=True))
        return (mixture - scores).pow(2).sum().item() / 40

    weights = functional.general_weights(z, labels)
    assert weights.shape == (students,) and abs(weights.sum().item() - 1) < 1e-10
    found = minimize(
        error,
        np.full(students, 1 / students),
        constraints=dict(type='eq', fun=lambda w: w.sum() - 1),
        options=dict(ftol=1e-14),
    )
    assert error(weights) <= found.fun + 1e-10
    np.testing.assert_allclose(weights, found.x, atol=1e-4)
    # and at its minimum: any other weights of sum 1 are worse
    for shift in np.random.default_rng(0).normal(size=(20, students)):
        assert error(weights) < error(weights.numpy() + 0.01 * (shift - shift.mean()))


def test_general_weights_of_students_that_agree_or_are_all_right_are_equal():
    z, labels = students_logits(1)
    right = [1e4 * torch.nn.functional.one_hot(labels, 6).double()]
    for same in (z, right):
        weights = functional.general_weights(same * 3, labels)
        assert torch.allclose(weights, torch.full_like(weights, 1 / 3), rtol=0, atol=1e-10)


def test_targets_refuse_or_take_mixed_labels():
    z, labels = students_logits(2)
    scores = torch.nn.functional.one_hot(labels, 6).double()
    for target in (functional.naive_target, functional.linear_target):
        assert torch.equal(target(z, labels), target(z, scores))
    with pytest.raises(ValueError, match=r'labels are \(40, 6\).*index of the one true class'):
        functional.minlogit_target(z, scores)


def test_no_gradient_goes_through_the_linear_weights():
    z, labels = students_logits(2)
    z = [x.requires_grad_() for x in z]
    weights = functional.linear_weights(z, labels)
    assert not weights.requires_grad
    (gradient,) = torch.autograd.grad(functional.linear_target(z, labels).sum(), z[0])
    assert torch.allclose(gradient, weights[:, :1].expand(-1, 6))


def test_supervised_contrast_image_by_image():
    s, labels = random(6, 6, seed=3), torch.tensor([0, 1, 0, 2, 1, 0])  # the 2 is alone
    expected = []
    for b in range(6):
        others = [a for a in range(6) if a != b]
        partners = [a for a in others if labels[a] == labels[b]]
        total = sum(s[b, a].exp() for a in others)
        if partners:
            expected.append(-sum((s[b, p].exp() / total).log() for p in partners) / len(partners))
    loss = functional.supervised_contrast(s, labels)
    assert len(expected) == 5 and abs(loss - sum(expected) / 5) < 1e-12


def test_supervised_contrast_of_one_image_is_0_and_teaches_nothing():
    similarity = torch.ones(1, 1, requires_grad=True)
    loss = functional.supervised_contrast(similarity, torch.tensor([2]))
    loss.backward()
    assert loss == 0 and similarity.grad == 0


def test_supervised_contrast_is_0_for_partners_alone_in_the_world_and_finite_without_any():
    labels = torch.tensor([0, 0, 1, 1])
    similar = 200.0 * (labels[:, None] == labels)
    assert functional.supervised_contrast(similar, labels) == 0
    s = random(4, 4).requires_grad_()
    loss = functional.supervised_contrast(s, torch.arange(4))
    loss.backward()
    assert loss == 0 and (s.grad == 0).all()


def test_contrast_refuses_mixed_labels():
    with pytest.raises(ValueError, match=r'labels are \(4, 6\).*train without mixup'):
        functional.supervised_contrast(random(4, 4), random(4, 6))


def test_similarities_are_not_taken_in_half_precision():
    a, b = random(5, 7).float(), random(6, 7, seed=1).float()
    expected = torch.nn.functional.cosine_similarity(a[:, None], b, dim=2)
    with torch.autocast('cpu', torch.bfloat16):
        found = functional.cosine_similarities(a, b)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
