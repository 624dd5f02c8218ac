"""mmrazor's own configs, which name mmcls, under the launcher and unedited."""

import json
import math
from pathlib import Path

import mmrazor
import pytest
from processes import run_python

from mfef_mmrazor.mmcls_names import translate

STEP = Path(__file__).with_name('one_step_of_mmrazors.py')
SHIPPED = Path(mmrazor.__file__).parent / '.mim/configs/distill/mmcls'
README = Path(__file__).parents[1] / 'configs/mmrazor/README.md'
# they reach for the module inside the wrapper of several processes
UNDER_TORCHRUN = ('dafl', 'dfad', 'zskt')
UNSERVED = ('deit',)
QUICK = ('byot',)


def losses(names, folder, *torchrun):
    """One step of each of the configs."""
    step = '-m', 'mfef_mmrazor.run', STEP, 'losses.json', *names
    done = run_python(folder, *torchrun, *step)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / 'losses.json').read_text())


def configs(wanted):
    return [
        str(path.relative_to(SHIPPED))
        for path in sorted(SHIPPED.glob('*/*.py'))
        if wanted(path.parent.name)
    ]


def check(found, names):
    assert list(found) == names
    for name, own in found.items():
        assert any('distill' in key for key in own), name
        assert all(math.isfinite(value) for value in own.values()), name


def test_names_of_mmcls():
    assert translate("a = dict(type='mmcls.LinearClsHead', _scope_='mmcls')") == (
        "a = dict(type='mmpretrain.LinearClsHead', _scope_='mmpretrain')"
    )
    assert translate("type='PackClsInputs', 'PackCRDClsInputs'") == (
        "type='PackInputs', 'PackCRDClsInputs'"
    )
    unchanged = "_base_ = '../../_base_/datasets/mmcls/cifar.py'  # 'mmrazor::vanilla/mmcls/wrn.py'"
    assert translate(unchanged) == unchanged


def test_configs_that_name_mmcls_in_every_way_train_unedited(tmp_path):
    names = configs(lambda folder: folder in QUICK)
    check(losses(names, tmp_path), names)


@pytest.mark.slow
def test_the_others_train_unedited(tmp_path):
    names = configs(lambda folder: folder not in QUICK + UNDER_TORCHRUN + UNSERVED)
    check(losses(names, tmp_path), names)


@pytest.mark.slow
def test_data_free_ones_train_under_torchrun(tmp_path):
    names = configs(lambda folder: folder in UNDER_TORCHRUN)
    torchrun = ('-m', 'torch.distributed.run', '--nproc-per-node=1', '--standalone')
    check(losses(names, tmp_path, *torchrun), names)


def test_the_card_lists_all_of_them():
    text = README.read_text()
    assert all(f'`{folder.name}`' in text for folder in SHIPPED.iterdir() if folder.is_dir())
