import pytest
import torch

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


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
