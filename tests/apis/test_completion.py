"""What is added to configs whose parts come from elsewhere."""

import json

import pytest
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop

from mfef_mmrazor.apis import compare, load_config
from mfef_mmrazor.apis.completion import (
    ADDED,
    complete_hooks,
    complete_loops,
    is_called,
    use_tta,
)
from mfef_mmrazor.engine import OnlineDistillValLoop, ResultsHook


def online(**parts):
    scored = dict(val_dataloader=dict(batch_size=2), val_evaluator=dict(type='Accuracy'))
    return Config(dict(model=dict(type='mmrazor.OnlineDistill'), **scored, **parts))


def test_names_of_types():
    assert is_called('mmrazor.ResultsHook', 'ResultsHook') and is_called(ResultsHook, 'ResultsHook')
    assert is_called('mfef_mmrazor.engine.ResultsHook', 'ResultsHook')
    assert not is_called('MyResultsHook', 'ResultsHook') and not is_called(None, 'ResultsHook')


def test_loops_are_added_where_none_is_named():
    cfg = online(val_cfg=dict(fp16=True), test_dataloader=dict(batch_size=2), test_cfg=dict())
    complete_loops(cfg)
    assert cfg.val_cfg == dict(type='mmrazor.OnlineDistillValLoop', fp16=True)
    assert cfg.test_cfg.type == 'mmrazor.OnlineDistillTestLoop'
    cfg = online(val_cfg=dict(type='ValLoop'))
    complete_loops(cfg)
    assert cfg.val_cfg.type == 'ValLoop' and 'test_cfg' not in cfg
    alone = dict(model=dict(type='ImageClassifier'), val_dataloader=dict(), test_dataloader=dict())
    alone = Config(dict(alone, test_cfg=None))
    complete_loops(alone)
    assert alone.val_cfg == {} and alone.test_cfg is None


def test_hooks_are_added_once(caplog):
    cfg = online(val_cfg=dict(type=OnlineDistillValLoop), custom_hooks=[dict(type=ResultsHook)])
    complete_hooks(cfg, 'stretch')
    names = [name for name in ADDED if name != 'ResultsHook']
    added = [f'mmrazor.{name}' for name in names]
    assert cfg.default_hooks.checkpoint.type == 'mmrazor.SafeCheckpointHook'
    assert [hook['type'] for hook in cfg.custom_hooks] == [ResultsHook, *added]
    assert cfg.custom_hooks[1]['how'] == 'stretch'
    before = cfg.to_dict()
    complete_hooks(cfg)
    assert cfg.to_dict() == before


def test_tta_is_that_of_mmpretrain():
    pipeline = [dict(type='Resize', scale=8), dict(type='mmpretrain.PackInputs')]
    repeated = dict(type='RepeatDataset', times=1, dataset=dict(type='A', pipeline=pipeline))
    both = dict(type='ConcatDataset', datasets=[repeated, dict(type='B', pipeline=pipeline)])
    cfg = online(test_dataloader=dict(dataset=both))
    use_tta(cfg)
    first, second = cfg.test_dataloader.dataset.datasets
    for _resize, augment in (first.dataset.pipeline, second.pipeline):
        assert augment.type == 'TestTimeAug' and augment.transforms[1] == [pipeline[1]]
        assert [flip.prob for flip in augment.transforms[0]] == [1.0, 0.0]
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
    assert cfg.model.module.type == 'mmrazor.OnlineDistill'
    for short, end in ((pipeline[:1], 'Resize'), ([], 'nothing')):
        unpacked = online(test_dataloader=dict(dataset=dict(type='A', pipeline=short)))
        with pytest.raises(ValueError, match=f'the test pipeline ends in {end}, expected PackInp'):
            use_tta(unpacked)


def test_two_bases_with_one_key(tmp_path):
    (tmp_path / 'a.py').write_text(
        "_base_ = ['mmpretrain::_base_/schedules/imagenet_bs256.py', "
        "'mfef_mmrazor::_base_/default_runtime.py']"
    )
    with pytest.raises(ValueError, match=r'a.py: two files.*val_cfg.*common_runtime\.py instead'):
        load_config(tmp_path / 'a.py')
    (tmp_path / 'b.py').write_text(
        "_base_ = ['mmpretrain::_base_/schedules/imagenet_bs256.py', "
        "'mfef_mmrazor::_base_/common_runtime.py']\nmodel = dict(type='mmrazor.OnlineDistill')\n"
        'val_dataloader = dict(batch_size=2)'
    )
    cfg = load_config(tmp_path / 'b.py')
    assert cfg.val_cfg.type == 'mmrazor.OnlineDistillValLoop'
    assert cfg.val_dataloader == dict(batch_size=2)  # no scope of the base's


def test_a_comparison_of_what_is_never_scored_is_refused(tmp_path):
    (tmp_path / 'a.py').write_text(
        "_base_ = ['mfef_mmrazor::dml/dml_resnet8-x2_1xb32-20e_digits.py']\n"
        'val_dataloader = None\nval_cfg = None\nval_evaluator = None'
    )
    with pytest.raises(ValueError, match='a: nothing to compare by; expected val_dataloader'):
        compare([tmp_path / 'a.py'], [0], tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


PURE_DATA = """
from mmcv.transforms import Resize
from mmengine.dataset import DefaultSampler
from mfef_mmrazor.datasets import Digits
from mmpretrain.datasets import PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor
data_preprocessor = dict(type=ClsDataPreprocessor, mean=[78.] * 3, std=[96.] * 3)
pipeline = [dict(type=Resize, scale=16), dict(type=PackInputs)]
train_dataloader = dict(batch_size=10, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=Digits, split='train', train_per_class=2, pipeline=pipeline))
val_dataloader = dict(batch_size=10, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=Digits, split='test', indices=20, pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = [dict(type=Accuracy, topk=(1,))]
test_evaluator = val_evaluator
"""
PURE = """
from mmengine.config import read_base
with read_base():
    from .data.digits import *
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from torch.optim import SGD
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from mfef_mmrazor.models import CifarResNet, {0}, OnlineDistill
student = dict(type=ImageClassifier, backbone=dict(type=CifarResNet, depth=8),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=64))
model = dict(type=OnlineDistill, students=[student, student], distiller=dict(type={0}),
    data_preprocessor=data_preprocessor)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={{'.backbone.layer1': dict(lr_mult=0.5)}}))
param_scheduler = dict(type=CosineAnnealingLR, by_epoch=True, T_max=2)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg, test_cfg = dict(), dict()
default_scope = 'mmpretrain'
"""


@pytest.mark.slow
def test_pure_python_configs_go_all_the_way(tmp_path):
    """Classes for types, a base in another folder, keys with dots; from training to comparison."""
    from mfef_mmrazor.apis import export, test, train

    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/digits.py').write_text(PURE_DATA)
    for name in ('DMLDistiller', 'IndependentDistiller'):
        (tmp_path / f'{name[:3].lower()}_pure.py').write_text(PURE.format(name))
    path = tmp_path / 'dml_pure.py'
    cfg = load_config(path, tmp_path / 'run', {'optim_wrapper.optimizer.lr': 0.02}, amp=True)
    runner = train(cfg)
    rates = {group['initial_lr'] for group in runner.optim_wrapper.param_groups}
    assert rates == {0.02, 0.01} and isinstance(runner.train_loop, EpochBasedTrainLoop)
    metrics = test(load_config(path, tmp_path / 'test', amp=True), tmp_path / 'run/epoch_1.pth')
    assert {'student0.accuracy/top1', 'student1.accuracy/top1', 'ensemble.accuracy/top1'} <= set(
        metrics
    )
    for config in (None, path):
        export(tmp_path / 'run/epoch_1.pth', tmp_path / 'out', 'best', config=config)
    compare([path, tmp_path / 'ind_pure.py'], [0], tmp_path / 'compared')
    assert json.loads((tmp_path / 'compared/stats.json').read_text())['baseline'] == 'dml'
