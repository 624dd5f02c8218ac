import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.fileio import load
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from mmpretrain.models import AverageClsScoreTTA
from mmpretrain.structures import DataSample
from mmrazor.registry import HOOKS
from processes import in_processes

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.calibration import Calibration
from mfef_mmrazor.engine.loops import PredictorsEvaluator, collected_as, predict_all
from mfef_mmrazor.models import OnlineDistill


def samples(predicted, labels):
    return [
        DataSample().set_gt_label(y).set_pred_label(p).set_pred_score(torch.eye(3)[p])
        for p, y in zip(predicted, labels, strict=True)
    ]


def test_every_predictor_is_scored_on_its_own_predictions():
    evaluator = PredictorsEvaluator(Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))]))
    evaluator.process(
        dict(student0=samples([0, 1], [0, 1]), student1=samples([0, 0], [0, 1])), data_batch={}
    )
    evaluator.process(dict(student0=samples([2], [0]), student1=samples([2], [2])), data_batch={})
    metrics = evaluator.evaluate(3)
    assert metrics == {
        'accuracy/top1': pytest.approx(200 / 3),
        'student0.accuracy/top1': pytest.approx(200 / 3),
        'student1.accuracy/top1': pytest.approx(200 / 3),
    }
    # a second epoch starts from nothing
    evaluator.process(dict(student0=samples([0], [0]), student1=samples([0], [1])), data_batch={})
    assert evaluator.evaluate(1)['student1.accuracy/top1'] == 0


def test_what_is_added_is_collected_as_the_rest():
    evaluator = Evaluator(dict(type='mmpretrain.Accuracy', collect_device='gpu'))
    assert collected_as(PredictorsEvaluator(evaluator)) == dict(
        collect_device='gpu', collect_dir=None
    )
    assert collected_as(Evaluator([])) == {}


def test_the_plain_names_come_first_for_save_best_auto():
    evaluator = PredictorsEvaluator(Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))]))
    evaluator.process(dict(student0=samples([0], [0]), ensemble=samples([1], [0])), data_batch={})
    metrics = evaluator.evaluate(1)
    assert next(iter(metrics)) == 'accuracy/top1'
    assert metrics['accuracy/top1'] == 100 and metrics['ensemble.accuracy/top1'] == 0


def test_predictions_of_every_predictor_are_dumped_beside_student0s(tmp_path):
    evaluator = PredictorsEvaluator(Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))]))
    # as mmpretrain's test.py --out does
    evaluator.metrics.append(DumpResults(str(tmp_path / 'pred.pkl')))
    evaluator.process(dict(student0=samples([0], [2]), fused=samples([1], [2])), data_batch={})
    evaluator.evaluate(1)
    for name, label in (('pred.pkl', 0), ('pred.fused.pkl', 1)):
        (found,) = load(tmp_path / name)
        assert found['pred_label'].tolist() == [label] and found['gt_label'].tolist() == [2]
    assert len(list(tmp_path.iterdir())) == 2


def test_scores_of_several_views_are_averaged():
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='CifarResNet', depth=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=64),
    )
    mfef = dict(type='MFEFDistiller', in_channels=64, num_classes=4)
    model = OnlineDistill([student] * 2, mfef, dict(mean=[8.0] * 3, std=[5.0] * 3)).eval()
    images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    labels = [DataSample().set_gt_label(i) for i in range(3)]
    views = [list(images), list(images.flip(-1))]
    merged = predict_all(AverageClsScoreTTA(model), dict(inputs=views, data_samples=[labels] * 2))
    each = [model.predict_all((view.float() - 8) / 5) for view in (images, images.flip(-1))]
    assert merged.keys() == each[0].keys() and 'fused' in merged
    for name, found in merged.items():
        for i, sample in enumerate(found):
            expected = (each[0][name][i].pred_score + each[1][name][i].pred_score) / 2
            torch.testing.assert_close(sample.pred_score, expected)
            assert sample.pred_label.item() == expected.argmax() and sample.gt_label.item() == i


CONFIG = Path(__file__).parents[2] / 'configs/dml/dml_resnet8-x2_1xb32-20e_digits.py'
ALONE = Path(__file__).parents[2] / 'configs/baseline/alone_resnet20_1xb32-20e_digits.py'


SMALL_VAL = {f'{stage}_dataloader.dataset.indices': 20 for stage in ('val', 'test')}


def train_and_keep_the_buffers(work_dir):
    """Train in one of several processes; the first batch-norm statistics, after the validation."""
    small = {
        'train_cfg.max_epochs': 2,
        'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 10,
        'train_dataloader.dataset.train_per_class': 20,
        **SMALL_VAL,
    }
    runner = train(load_config(CONFIG, work_dir, small, launcher='pytorch'))
    mean = runner.model.module.architecture.backbone.bn1.running_mean
    torch.save(mean, work_dir / f'mean{runner.rank}.pt')
    runner.model.module.architecture.backbone.bn1.register_forward_hook(
        lambda norm, *_: torch.save(norm.running_mean, work_dir / f'tested{runner.rank}.pt')
    )
    runner.test()
    assert torch.equal(mean, torch.load(work_dir / f'mean{runner.rank}.pt'))


@HOOKS.register_module()
class NoteStatisticsHook(Hook):
    """Keeps the batch-norm statistics with which each process scores."""

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model.module
        mean = getattr(model, 'architecture', model).backbone.bn1.running_mean
        torch.save(mean, Path(runner.work_dir, f'scored{runner.rank}.pt'))


def train_with_averaged_statistics(work_dir):
    """Train in one of several processes, with averages of the statistics of each."""
    small = {
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 10,
        'train_dataloader.dataset.train_per_class': 4,
        'val_dataloader.dataset.indices': 20,
    }
    cfg = load_config(CONFIG, work_dir, small, launcher='pytorch')
    cfg.custom_hooks += [
        dict(type='EMAHook', update_buffers=True), dict(type='mmrazor.NoteStatisticsHook')
    ]  # fmt: skip
    runner = train(cfg)
    (averaging,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    own = averaging.ema_model.module.architecture.backbone.bn1.running_mean
    torch.save(own, work_dir / f'mean{runner.rank}.pt')


def train_one_network(work_dir):
    small = {
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 10,
        'train_dataloader.dataset.train_per_class': 4,
        'val_dataloader.dataset.indices': 20,
    }
    cfg = load_config(ALONE, work_dir, small, launcher='pytorch')
    cfg.custom_hooks.append(dict(type='mmrazor.NoteStatisticsHook'))
    runner = train(cfg)
    torch.save(runner.model.module.backbone.bn1.running_mean, work_dir / f'mean{runner.rank}.pt')


def test_several_processes_score_one_network_with_the_same_statistics(tmp_path):
    in_processes(2, train_one_network, tmp_path)
    assert not torch.equal(*(torch.load(tmp_path / f'mean{i}.pt') for i in (0, 1)))
    assert torch.equal(*(torch.load(tmp_path / f'scored{i}.pt') for i in (0, 1)))


def test_several_processes_score_with_the_same_averages(tmp_path):
    in_processes(2, train_with_averaged_statistics, tmp_path)
    assert not torch.equal(*(torch.load(tmp_path / f'mean{i}.pt') for i in (0, 1)))
    assert torch.equal(*(torch.load(tmp_path / f'scored{i}.pt') for i in (0, 1)))


def test_several_processes_score_what_is_saved(tmp_path):
    in_processes(2, train_and_keep_the_buffers, tmp_path)
    assert not torch.equal(*(torch.load(tmp_path / f'mean{i}.pt') for i in (0, 1)))
    assert torch.equal(*(torch.load(tmp_path / f'tested{i}.pt') for i in (0, 1)))
    (scored,) = json.loads((tmp_path / 'results.json').read_text())['calibration']

    cfg = load_config(CONFIG, tmp_path / 'again', {'val_dataloader.dataset.indices': 20})
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    runner.val_loop.evaluator.metrics.append(Calibration())
    metrics = runner.val_loop.run()
    for i in (0, 1):
        assert metrics[f'student{i}.nll'] == pytest.approx(scored[f'student{i}']['nll'], abs=1e-4)


@pytest.mark.parametrize('amp', [False, True])
def test_the_fast_runtime_asks_for_bf16_and_amp_for_what_the_device_has(amp, tmp_path):
    fast = Config.fromfile(CONFIG.parents[1] / '_base_/fast_runtime.py')
    options = {**SMALL_VAL, **{name: dict(fast[name]) for name in ('val_cfg', 'test_cfg')}}
    runner = Runner.from_cfg(load_config(CONFIG, tmp_path, options, amp=amp))
    found = []
    conv = runner.model.architecture.backbone.conv1
    conv.register_forward_hook(lambda module, args, out: found.append(out.dtype))
    runner.val()
    runner.test()
    for loop in (runner.val_loop, runner.test_loop):
        assert loop.dtype == (None if amp else torch.bfloat16)
    assert set(found) == {torch.bfloat16}


def test_another_precision_is_refused(tmp_path):
    cfg = load_config(CONFIG, tmp_path, {'val_cfg.dtype': 'half', **SMALL_VAL})
    with pytest.raises(ValueError, match="val_cfg.dtype='half', expected 'bfloat16' or nothing"):
        Runner.from_cfg(cfg).val_loop  # noqa: B018
