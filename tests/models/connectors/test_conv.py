import torch

from mfef_mmrazor.models.connectors.conv import conv_block


def test_what_batch_norm_gives_is_not_overwritten_by_the_relu_after_it():
    torch.manual_seed(0)
    block, seen = conv_block(3, 4, 1), []
    block.bn.register_forward_hook(lambda module, args, out: seen.append(out))
    out = block(torch.randn(2, 3, 5, 5))
    assert (seen[0] < 0).any() and torch.equal(out, seen[0].clamp(min=0))
