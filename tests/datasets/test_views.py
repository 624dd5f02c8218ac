"""The shipped data config that gives each student an augmentation of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mfef_mmrazor.models.builder import build

CONFIG = Path(__file__).parents[2] / 'configs/_base_/datasets/cifar10_folder_views.py'


@pytest.fixture
def cfg(tmp_path):
    """The config, on six small pictures a split."""
    pixels = np.random.default_rng(0)
    for path in (f'{split}/{name}/{i}.png' for split in ('train', 'test') for name in 'ab'
                 for i in range(3)):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        picture = pixels.integers(0, 50, (32, 32, 3)) + pixels.integers(0, 200, 3)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / path)
    cfg = Config.fromfile(CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root=str(tmp_path), num_classes=2)
    return cfg


def first_batch(cfg, loader):
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = next(iter(Runner.build_dataloader(cfg[loader], seed=0)))
    return build(cfg.data_preprocessor)(data, True)


def test_training_gives_two_views_of_the_same_images(cfg):
    batch = first_batch(cfg, 'train_dataloader')
    first, second = batch['inputs']
    assert first.shape == second.shape == (6, 3, 32, 32) and len(batch['data_samples']) == 6
    assert not torch.equal(first, second)
    colours = [view.mean(dim=(2, 3)) for view in (first, second)]  # crops and flips keep them
    torch.testing.assert_close(*colours, atol=0.1, rtol=0)
    assert torch.cdist(*colours).fill_diagonal_(9).min() > 0.1


def test_validation_sees_each_image_once_and_as_it_is(cfg):
    inputs = first_batch(cfg, 'val_dataloader')['inputs']
    assert inputs.shape == (6, 3, 32, 32)
    path = Path(cfg.val_dataloader.dataset.data_root) / 'test/a/0.png'
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float()
    mean, std = (torch.tensor(cfg.data_preprocessor[k])[:, None, None] for k in ('mean', 'std'))
    torch.testing.assert_close(inputs[0], (pixels - mean) / std)
