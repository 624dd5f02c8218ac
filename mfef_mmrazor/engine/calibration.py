"""How far predictions can be trusted, and how far students differ: beside accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..models.data_samples import PredictedSamples, single_labels

BINS = 15
UNSCORED: list[float] = []  # not None: of several processes' results mmengine drops each None


class Calibration(BaseMetric):
    r"""Negative log-likelihood and expected calibration error of a predictor.

    .. math::
        \mathrm{NLL} = -\frac{1}{n}\sum_x \log p_y(x), \qquad
        \mathrm{ECE} = 100 \sum_{b=1}^{15} \frac{n_b}{n}
        \left|\mathrm{acc}_b - \mathrm{conf}_b\right|

    NLL is in nats. ECE is in percent, over 15 bins of equal width of the largest probability
    (Guo et al. 2017, https://arxiv.org/abs/1706.04599). Nothing is computed where images have
    several labels, or scores are no probabilities.

    Example:
        >>> import torch
        >>> metric = Calibration()
        >>> sample = dict(gt_label=torch.tensor([0]), pred_score=torch.tensor([0.5, 0.3, 0.2]))
        >>> metric.process({}, [sample, sample])
        >>> {name: round(value, 3) for name, value in metric.evaluate(2).items()}
        {'nll': 0.693, 'ece': 50.0}
    """

    def process(
        self, data_batch: Any, data_samples: PredictedSamples | Sequence[dict[str, Any]]
    ) -> None:
        """Take in one batch: of each image what is needed, three numbers or none."""
        if isinstance(data_samples, PredictedSamples):
            label = data_samples.labels
        else:
            label = single_labels(data_samples)
        scores = _probabilities(data_samples)
        if label is None or scores is None:
            self.results += [UNSCORED] * len(data_samples)
            return
        confidence, predicted = scores.max(dim=1)
        nll = -_log(scores.gather(1, label[:, None]))[:, 0]
        self.results += torch.stack([nll, confidence, (predicted == label).double()], 1).tolist()

    def compute_metrics(self, results: list[list[float]]) -> dict[str, float]:
        """``nll`` and ``ece`` over all images."""
        # not needed, with Matplotlib, before the first validation
        from torchmetrics.functional.classification import binary_calibration_error

        if UNSCORED in results:
            return {}
        nll, confidence, correct = torch.tensor(results, dtype=torch.float64).T.contiguous()
        # of the predicted class: right or not, a matter of two classes
        confidence = confidence.clamp(max=1 - 1e-12)  # torchmetrics puts 1.0 into a bin of its own
        ece = binary_calibration_error(confidence, correct.long(), n_bins=BINS, norm='l1')
        return dict(nll=float(nll.mean()), ece=100 * float(ece))


class Diversity(BaseMetric):
    r"""How much students differ: what an ensemble of them lives on.

    .. math::
        \frac{100}{m(m-1)} \sum_{i \ne j} P(\hat y_i \ne \hat y_j), \qquad
        \frac{1}{m(m-1)} \sum_{i \ne j} \mathrm{KL}(p_i \,\|\, p_j)

    ``students.disagreement``, the share of images that two students label differently, is in
    percent; ``students.kl`` in nats. Both are means over the pairs and the images.

    Example:
        >>> import torch
        >>> from mmpretrain.structures import DataSample
        >>> metric = Diversity()
        >>> a, b = torch.tensor([0.8, 0.2]), torch.tensor([0.2, 0.8])
        >>> metric.process({}, dict(
        ...     student0=[DataSample(pred_score=a)] * 2,
        ...     student1=[DataSample(pred_score=a), DataSample(pred_score=b)]))
        >>> {name: round(value, 3) for name, value in metric.evaluate(2).items()}
        {'students.disagreement': 50.0, 'students.kl': 0.416}
    """

    def process(
        self, data_batch: Any, data_samples: Mapping[str, Sequence[BaseDataElement]]
    ) -> None:
        """Take in one batch of predictions of every predictor."""
        students = [samples for name, samples in data_samples.items() if name.startswith('student')]
        found = [_probabilities(samples) for samples in students]
        if len(students) < 2 or any(p is None for p in found):
            self.results += [UNSCORED] * len(students[0])
            return
        scores = torch.stack([p for p in found if p is not None])  # (m, B, K)
        pairs = len(students) * (len(students) - 1)
        labels, logs = scores.argmax(dim=-1), _log(scores)
        unlike = (labels[:, None] != labels[None]).sum(dim=(0, 1)) / pairs
        # the sum over all pairs, 0 for i = j, without an (m, m, B, K)
        own = len(students) * (scores * logs).sum(dim=(0, 2))
        kl = own - (scores.sum(dim=0) * logs.sum(dim=0)).sum(dim=1)
        self.results += torch.stack([unlike, kl.clamp_min(0) / pairs], dim=1).tolist()

    def compute_metrics(self, results: list[list[float]]) -> dict[str, float]:
        """Means over all images."""
        if UNSCORED in results:
            return {}
        unlike, kl = torch.tensor(results, dtype=torch.float64).mean(dim=0).tolist()
        return {'students.disagreement': 100 * unlike, 'students.kl': kl}


def _probabilities(samples: Sequence[Any]) -> Tensor | None:
    """Scores (B, K) of samples; None unless they are of classes that exclude each other."""
    if isinstance(samples, PredictedSamples):
        scores = samples.scores.double()
    elif all('pred_score' in sample for sample in samples):
        scores = torch.stack([sample.get('pred_score') for sample in samples]).cpu().double()
    else:
        return None
    return scores if bool(((scores.sum(dim=-1) - 1).abs() < 1e-2).all()) else None


def _log(probabilities: Tensor) -> Tensor:
    """Logarithm of what was stored as a float32, in which a small probability is 0."""
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
