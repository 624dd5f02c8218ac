"""A student small enough to be recomputed by hand."""

import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from reference import LABELS
from torch import nn

SAMPLES = [DataSample().set_gt_label(int(label)) for label in LABELS]


class Tiny(BaseModel):
    """A convolution, batch norm, pooling and a classifier."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(self.backbone(inputs).mean(dim=(2, 3)))
        if mode == 'tensor':
            return logits
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=nn.functional.cross_entropy(logits, labels))


def views(number, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LABELS), 3, 6, 6)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(number)]


def by_hand(weights, view):
    """Logits of a tiny student in training mode."""
    x = nn.functional.conv2d(view, weights['backbone.0.weight'], weights['backbone.0.bias'])
    x = x - x.mean(dim=(0, 2, 3), keepdim=True)
    x = x / (x.pow(2).mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()
    x = x * weights['backbone.1.weight'][:, None, None] + weights['backbone.1.bias'][:, None, None]
    return x.mean(dim=(2, 3)) @ weights['head.weight'].T + weights['head.bias']
