"""The maths of online distillation: pure functions on tensors, no registry, no state.

Symbols, here and in every method: ``B`` batch size, ``K`` classes, ``m`` students, ``z`` logits of
shape (B, K), ``T`` or ``tau`` the temperature, ``sg`` stop-gradient (detach).
"""

from .contrast import cosine_similarities, supervised_contrast
from .divergences import (
    bernoulli_kd_loss,
    distillation_gap,
    is_expert,
    kd_loss,
    mutual_kd_loss,
    mutual_loss,
    standardized,
)
from .ensembles import attended_logits, ensemble_logits, peer_means, weighted_logits
from .kdcl import general_weights, linear_target, linear_weights, minlogit_target, naive_target
from .maps import (
    attention_map,
    attention_map_loss,
    diversity_loss,
    map_kd_loss,
    resize,
    shifted_attention,
    shifted_map,
    smallest_size,
    whole_map_loss,
)
from .schedule import sigmoid_ramp_up

__all__ = [
    'attended_logits',
    'attention_map',
    'attention_map_loss',
    'bernoulli_kd_loss',
    'cosine_similarities',
    'distillation_gap',
    'diversity_loss',
    'ensemble_logits',
    'general_weights',
    'is_expert',
    'kd_loss',
    'linear_target',
    'linear_weights',
    'map_kd_loss',
    'minlogit_target',
    'mutual_kd_loss',
    'mutual_loss',
    'naive_target',
    'peer_means',
    'resize',
    'shifted_attention',
    'shifted_map',
    'sigmoid_ramp_up',
    'smallest_size',
    'standardized',
    'supervised_contrast',
    'weighted_logits',
    'whole_map_loss',
]
