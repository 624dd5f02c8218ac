"""What is said of the training data before the first step, in real runs."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mfef_mmrazor.engine import DataCheckHook
from mfef_mmrazor.engine.hooks.data_check_hook import warn_of_repeats
from mfef_mmrazor.models import OnlineDistill

PIPELINE = [dict(type='mmpretrain.Resize', scale=32), dict(type='mmpretrain.PackInputs')]
SMALL = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
# its last map of a picture of 32 pixels is one pixel
RESNET18 = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)


@DATASETS.register_module()
class OnlyNoughts(BaseDataset):
    METAINFO = dict(classes=('nought',))

    def __init__(self, **kwargs):
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self):
        return [dict(img=None, gt_label=0)] * 10


def run(
    work_dir,
    student=SMALL,
    distiller='DMLDistiller',
    batch_size=9,
    train_cfg=dict(by_epoch=True, max_epochs=1),
    val_dataloader=None,
    topk=1,
    **options,
):
    dataset = dict(type='mmpretrain.Digits', train_per_class=1, pipeline=PIPELINE)
    loader = dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = OnlineDistill(
            [student] * 2,
            dict(type=distiller),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        )
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader={**loader, **options},
        train_cfg=train_cfg,
        val_dataloader=val_dataloader,
        val_cfg=val_dataloader and dict(),
        val_evaluator=val_dataloader and dict(type='mmpretrain.Accuracy', topk=topk),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='mmrazor.DataCheckHook')],
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
    )
    runner.train()
    return runner


@pytest.mark.parametrize(
    ('student', 'distiller'), [(RESNET18, 'DMLDistiller'), (SMALL, 'ONEDistiller')]
)
def test_a_last_batch_of_one_image_that_batch_norm_cannot_take(tmp_path, student, distiller):
    with pytest.raises(ValueError, match='10 images in batches of 9 leave one image .* drop_last'):
        run(tmp_path, student, distiller)
    assert not list(tmp_path.rglob('*.pth'))
    run(tmp_path / 'dropped', student, distiller, drop_last=True)


def test_batches_that_are_all_whole_are_no_last_batch_of_one_image(tmp_path):
    run(tmp_path / 'whole', distiller='ONEDistiller', batch_size=5)
    endless = dict(type='InfiniteSampler', shuffle=True)
    by_iterations = dict(by_epoch=False, max_iters=2)
    run(tmp_path, distiller='ONEDistiller', train_cfg=by_iterations, sampler=endless)


def test_a_last_batch_of_one_image_that_can_be_taken_is_trained_on(tmp_path):
    run(tmp_path)


def test_the_check_changes_nothing_of_the_training(tmp_path, monkeypatch):
    flips = dict(type='mmpretrain.RandomFlip', prob=0.5)
    dataset = dict(type='mmpretrain.Digits', train_per_class=1, pipeline=[flips, *PIPELINE])
    checked = run(tmp_path / 'checked', dataset=dataset).model.state_dict()
    monkeypatch.setattr(DataCheckHook, 'before_train', lambda *_: None)
    unchecked = run(tmp_path / 'unchecked', dataset=dataset).model.state_dict()
    assert all(torch.equal(checked[name], unchecked[name]) for name in checked)


def test_no_batch_at_all(tmp_path):
    with pytest.raises(ValueError, match='10 images of this process make no batch of 11'):
        run(tmp_path, batch_size=11, drop_last=True)


@pytest.mark.parametrize(
    'copies, sampler, warnings',
    [
        (None, 'DefaultSampler', 0),
        (None, 'mmpretrain.RepeatAugSampler', 1),
        (dict(type='RepeatDataset', times=2), 'DefaultSampler', 1),
        (dict(type='ClassBalancedDataset', oversample_thr=0.5), 'DefaultSampler', 1),
    ],
)
def test_copies_of_an_image_that_are_cropped_alike_are_warned_of(copies, sampler, warnings, log):
    digits = dict(type='mmpretrain.Digits', train_per_class=1, pipeline=[])
    memory = dict(type='mmpretrain.InMemory', dataset=digits)
    part = dict(type='mmpretrain.KFoldDataset', num_splits=5, dataset=memory)
    loader = Runner.build_dataloader(
        dict(
            batch_size=5,
            dataset=dict(copies, dataset=part) if copies else part,
            sampler=dict(type=sampler, shuffle=True),
        )
    )
    warn_of_repeats(loader)
    assert len([line for line in log if 'the same crop and flip' in line]) == warnings


def test_classes_without_a_validation_image_are_warned_of(tmp_path, capsys):
    def warned(indices):
        digits = dict(type='mmpretrain.Digits', pipeline=PIPELINE, indices=indices)
        loader = dict(
            batch_size=9, num_workers=0, dataset=digits, sampler=dict(type='DefaultSampler')
        )
        run(tmp_path / str(indices), val_dataloader=loader)
        return capsys.readouterr().out

    assert 'has no image' not in warned(20)
    assert 'has no image of 7 of 10 classes (3, 4, 5, 6, 7, ...): ' in warned(3)


def test_one_class(tmp_path):
    with pytest.raises(ValueError, match="dataset has one class, 'nought', expected two or more"):
        run(tmp_path, dataset=dict(type='mmpretrain.OnlyNoughts', pipeline=PIPELINE))


def test_more_classes_than_the_head_has(tmp_path):
    five = dict(SMALL, head=dict(type='LinearClsHead', num_classes=5, in_channels=64))
    with pytest.raises(ValueError, match='dataset has 10 classes, but num_classes=5 in the head'):
        run(tmp_path, five)


def test_fewer_classes_than_the_head_has_are_trained_on_and_told(tmp_path, capsys):
    run(tmp_path, dict(SMALL, head=dict(type='LinearClsHead', num_classes=12, in_channels=64)))
    assert 'has 10 classes, but num_classes=12 in the head' in capsys.readouterr().out


def test_topk_of_more_than_there_are_classes(tmp_path):
    val = dict(
        batch_size=9,
        dataset=dict(type='mmpretrain.Digits', pipeline=PIPELINE),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    with pytest.raises(ValueError, match='topk=.11,., but there are 10 classes'):
        run(tmp_path, val_dataloader=val, topk=11)
