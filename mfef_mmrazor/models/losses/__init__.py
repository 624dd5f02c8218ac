from .logit_losses import BernoulliKLDivergence, StandardizedKLDivergence
from .online_losses import (
    AttentionMapLoss,
    DiversityLoss,
    EnsembleKLDivergence,
    MapKLDivergence,
    MutualKLDivergence,
    WholeMapLoss,
)

__all__ = [
    'AttentionMapLoss',
    'BernoulliKLDivergence',
    'DiversityLoss',
    'EnsembleKLDivergence',
    'MapKLDivergence',
    'MutualKLDivergence',
    'StandardizedKLDivergence',
    'WholeMapLoss',
]
