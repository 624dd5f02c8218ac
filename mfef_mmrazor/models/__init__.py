from .algorithms import OnlineDistill
from .backbones import CifarResNet
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
    'CifarResNet',
    'DANetConnector',
    'DualAttentionConnector',
    'EnsembleKLDivergence',
    'FeatureFusionConnector',
    'MFEFDistiller',
    'MapAdapter',
    'MultiScaleConnector',
    'MutualKLDivergence',
    'OnlineDistill',
    'OnlineDistiller',
]
