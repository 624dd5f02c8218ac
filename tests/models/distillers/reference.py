"""Plain formulas and a comparison for the tests of the methods; nothing of the package is used."""

import torch

W40 = 0.2865047968601901  # exp(-5 / 4), the ramp-up of 80 epochs at epoch 40
LABELS = torch.tensor([0, 3, 1, 4, 2])


def records(students, channels=16, size=6, classes=5, seed=1):
    """Leaves in float64, as if the students' networks ended there."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    channels = [channels] * students if isinstance(channels, int) else channels
    return dict(
        logits=[leaf(len(LABELS), classes) for _ in range(students)],
        feature=[leaf(len(LABELS), c, size, size) for c in channels],
    )


def kd(teacher, student, tau):
    """What a constant teacher teaches, term by term."""
    return kd_with_gradient(teacher.detach(), student, tau)


def kd_with_gradient(teacher, student, tau):
    p, q = (teacher / tau).exp(), (student / tau).exp()
    p, q = p / p.sum(dim=1, keepdim=True), q / q.sum(dim=1, keepdim=True)
    return tau**2 * (p * (p.log() - q.log())).sum() / len(p)


def cross_entropy(logits, labels=LABELS):
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -sum(row[label].log() for row, label in zip(p, labels, strict=True)) / len(p)


def batch_norm(x, norm):
    """In training mode."""
    centred = x - x.mean(dim=(0, 2, 3), keepdim=True)
    x = centred / (centred.pow(2).mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def separable(module, x):
    """Depthwise 3x3 as nine shifts and pointwise 1x1 as a sum over channels."""
    depthwise, pointwise = module.depthwise_conv, module.pointwise_conv
    height, width = x.shape[2:]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    x = sum(
        padded[:, :, i : i + height, j : j + width] * depthwise.conv.weight[:, 0, i, j, None, None]
        for i in range(3)
        for j in range(3)
    )
    x = batch_norm(x, depthwise.bn).clamp(min=0)
    x = torch.einsum('oc,bchw->bohw', pointwise.conv.weight[:, :, 0, 0], x)
    return batch_norm(x, pointwise.bn).clamp(min=0)


def assert_same(losses, expected, distiller, caught):
    """Each term's value, and its gradient at every leaf and parameter, are the expected ones."""
    inputs = {f'{name}{i}': x for name, xs in caught.items() for i, x in enumerate(xs)}
    inputs.update(distiller.named_parameters())
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        assert value.dtype is torch.float64 and value > 1e-3
        assert abs(value.item() - expected[term].item()) < 1e-10, term
        ours, theirs = (gradients(x, inputs) for x in (value, expected[term]))
        for name in inputs:
            assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-10), (term, name)


def gradients(value, inputs):
    """Gradient by name; zeros where there is none."""
    found = torch.autograd.grad(value, list(inputs.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(x) if g is None else g
        for (name, x), g in zip(inputs.items(), found, strict=True)
    }
