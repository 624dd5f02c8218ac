"""What is said about a work dir and about numbers of a training that cannot be meant."""

import pytest
import torch
from mmengine.config import Config
from processes import in_processes
from torch import distributed, nn

from mfef_mmrazor.apis.checks import check_folder, check_loop, check_sync_bn, check_training


def test_a_file_in_the_place_of_the_work_dir(tmp_path):
    check_folder(tmp_path / 'new/run')
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match=f'{tmp_path}/file is a file, expected a folder'):
        check_folder(tmp_path / 'file/run')


@pytest.mark.parametrize(('change', 'told'), [
    (dict(type='CosineAnnealingLR', T_max=20), 'CosineAnnealingLR goes on until 20'),
    (dict(type='MultiStepLR', milestones=[5, 15]), 'MultiStepLR goes on until 15'),
    (dict(type='CosineAnnealingLR', T_max=10), ''),
    (dict(type='MultiStepLR', milestones=[5, 9]), ''),
    (dict(type='CosineAnnealingLR', T_max=200, by_epoch=False), ''),  # iterations
])  # fmt: skip
def test_a_schedule_that_is_longer_than_the_training_is_told(change, told, capsys):
    check_loop(Config(dict(train_cfg=dict(max_epochs=10), param_scheduler=[change])))
    assert (told in capsys.readouterr().out) if told else not capsys.readouterr().out


def test_numbers_that_cannot_be():
    parts = dict(
        model={},
        train_dataloader=dict(batch_size=2),
        optim_wrapper={},
        train_cfg=dict(max_epochs=1),
    )
    check_training(Config(parts))
    for change, message in (
        (dict(train_dataloader=dict(batch_size=0)), 'train_dataloader.batch_size=0'),
        (dict(optim_wrapper=dict(optimizer=dict(lr=-1))), 'optim_wrapper.optimizer.lr=-1'),
        (dict(train_cfg={}), 'expected max_epochs, and no max_iters'),
        (dict(train_cfg=dict(by_epoch=False, max_iters=5, max_epochs=2)), 'and no max_epochs'),
        (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=0)), 'train_cfg.max_iters=0'),
        (dict(val_cfg={}, val_evaluator={}), 'has val_cfg, val_evaluator, but no val_dataloader'),
    ):
        with pytest.raises(ValueError, match=message):
            check_training(Config({**parts, **change}))


def refused():
    distributed.init_process_group('gloo')
    check_sync_bn(Config(), nn.BatchNorm2d(2))
    for cfg, network in (
        (Config(dict(sync_bn='torch')), nn.BatchNorm2d(2)),
        (Config(), nn.Sequential(nn.SyncBatchNorm(2))),
    ):
        with pytest.raises(ValueError, match=f'sync_bn={cfg.get("sync_bn")!r}.*2 processes'):
            check_sync_bn(cfg, network)


@pytest.mark.skipif(torch.cuda.is_available(), reason='it works on GPUs')
def test_sync_bn_in_several_processes_on_the_cpu():
    in_processes(2, refused)
    check_sync_bn(Config(dict(sync_bn='torch')), nn.SyncBatchNorm(2))  # of one process
