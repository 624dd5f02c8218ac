from .auxiliary_classifier import AuxiliaryClassifier
from .dual_attention import DANetConnector, DualAttentionConnector
from .feature_fusion import FeatureFusionConnector
from .map_adapter import MapAdapter
from .multi_scale import MultiScaleConnector

__all__ = [
    'AuxiliaryClassifier',
    'DANetConnector',
    'DualAttentionConnector',
    'FeatureFusionConnector',
    'MapAdapter',
    'MultiScaleConnector',
]
