import pytest
import torch
from torch import nn

from mfef_mmrazor.models import AuxiliaryClassifier


@pytest.mark.parametrize('stages, blocks', [(1, 1), (2, 1), (2, 3), (0, 1)])
def test_every_stage_halves_the_map_and_doubles_the_channels(stages, blocks):
    classifier = AuxiliaryClassifier(8, 5, stages, blocks)
    seen = []
    for stage in classifier.stages:
        stage.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape)))
        assert len(stage) == blocks
    assert classifier(torch.rand(2, 8, 16, 16)).shape == (2, 5)
    assert seen == [(2, 8 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(1, stages + 1)]
    assert classifier.fc.in_features == 8 * 2**stages


def test_it_starts_like_a_resnet_and_leaves_its_input_alone():
    torch.manual_seed(0)
    classifier = AuxiliaryClassifier(16, 10, 2)
    classifier.init_weights()
    convolutions = [m for m in classifier.modules() if isinstance(m, nn.Conv2d)]
    for conv in convolutions:  # Kaiming, over the outputs
        expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)
    x = torch.randn(2, 16, 8, 8)
    before = x.clone()
    classifier(x)
    assert torch.equal(x, before)
