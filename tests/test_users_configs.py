"""A user's folder of photographs, learnt by ResNet-18 and ViT-tiny from mmpretrain's parts."""

import csv
import subprocess
import sys
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
from mmpretrain import ImageClassificationInferencer
from PIL import Image

from mfef_mmrazor.apis import export, load_config, train
from mfef_mmrazor.apis import test as score

CONFIG = """
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]
data_preprocessor = dict(num_classes=2)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=40, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
folder = dict(_delete_=True, type='CustomDataset', data_root='{root}')
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(folder, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(folder, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=2)
resnet = dict(cfg_path='mmpretrain::resnet/resnet18_8xb16_cifar10.py', head=dict(num_classes=2))
vit = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch='deit-t', img_size=32, patch_size=8),
    head=dict(type='VisionTransformerClsHead', num_classes=2, in_channels=192),
)
model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    students=[resnet, vit],
    distiller=dict(type='MFEFDistiller', in_channels=[512, 192], num_classes=2),
)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Photographs of two classes: sizes, shapes and colours as they come."""
    folder, draw = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 5)):
        for k, name in enumerate(('bird', 'cat')):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                size = draw.integers(24, 90, 2)
                noise = draw.integers(0, 120, (*size, 3)) + (60, 0, 0) * np.array(k)
                photo = Image.fromarray(noise.astype(np.uint8))
                kind = ('png', 'jpg')[i % 2]
                (photo.convert('L') if i == 3 else photo).save(
                    folder / split / name / f'{i}.{kind}'
                )
    (folder / 'mine.py').write_text(CONFIG.format(root=folder))
    return folder


@pytest.fixture(scope='module')
def run(folder):
    train(load_config(folder / 'mine.py', folder / 'run', seed=0))
    return folder / 'run/epoch_2.pth'


def table(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_photograph_is_classified_as_in_training(folder, run):
    score(load_config(folder / 'mine.py', folder / 'test'), run, folder / 'predicted.csv')
    predicted = table(folder / 'predicted.csv')
    assert len(predicted) == 10 and {'student0', 'student1', 'ensemble', 'fused'} <= set(
        predicted[0]
    )
    export(run, folder / 'out', 'all')
    for i in range(2):
        infer = ImageClassificationInferencer(
            str(folder / f'out/student{i}.py'), str(folder / f'out/student{i}.pth')
        )
        found = infer([row['image'] for row in predicted])
        for row, answer in zip(predicted, found, strict=True):
            assert answer['pred_label'] == int(row[f'student{i}'])
            assert answer['pred_score'] == pytest.approx(float(row[f'student{i}.score']), abs=1e-4)
            assert answer['pred_class'] == ('bird', 'cat')[answer['pred_label']]


@pytest.mark.slow
def test_mmpretrains_own_script_scores_what_was_exported(folder, run):
    metrics = score(load_config(folder / 'mine.py', folder / 'test'), run)
    export(run, folder / 'out', 'all')
    script = Path(mmpretrain.__file__).parent / '.mim/tools/test.py'
    done = subprocess.run(
        [sys.executable, '-m', 'mfef_mmrazor.run', script, 'out/student1.py', 'out/student1.pth',
         '--out', 'pred.pkl', '--work-dir', 'scored'],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = f'accuracy/top1: {metrics["student1.accuracy/top1"]:.4f}'
    assert expected in done.stdout + done.stderr and (folder / 'pred.pkl').is_file()


@pytest.mark.slow
def test_test_time_augmentation_scores_every_predictor(folder, run):
    cfg = load_config(folder / 'mine.py', folder / 'test')
    metrics = score(cfg, run, folder / 'flipped.csv', tta=True)
    rows = table(folder / 'flipped.csv')
    classes = ('bird', 'cat')
    for name in ('student0', 'fused'):
        right = sum(Path(r['image']).parent.name == classes[int(r[name])] for r in rows)
        assert metrics[f'{name}.accuracy/top1'] == pytest.approx(100 * right / len(rows))
