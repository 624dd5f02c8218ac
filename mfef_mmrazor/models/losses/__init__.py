from .logit_losses import StandardizedKLDivergence
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
    'DiversityLoss',
    'EnsembleKLDivergence',
    'MapKLDivergence',
    'MutualKLDivergence',
    'StandardizedKLDivergence',
    'WholeMapLoss',
]
