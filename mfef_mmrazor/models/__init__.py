from .algorithms import OnlineDistill
from .backbones import (
    CifarDenseNet,
    CifarMobileNetV2,
    CifarResNet,
    CifarShuffleNetV1,
    CifarShuffleNetV2,
    CifarVGG,
    GlobalMaxPooling,
    WideResNet,
)
from .connectors import (
    DANetConnector,
    DualAttentionConnector,
    FeatureFusionConnector,
    MapAdapter,
    MultiScaleConnector,
)
from .distillers import MFEFDistiller, OnlineDistiller
from .losses import AttentionMapLoss, EnsembleKLDivergence, MutualKLDivergence

__all__ = [
    'AttentionMapLoss',
    'CifarDenseNet',
    'CifarMobileNetV2',
    'CifarResNet',
    'CifarShuffleNetV1',
    'CifarShuffleNetV2',
    'CifarVGG',
    'DANetConnector',
    'DualAttentionConnector',
    'EnsembleKLDivergence',
    'FeatureFusionConnector',
    'GlobalMaxPooling',
    'MFEFDistiller',
    'MapAdapter',
    'MultiScaleConnector',
    'MutualKLDivergence',
    'OnlineDistill',
    'OnlineDistiller',
    'WideResNet',
]
