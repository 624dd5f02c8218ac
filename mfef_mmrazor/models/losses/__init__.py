from .online_losses import AttentionMapLoss, EnsembleKLDivergence, MutualKLDivergence

__all__ = ['AttentionMapLoss', 'EnsembleKLDivergence', 'MutualKLDivergence']
