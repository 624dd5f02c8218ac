import shutil
from pathlib import Path

import torch
from mmengine.runner import Runner

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.apis.checkpoints import build_trained, read_checkpoint

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
ONCE = {
    'model.distiller.enhanced_head': None,
    'model.distiller.attention': dict(type='DualAttentionConnector'),
}


def run(work_dir, epochs, options):
    small = {
        'train_dataloader.dataset.train_per_class': 4,
        'val_dataloader.dataset.indices': 20,
        'train_cfg.max_epochs': epochs,
    }
    train(load_config(CONFIG, work_dir, {**small, **options}), resume=True)
    return torch.load(work_dir / f'epoch_{epochs}.pth', weights_only=True)['state_dict']


def test_a_checkpoint_of_mfef_keeps_the_defaults_of_its_time(tmp_path):
    run(tmp_path / 'once', 1, ONCE)
    shutil.copytree(tmp_path / 'once', tmp_path / 'resumed')
    expected = run(tmp_path / 'once', 2, ONCE)
    resumed = run(tmp_path / 'resumed', 2, {})  # a config that does not say
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(x, resumed[name]) for name, x in expected.items())

    stored, _ = read_checkpoint(tmp_path / 'once/epoch_2.pth', None)
    trained = build_trained(stored, load_config(CONFIG).to_dict())
    assert not trained.distiller.enhanced_heads
    assert trained.state_dict().keys() == expected.keys()
    now = Runner.from_cfg(load_config(CONFIG, tmp_path / 'now')).model.state_dict()
    assert now.keys() - expected.keys() == {
        f'distiller.enhanced_heads.{i}.fc.{part}' for i in (0, 1) for part in ('weight', 'bias')
    }
