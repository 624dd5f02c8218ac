from .online_losses import (
    AttentionMapLoss,
    DiversityLoss,
    EnsembleKLDivergence,
    MutualKLDivergence,
    WholeMapLoss,
)

__all__ = [
    'AttentionMapLoss',
    'DiversityLoss',
    'EnsembleKLDivergence',
    'MutualKLDivergence',
    'WholeMapLoss',
]
