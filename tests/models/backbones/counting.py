"""What the tests of all backbones check, counted without the package's own counter."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

CONFIGS = Path(__file__).parents[3] / 'configs/_base_/models'


def student(name, num_classes=10):
    cfg = Config.fromfile(CONFIGS / f'{name}.py').student
    cfg.head.num_classes = num_classes
    return MODELS.build(dict(cfg, _scope_='mmpretrain'))


def multiply_adds(network, size):
    """Of all convolutions and linear layers, for one image."""
    counts = []

    def count(layer, inputs, output):
        if isinstance(layer, nn.Conv2d):
            one_output = layer.in_channels // layer.groups * layer.kernel_size[0] ** 2
        else:
            one_output = layer.in_features
        counts.append(output.numel() * one_output)

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    network.eval()
    with torch.no_grad():
        network(torch.rand(1, 3, size, size))
    return sum(counts)


def agrees(count, published):
    """A published figure is exact, or a string such as '2.24', in millions, with its precision."""
    if isinstance(published, int):
        return count == published
    return f'{count / 1e6:.{len(published.partition(".")[2])}f}' == published


def check_sizes(name, of_10, of_100, macs):
    """Parameters with 10 and with 100 classes, multiply-adds with 100 on a 32x32 image."""
    for num_classes, parameters in ((10, of_10), (100, of_100)):
        network = student(f'{name}_cifar', num_classes)
        assert agrees(sum(p.numel() for p in network.parameters()), parameters)
    assert agrees(multiply_adds(network, 32), macs)


def check_backbone(backbone, *shapes):
    """All maps have these shapes and are not written to; all gradients are there and finite."""
    written = []
    for module in backbone.modules():
        module.register_forward_hook(
            lambda module, inputs, output: (
                written.append((output, output.detach().clone()))
                if isinstance(output, torch.Tensor)
                else None
            )
        )
    backbone.init_weights()
    backbone.train()
    images = torch.randn(4, 3, 32, 32)
    before = images.clone()
    maps = backbone(images)
    assert isinstance(maps, tuple)
    assert [tuple(x.shape[1:]) for x in maps] == list(shapes)
    assert all((x >= 0).all() for x in maps[-1:]), 'the last map is not activated'
    sum((x * torch.randn_like(x)).mean() for x in maps).backward()
    assert torch.equal(images, before)
    for x in maps:
        # the last module that gave this tensor: an in-place ReLU gives its input
        copies = [copy for output, copy in written if output is x]
        assert not copies or torch.equal(x, copies[-1])
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
