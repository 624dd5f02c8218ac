"""The order of the weights in memory, and that it changes no initial weight."""

from pathlib import Path

import torch

from mfef_mmrazor.apis import load_config, train

CONFIGS = Path(__file__).parents[2] / 'configs'
STILL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 20,
    'train_cfg.max_epochs': 1,
    'optim_wrapper.optimizer.lr': 0,
}


def test_a_network_alone_starts_from_the_weights_of_student0(tmp_path):
    alone = train(
        load_config(
            CONFIGS / 'baseline/alone_resnet20_1xb32-20e_digits.py',
            tmp_path / 'alone',
            {**STILL, 'model.backbone.depth': 8},
            seed=3,
        )
    ).model
    mfef = CONFIGS / 'mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
    student = train(load_config(mfef, tmp_path / 'mfef', STILL, seed=3)).model.students[0]
    weights = dict(student.named_parameters())
    for name, weight in alone.named_parameters():
        assert torch.equal(weight, weights[name]), name
        if weight.dim() == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last)
