import pytest
import torch
from mmpretrain.models import ConformerHead, DeiTClsHead
from mmpretrain.registry import MODELS
from torch import nn

from mfef_mmrazor.models import FeatureMapRecorder, LogitsRecorder

SMALL = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
STAGES = dict(depths=[1] * 4, channels=[8, 16, 24, 32])


def recorded(module, recorder, *inputs):
    recorder.initialize(nn.ModuleDict({recorder.source: module}))
    with recorder:
        output = module(*inputs)
    return output, recorder.get_record_data()


def images(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def backbone(**cfg):
    torch.manual_seed(0)
    module = MODELS.build(cfg)
    module.eval()
    return module


@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap', 'raw'])
@pytest.mark.parametrize('kind', ['VisionTransformer', 'DistilledVisionTransformer', 'BEiTViT'])
def test_tokens_are_the_map_that_the_transformer_itself_makes_of_them(kind, out_type):
    cfg = dict(type=kind, arch=SMALL, img_size=(32, 16), patch_size=8)
    net, as_map = backbone(**cfg, out_type=out_type), backbone(**cfg, out_type='featmap')
    as_map.load_state_dict(net.state_dict(), strict=False)
    x = images(32, 16)
    output, feature = recorded(net, FeatureMapRecorder('backbone'), x)
    assert feature.shape == (2, 16, 4, 2)
    assert torch.equal(feature, as_map(x)[-1])
    # the network does what it did without the recorder, in this pass and after it
    again = net(x)
    assert torch.equal(*(z[-1][0] if isinstance(z[-1], tuple) else z[-1] for z in (output, again)))
    assert '_format_output' not in vars(net)


@pytest.mark.parametrize('kind', ['ConvNeXt', 'HorNet', 'EdgeNeXt'])
def test_a_backbone_that_pools_gives_the_map_it_pooled(kind):
    arch = {
        'ConvNeXt': STAGES,
        'HorNet': 'tiny',
        'EdgeNeXt': 'xxsmall',
    }[kind]
    net = backbone(type=kind, arch=arch)
    size = 64
    recorder = FeatureMapRecorder('backbone')
    output, feature = recorded(net, recorder, images(size, size))
    pooled = feature.mean(dim=(2, 3), keepdim=True)
    norm = net.norm3
    expected = norm(pooled.flatten(1)) if kind == 'EdgeNeXt' else norm(pooled).flatten(1)
    torch.testing.assert_close(expected, output[-1])
    assert recorder.note.startswith(
        f'{kind} gives (2, {pooled.shape[1]}); its 4 pixels of the last'
    )


def test_places_in_a_row_become_a_square():
    net = backbone(type='MlpMixer', arch=dict(
        embed_dims=16, num_layers=1, tokens_mlp_dims=8, channels_mlp_dims=8), img_size=32,
        patch_size=8)  # fmt: skip
    output, feature = recorded(net, FeatureMapRecorder('backbone'), images())
    assert output[-1].shape == (2, 16, 16) and feature.shape == (2, 16, 4, 4)
    assert torch.equal(feature.flatten(2), output[-1])


def test_what_is_a_map_or_cannot_become_one_is_recorded_as_it_is():
    net = nn.Conv2d(3, 4, 3)
    recorder = FeatureMapRecorder('backbone')
    output, feature = recorded(net, recorder, images())
    assert feature is output and recorder.note == ''
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    output, feature = recorded(flat, FeatureMapRecorder('backbone'), images())
    assert feature is output


def test_logits_are_combined_as_the_head_predicts():
    torch.manual_seed(0)
    conformer = ConformerHead(num_classes=3, in_channels=[4, 5])
    features = [[torch.randn(2, 4), torch.randn(2, 5)]]
    _, logits = recorded(conformer, LogitsRecorder('head'), features)
    expected = torch.stack([sample.pred_score for sample in conformer.predict(features)])
    assert logits.shape == (2, 3) and torch.equal(logits.softmax(dim=1), expected)

    deit = DeiTClsHead(num_classes=3, in_channels=4)
    nn.init.normal_(deit.layers.head.weight)
    features = [[torch.randn(2, 4), torch.randn(2, 4)]]
    _, logits = recorded(deit, LogitsRecorder('head'), features)
    expected = torch.stack([sample.pred_score for sample in deit.predict(features)])
    assert torch.equal(logits.softmax(dim=1), expected)
