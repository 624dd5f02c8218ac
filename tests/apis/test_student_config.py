"""The config that an exported student gets."""

from pathlib import Path

import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS

from mfef_mmrazor.apis import student_config
from mfef_mmrazor.apis.student_config import file_pipeline, preprocessor_config

test_part = student_config.test_part
test_part.__test__ = False

DATASETS = Path(__file__).parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize('to_rgb', [True, False])
def test_pictures_that_were_turned_to_rgb_in_memory_are_read_from_files_as_bgr(to_rgb):
    plain, fast = (
        Config.fromfile(DATASETS / f'cifar10_folder{kind}.py').to_dict() for kind in ('', '_fast')
    )
    for cfg in (plain, fast):
        cfg['model'] = dict(students=[{}])
    fast['test_dataloader']['dataset']['to_rgb'] = to_rgb
    plain['data_preprocessor']['to_rgb'] = to_rgb
    assert preprocessor_config(fast) == preprocessor_config(plain)
    inner = fast['test_dataloader']['dataset']
    fast['test_dataloader']['dataset'] = dict(type='KFoldDataset', dataset=inner)
    assert preprocessor_config(fast) == preprocessor_config(plain)


def test_the_preprocessing_of_a_packages_config_is_exported():
    student = dict(cfg_path='mmpretrain::resnet/resnet18_8xb32_in1k.py')
    cfg = Config.fromfile(DATASETS / 'image_folder.py').to_dict()
    del cfg['data_preprocessor']
    found = preprocessor_config(dict(cfg, model=dict(students=[student])))
    assert found['mean'] == [123.675, 116.28, 103.53] and found['to_rgb'] is True


@TRANSFORMS.register_module()
class ReadTiff(LoadImageFromFile):
    """A user's own, whose name does not tell what it is."""


def test_a_loader_of_the_users_own_reads_the_files():
    cfg = Config.fromfile(DATASETS / 'image_folder.py').to_dict()
    cfg['model'] = dict(students=[{}])
    before = preprocessor_config(cfg)
    pipeline = cfg['test_dataloader']['dataset']['pipeline']
    pipeline[0] = dict(type='ReadTiff')
    assert file_pipeline(cfg) == pipeline and preprocessor_config(cfg) == before


def test_a_wrapped_data_set_is_not_copied_into_the_config():
    cfg = Config.fromfile(DATASETS / 'image_folder.py').to_dict()
    cfg['model'] = dict(students=[{}])
    pipeline, loader = file_pipeline(cfg), cfg['test_dataloader']
    whole = test_part(cfg, ['a', 'b'], pipeline)
    assert whole['test_dataloader']['dataset']['data_root'] == loader['dataset']['data_root']
    loader['dataset'] = dict(type='KFoldDataset', num_splits=5, dataset=loader['dataset'])
    stub = dict(type='CustomDataset', classes=['a', 'b'], pipeline=pipeline)
    assert test_part(cfg, ['a', 'b'], pipeline) == dict(test_dataloader=dict(dataset=stub))
