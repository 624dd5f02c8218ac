"""Every shipped config builds, from another folder than the repository's, and takes a step.

Models that differ only in the number of classes take it once.
"""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS

from mfef_mmrazor.apis.checkpoints import check_teacher
from mfef_mmrazor.apis.config_keys import check_keys
from mfef_mmrazor.models.builder import build

CONFIGS = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
NUM_CLASSES = re.compile(r"'num_classes': (\d+)")
SIZES = dict(digits=16, in1k=64, folder=64)  # enough for a last map of 2x2; else 32


@pytest.fixture(scope='module')
def tried():
    """Models that took a step, as text without the number of classes."""
    return set()


@pytest.mark.parametrize('config', LEAVES, ids=str)
def test_config_builds_and_takes_a_step(config, tried, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(CONFIGS / config)
    check_keys(cfg)
    assert cfg.custom_imports.imports == ['mfef_mmrazor']
    assert len((CONFIGS / config).read_text().splitlines()) < 60
    batch_size, epochs = map(
        int, re.fullmatch(r'\d+xb(\d+)-(\d+)e', config.stem.split('_')[-2]).groups()
    )
    assert batch_size == cfg.train_dataloader.batch_size
    assert epochs == cfg.train_cfg.max_epochs
    pipeline = cfg.train_dataloader.dataset.get('pipeline', [])
    number = sum(sum(step.get('num_views', [])) for step in pipeline) or 1
    model = cfg.model.to_dict()
    model['data_preprocessor'] = model['data_preprocessor']['type']
    as_text = NUM_CLASSES.sub('', f'{number} {model}')
    if as_text in tried:
        assert len(set(NUM_CLASSES.findall(repr(cfg.model.to_dict())))) == 1
        return
    tried.add(as_text)
    if 'teacher' in cfg.model:  # by default as a config of the baseline leaves it
        teacher = CONFIGS / 'baseline' / f'{Path(cfg.model.teacher_ckpt).parent.name}.py'
        cfg.model.teacher_ckpt = 'teacher.pth'
        torch.save(build(Config.fromfile(teacher).model).state_dict(), 'teacher.pth')
        check_teacher(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        preprocessor = cfg.model.data_preprocessor
    size = SIZES.get(config.stem.split('_')[-1], 32)
    views = [torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8) for _ in range(number)]
    takes_views = preprocessor.type == 'mmpretrain.SelfSupDataPreprocessor'
    data = dict(
        inputs=views if takes_views else list(views[0]),
        data_samples=[DataSample().set_gt_label(i) for i in range(4)],
    )
    if preprocessor.type == 'mmpretrain.InMemoryDataPreprocessor':
        numbers = torch.arange(4)
        sample = DataSample(gt_label=numbers, sample_idx=numbers)
        data = dict(inputs=[views[0].permute(0, 2, 3, 1)], data_samples=[sample])
    if any('HeldOutHook' in hook.type for hook in cfg.get('custom_hooks', [])):
        logits = [torch.randn(8, 10) for _ in model.students]
        model.distiller.learn_held_out(logits, torch.arange(8))
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    classes = getattr(model, 'architecture', model).head.num_classes
    assert takes_views or preprocessor.num_classes == classes
