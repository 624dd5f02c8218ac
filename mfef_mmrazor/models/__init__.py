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
from .distillers import (
    CLILRDistiller,
    DMLDistiller,
    FFLDistiller,
    IndependentDistiller,
    KDCLDistiller,
    MFEFDistiller,
    OKDDipDistiller,
    ONEDistiller,
    OnlineDistiller,
)
from .losses import AttentionMapLoss, EnsembleKLDivergence, MutualKLDivergence

__all__ = [
    'AttentionMapLoss',
    'CLILRDistiller',
    'CifarDenseNet',
    'CifarMobileNetV2',
    'CifarResNet',
    'CifarShuffleNetV1',
    'CifarShuffleNetV2',
    'CifarVGG',
    'DANetConnector',
    'DMLDistiller',
    'DualAttentionConnector',
    'EnsembleKLDivergence',
    'FFLDistiller',
    'FeatureFusionConnector',
    'GlobalMaxPooling',
    'IndependentDistiller',
    'KDCLDistiller',
    'MFEFDistiller',
    'MapAdapter',
    'MultiScaleConnector',
    'MutualKLDivergence',
    'OKDDipDistiller',
    'ONEDistiller',
    'OnlineDistill',
    'OnlineDistiller',
    'WideResNet',
]
