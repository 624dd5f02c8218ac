"""mmpretrain's own hooks at a real run of MFEF."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmpretrain.engine.hooks import precise_bn_hook

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.datasets import Digits

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


def run(work_dir, *hooks, preprocessor=None):
    options = {
        'train_cfg.max_epochs': 2,
        'train_dataloader.dataset.train_per_class': 6,
        'val_dataloader.dataset.train_per_class': 148,
    }
    cfg = load_config(CONFIG, work_dir, options)
    cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
    cfg.model.data_preprocessor.update(preprocessor or {})
    return train(cfg)


def test_class_num_check_hook(tmp_path, monkeypatch):
    hook = dict(type='ClassNumCheckHook')
    run(tmp_path / 'right', hook)
    monkeypatch.setitem(Digits.METAINFO, 'classes', tuple('0123456'))
    with pytest.raises(AssertionError, match='does not match'):
        run(tmp_path / 'wrong', hook)


def test_switch_recipe_hook(tmp_path):
    recipe = dict(
        action_epoch=2,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        batch_augments=None,
    )
    hook = dict(type='SwitchRecipeHook', schedule=[recipe])
    mixup = dict(augments=dict(type='Mixup', alpha=1.0))
    model = run(tmp_path, hook, preprocessor=dict(batch_augments=mixup)).model
    heads = [student.head for student in model.students]
    for head in [*heads, model.distiller.fused_classifier.head]:
        assert type(head.loss_module).__name__ == 'LabelSmoothLoss'
    assert model.data_preprocessor.batch_augments is None


@pytest.mark.parametrize(
    'hook', [dict(type='EMAHook', momentum=0.1), dict(type='PreciseBNHook', num_samples=60)]
)
def test_hooks_on_weights_and_statistics(tmp_path, hook):
    update = patch.object(
        precise_bn_hook, 'update_bn_stats', side_effect=precise_bn_hook.update_bn_stats
    )
    with update as updates:
        runner = run(tmp_path, hook)
    assert updates.call_count == (2 if hook['type'] == 'PreciseBNHook' else 0)
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert ('ema_state_dict' in checkpoint) == (hook['type'] == 'EMAHook')
