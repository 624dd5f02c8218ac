import pytest
import torch
from mmpretrain.models import LinearClsHead, MultiLabelLinearClsHead
from mmpretrain.structures import DataSample

from mfef_mmrazor.models.data_samples import copied, labels_of, pack_predictions, targets


def test_targets_are_what_the_heads_make_of_the_samples():
    classes = [DataSample().set_gt_label(y) for y in (2, 0)]
    assert targets(classes).tolist() == [2, 0]
    scores = [DataSample().set_gt_score(torch.tensor(y)) for y in ([0.5, 0.5], [1.0, 0.0])]
    assert targets(scores).tolist() == [[0.5, 0.5], [1.0, 0.0]]
    labels = [DataSample().set_gt_label(y) for y in ([0, 2], [])]
    assert targets(labels, multi_label=3).tolist() == [[1, 0, 1], [0, 0, 0]]
    whole = [DataSample().set_gt_score(torch.tensor([1, 0]))]
    for multi_label in (2, None):
        assert targets(whole, multi_label).dtype is torch.float32


@pytest.mark.parametrize(
    'head',
    [
        LinearClsHead(num_classes=4, in_channels=4),
        MultiLabelLinearClsHead(num_classes=4, in_channels=4, thr=0.3),
        MultiLabelLinearClsHead(num_classes=4, in_channels=4, topk=2),
    ],
)
def test_predictions_are_those_of_the_head_and_the_samples_stay(head):
    features = (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),)
    samples = [DataSample().set_gt_label(1) for _ in range(5)]
    for given in (samples, None):
        found = pack_predictions(head(features).detach(), given, head)
        for mine, own in zip(found, head.predict(features), strict=True):
            assert torch.equal(mine.pred_score, own.pred_score)
            assert torch.equal(mine.pred_label, own.pred_label)
            assert torch.equal(labels_of(mine.pred_score, head).reshape(-1), own.pred_label)
    assert not any('pred_score' in sample for sample in samples)


def test_without_a_head_it_is_a_softmax():
    (sample,) = pack_predictions(torch.tensor([[0.0, 2.0]]), None)
    assert sample.pred_label.tolist() == [1]
    assert sample.pred_score.tolist() == pytest.approx([0.1192, 0.8808], abs=1e-4)


def test_a_copy_has_the_fields_of_the_sample_and_its_own_list_of_them():
    sample = DataSample(metainfo={'img_path': 'a.png'}).set_gt_label(1)
    other = copied(sample)
    assert type(other) is DataSample
    assert other.metainfo == sample.metainfo
    assert dict(other.items()) == dict(sample.items())
    other.set_pred_label(2)
    other.set_field((8, 8), 'img_shape', field_type='metainfo')
    del other.gt_label
    assert sample.keys() == ['gt_label']
    assert sample.metainfo_keys() == ['img_path']
