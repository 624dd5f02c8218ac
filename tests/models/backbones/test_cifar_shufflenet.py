import pytest
from counting import check_backbone, check_sizes
from mmpretrain.models import ShuffleNetV1, ShuffleNetV2

from mfef_mmrazor.models import CifarShuffleNetV1, CifarShuffleNetV2

SIZES = [
    ('shufflenet-v2-x0.5', '0.35', '0.44', '11.0'),  # as chenyaofo's README rounds them
    ('shufflenet-v2-x0.5', 352_042, 444_292, '10.99'),
    ('shufflenet-v2-x1.0', '1.26', '1.36', '45.1'),
    ('shufflenet-v2-x1.0', 1_263_854, 1_356_104, '45.09'),
    ('shufflenet-v1', 914_338, '1.0', '42.68'),  # weiaicunzai's README
    ('shufflenet-v1', 914_338, 1_000_828, '42.68'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


def test_maps_and_gradients():
    network = CifarShuffleNetV1(out_indices=(0, 1, 2))
    check_backbone(network, (240, 16, 16), (480, 8, 8), (960, 4, 4))
    network = CifarShuffleNetV2(0.5, out_indices=(0, 1, 2, 3))
    check_backbone(network, (48, 16, 16), (96, 8, 8), (192, 4, 4), (1024, 4, 4))


@pytest.mark.parametrize(
    'ours, theirs', [(CifarShuffleNetV1, ShuffleNetV1), (CifarShuffleNetV2, ShuffleNetV2)]
)
def test_weights_are_those_of_mmpretrain(ours, theirs):
    assert {k: v.shape for k, v in ours().state_dict().items()} == {
        k: v.shape for k, v in theirs().state_dict().items()
    }


def test_wrong_arguments():
    with pytest.raises(ValueError, match='5 groups is not supported'):
        CifarShuffleNetV1(groups=5)
    with pytest.raises(ValueError, match=r'widen_factor must be in \[0.5, 1.0, 1.5, 2.0\]'):
        CifarShuffleNetV2(0.7)
