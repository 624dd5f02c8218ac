"""The predictions that are written are those that were scored."""

import csv
import json
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.fileio import load
from mmpretrain.structures import DataSample

from mfef_mmrazor.engine.loops import PredictorsEvaluator
from mfef_mmrazor.engine.predictions import check_suffix, keep_predictions, write_predictions

SCORES = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2]])


def samples(scores):
    found = []
    for i, score in enumerate(scores):
        sample = DataSample().set_gt_label(i).set_pred_score(score).set_pred_label(score.argmax())
        sample.set_field(f'{i}.png', 'img_path', field_type='metainfo')
        found.append(sample)
    return found


def written(path, evaluator, predictions):
    keep_predictions(evaluator, path)
    if isinstance(evaluator, PredictorsEvaluator):
        evaluator.process(predictions, data_batch={})
    else:
        evaluator.process(predictions)
    evaluator.evaluate(2)
    write_predictions(evaluator, path)


def accuracy():
    return Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))])


def test_a_table_has_a_row_per_image_and_two_columns_per_predictor(tmp_path):
    both = dict(student0=samples(SCORES), fused=samples(SCORES.flip(1)))
    written(tmp_path / 'a.csv', PredictorsEvaluator(accuracy()), both)
    with open(tmp_path / 'a.csv', newline='') as file:
        rows = list(csv.reader(file))
    assert rows == [
        ['image', 'label', 'student0', 'student0.score', 'fused', 'fused.score'],
        ['0.png', '0', '1', '0.700000', '1', '0.700000'],
        ['1.png', '1', '0', '0.500000', '2', '0.500000'],
    ]


def test_json_has_every_score_also_of_a_network_alone(tmp_path):
    written(tmp_path / 'a.json', accuracy(), samples(SCORES))
    first, second = json.loads((tmp_path / 'a.json').read_text())
    assert first['image'] == '0.png' and second['label'] == [1]
    assert first['model']['predicted'] == [1]
    assert first['model']['scores'] == pytest.approx([0.2, 0.7, 0.1])


def test_several_labels_share_a_cell(tmp_path):
    (sample,) = samples(SCORES[:1])
    sample.set_gt_label([0, 2]).set_pred_label([0, 1])
    evaluator = Evaluator([])
    keep_predictions(evaluator, tmp_path / 'a.csv')
    evaluator.process([sample])
    evaluator.evaluate(1)
    write_predictions(evaluator, tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_text().splitlines()[1] == '0.png,0 2,0 1,0.200000 0.700000'


def test_images_without_labels_are_predicted_as_well(tmp_path):
    found = samples(SCORES)
    for sample in found:
        del sample.gt_label
    evaluator = Evaluator([])
    written(tmp_path / 'a.csv', evaluator, found)
    assert (tmp_path / 'a.csv').read_text().splitlines()[1] == '0.png,,1,0.700000'


def test_where_nothing_is_kept_as_in_other_processes_nothing_is_written(tmp_path):
    evaluator = accuracy()
    keep_predictions(evaluator, tmp_path / 'a.csv')
    write_predictions(evaluator, tmp_path / 'a.csv')
    assert not list(tmp_path.iterdir())


def test_pickles_are_those_that_mmpretrains_tools_read(tmp_path):
    written(tmp_path / 'a.pkl', PredictorsEvaluator(accuracy()), dict(student0=samples(SCORES)))
    assert [each['pred_label'].item() for each in load(tmp_path / 'a.pkl')] == [1, 0]


def test_an_unknown_kind_of_file():
    with pytest.raises(ValueError, match=r"a.txt'.*\.csv, \.json, \.pkl"):
        check_suffix(Path('a.txt'))
