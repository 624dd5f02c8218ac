from .algorithms import OnlineDistill
from .backbones import CifarResNet
from .connectors import (
    DANetConnector,
    DualAttentionConnector,
    FeatureFusionConnector,
    MapAdapter,
    MultiScaleConnector,
)
from .distillers import (
    CLILRDistiller,
    ConfigurableOnlineDistiller,
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
    'CifarResNet',
    'ConfigurableOnlineDistiller',
    'DANetConnector',
    'DMLDistiller',
    'DualAttentionConnector',
    'EnsembleKLDivergence',
    'FFLDistiller',
    'FeatureFusionConnector',
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
]
