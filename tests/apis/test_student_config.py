"""The config that an exported student gets."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mfef_mmrazor.apis.student_config import preprocessor_config

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
