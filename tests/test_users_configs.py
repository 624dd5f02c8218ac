"""What users bring, from the training to its end.

A folder of photographs, learnt by ResNet-18 and ViT-tiny from a config of mmpretrain's parts only;
and mmpretrain's recipe for transformers.
"""

import ast
import csv
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import mmengine
import mmpretrain
import numpy as np
import pytest
import torch
from mmpretrain import ImageClassificationInferencer
from PIL import Image

from mfef_mmrazor.apis import compare, export, load_config, train
from mfef_mmrazor.apis import test as score

ROOT = Path(__file__).parents[1]
TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
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


@pytest.fixture(scope='module')
def predicted(folder, run):
    score(load_config(folder / 'mine.py', folder / 'test'), run, folder / 'predicted.csv')
    return table(folder / 'predicted.csv')


@pytest.fixture(scope='module')
def exported(folder, run):
    export(run, folder / 'out', 'all')
    return folder / 'out'


def table(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def start(folder, script, *args):
    """Run a script of mmpretrain's through the launcher."""
    done = subprocess.run(
        [sys.executable, '-m', 'mfef_mmrazor.run', TOOLS / script, *args],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_every_photograph_is_classified_as_in_training(predicted, exported):
    assert len(predicted) == 10 and {'student0', 'student1', 'ensemble', 'fused'} <= set(
        predicted[0]
    )
    for i in range(2):
        infer = ImageClassificationInferencer(
            str(exported / f'student{i}.py'), str(exported / f'student{i}.pth')
        )
        found = infer([row['image'] for row in predicted])
        for row, answer in zip(predicted, found, strict=True):
            assert answer['pred_label'] == int(row[f'student{i}'])
            assert answer['pred_score'] == pytest.approx(float(row[f'student{i}.score']), abs=1e-4)
            assert answer['pred_class'] == ('bird', 'cat')[answer['pred_label']]


CELLS = (
    """
from mfef_mmrazor.apis import export, load_config, train
train(load_config('mine.py', 'notebook', seed=0))
export('notebook/epoch_2.pth', 'notebook/out', 1)
""",
    """
from glob import glob
from mmpretrain import ImageClassificationInferencer
infer = ImageClassificationInferencer('notebook/out/student1.py', 'notebook/out/student1.pth')
images = sorted(glob('val/*/*'))
dict(zip(images, [answer['pred_label'] for answer in infer(images)]))
""",
)


@pytest.mark.slow
def test_a_notebook_does_the_same(folder, run, predicted, monkeypatch):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(
        page, timeout=600, kernel_name='python3', resources=dict(metadata=dict(path=folder))
    ).execute()
    (answer,) = (out for out in page.cells[-1].outputs if out.output_type == 'execute_result')
    found = ast.literal_eval(answer.data['text/plain'])
    assert {str(folder / name): label for name, label in found.items()} == {
        row['image']: int(row['student1']) for row in predicted
    }
    of_notebook, of_script = (
        json.loads((path / 'results.json').read_text())['history']
        for path in (folder / 'notebook', run.parent)
    )
    assert of_notebook == of_script


@pytest.mark.slow
def test_mmpretrains_own_scripts_score_a_run_and_what_was_exported(folder, run, exported):
    metrics = score(load_config(folder / 'mine.py', folder / 'test'), run, folder / 'online.pkl')
    said = start(
        folder, 'test.py', exported / 'student1.py', exported / 'student1.pth',
        '--out', 'pred.pkl', '--work-dir', 'scored',
    )  # fmt: skip
    assert f'accuracy/top1: {metrics["student1.accuracy/top1"]:.4f}' in said
    for config, predictions in (
        (exported / 'student1.py', 'pred.pkl'),
        (folder / 'mine.py', 'online.student1.pkl'),
    ):
        start(folder, 'analysis_tools/confusion_matrix.py', config, predictions, '--out', 'cm.pkl')
        matrix = mmengine.load(folder / 'cm.pkl')
        assert matrix.sum() == 10
        assert matrix.trace() * 10 == pytest.approx(metrics['student1.accuracy/top1'])
    said = start(folder, 'analysis_tools/get_flops.py', exported / 'student1.py', '--shape', '32')
    assert re.search(r'Params: 5\.\d+M', said)  # of ViT-tiny's backbone


@pytest.mark.slow
def test_mmpretrains_grad_cam_of_a_run_and_of_what_was_exported(folder, run, exported):
    cam = pytest.importorskip('pytorch_grad_cam')
    if 'use_cuda' not in inspect.signature(cam.GradCAM).parameters:
        pytest.skip("mmpretrain's script needs grad-cam < 1.5")
    photo = folder / 'val/cat/0.png'

    def drawn(name, config, checkpoint, *args):
        start(folder, 'visualization/vis_cam.py', photo, config, checkpoint, '--save-path', name,
              *args)  # fmt: skip
        return np.asarray(Image.open(folder / name), dtype=int)

    files = [(exported / f'student{i}.py', exported / f'student{i}.pth') for i in range(2)]
    resnet = drawn('resnet.png', *files[0], '--target-layers', 'backbone.layer4')
    vit = drawn('vit.png', *files[1], '--vit-like')
    assert resnet.shape == vit.shape == (32, 32, 3) and abs(resnet - vit).max() > 20
    online = drawn('online.png', folder / 'mine.py', run, '--target-layers',
                   'architecture.backbone.layer4')  # fmt: skip
    assert np.array_equal(online, resnet)


@pytest.mark.slow
def test_test_time_augmentation_scores_every_predictor(folder, run):
    cfg = load_config(folder / 'mine.py', folder / 'test')
    metrics = score(cfg, run, folder / 'flipped.csv', tta=True)
    rows = table(folder / 'flipped.csv')
    classes = ('bird', 'cat')
    for name in ('student0', 'fused'):
        right = sum(Path(r['image']).parent.name == classes[int(r[name])] for r in rows)
        assert metrics[f'{name}.accuracy/top1'] == pytest.approx(100 * right / len(rows))


RECIPE = """
_base_ = [
    'mfef_mmrazor::_base_/datasets/digits.py',
    'mfef_mmrazor::_base_/common_runtime.py',
]
train_dataloader = dict(dataset=dict(train_per_class=4))
val_dataloader = dict(dataset=dict(indices=50))
vit = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=16, patch_size=8,
        arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32)),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=16),
)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65, custom_keys={
        '.ln': dict(decay_mult=0.0), '.bias': dict(decay_mult=0.0),
        '.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)}),
)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg, test_cfg = dict(), dict()
"""
MODELS = dict(
    mfef="""
model = dict(_scope_='mmrazor', type='OnlineDistill', students=[vit, vit],
    data_preprocessor=_base_.data_preprocessor, distiller=dict(type='MFEFDistiller'))
""",
    alone="""
model = dict(vit, data_preprocessor=_base_.data_preprocessor)
""",
)


def rate_and_decay(name):
    """By mmpretrain's documentation: the rate falls from layer to layer, from the head down."""
    network = re.sub(r'^(architecture|peers\.\d+)\.', '', name)
    if name.startswith('distiller.') or not network.startswith('backbone.'):
        layers_above = 0
    elif network.startswith('backbone.layers.'):
        layers_above = 3 - int(network.split('.')[2])
    elif network.startswith('backbone.ln1'):  # after the last layer
        layers_above = 0
    else:  # patches, positions and the class token
        layers_above = 4
    free = any(key in name for key in ('.ln', '.bias', '.cls_token', '.pos_embed'))
    return 2e-3 * 0.65**layers_above, 0.0 if free else 0.05


@pytest.mark.slow
def test_layer_wise_rates_and_dotted_keys_are_kept_by_train_compare_and_export(tmp_path):
    for name, model in MODELS.items():
        (tmp_path / f'{name}_vit.py').write_text(RECIPE + model)
    configs = [tmp_path / f'{name}_vit.py' for name in MODELS]
    compare(configs, [0], tmp_path / 'compared', allow=['model.students'])
    assert len(table(tmp_path / 'compared/runs.csv')) >= 2
    for name in MODELS:
        checkpoint = tmp_path / f'compared/runs/{name}/seed0/epoch_1.pth'
        stored = torch.load(checkpoint, weights_only=True)
        groups = stored['optimizer']['param_groups']
        found = {group['param_name']: (group['lr'], group['weight_decay']) for group in groups}
        assert found.keys() <= stored['state_dict'].keys()
        assert ('distiller.fused_classifier.head.fc.weight' in found) == (name == 'mfef')
        for parameter, settings in found.items():
            assert settings == pytest.approx(rate_and_decay(parameter)), parameter
    export(tmp_path / 'compared/runs/mfef/seed0/epoch_1.pth', tmp_path / 'out', 'all')
    for i in range(2):
        exported = torch.load(tmp_path / f'out/student{i}.pth', weights_only=True)
        assert exported['state_dict'].keys() == stored['state_dict'].keys()  # of the one alone
