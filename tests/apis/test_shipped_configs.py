"""A config that is no longer shipped is answered with lines that give the same."""

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mfef_mmrazor.apis import load_config
from mfef_mmrazor.apis.shipped_configs import configs, successor
from mfef_mmrazor.models.builder import build

REMOVED = {
    'dml/dml_vgg16-x2_1xb128-300e_cifar100.py': ('DMLDistiller', 2, 512, 100),
    'ffl/ffl_densenet-bc-40-12-x2_1xb128-300e_cinic10.py': ('FFLDistiller', 2, 132, 10),
    'okddip/okddip_resnet32-x3_1xb128-300e_cifar10.py': ('OKDDipDistiller', 3, 64, 10),
    'ffsd/ffsd_wrn-16-2-x3_1xb128-300e_cinic10.py': ('FFSDDistiller', 3, 128, 10),
}


@pytest.mark.parametrize('name', REMOVED)
def test_the_lines_of_the_message_give_the_model(name, tmp_path):
    with pytest.raises(FileNotFoundError, match='no longer shipped') as caught:
        load_config(configs() / name)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 2
    (tmp_path / 'mine.py').write_text('\n'.join(lines))
    cfg = load_config(tmp_path / 'mine.py')
    network, data = name.split('_')[1].rpartition('-x')[0], name.split('_')[-1]
    parts = Config.fromfile(configs() / f'_base_/datasets/{data}')
    assert cfg.train_dataloader == parts.train_dataloader
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg.model)
    backbone = Config.fromfile(configs() / f'_base_/models/{network}_cifar.py').student.backbone
    assert all(student.backbone == backbone for student in cfg.model.students)
    found = (type(model.distiller).__name__, len(model.students), *head_of(model))
    assert found == REMOVED[name]


def head_of(model):
    return model.architecture.head.in_channels, model.architecture.head.num_classes


def test_one_that_is_a_base_is_answered_too(tmp_path):
    name = 'mfef_mmrazor::kdcl/kdcl_wrn-16-2-x2_1xb128-300e_cifar10.py'
    (tmp_path / 'mine.py').write_text(f'_base_ = [{name!r}]')
    with pytest.raises(FileNotFoundError, match="mine.py: (?s:.*)type='KDCLDistiller'"):
        load_config(tmp_path / 'mine.py')


@pytest.mark.parametrize(
    'name',
    [
        'dml_resnet32-x2_1xb128-300e_cifar100.py',  # is there, in another folder
        'ffsd_vgg16-x3_1xb128-300e_cifar100.py',
        'dml_vgg16-x3_1xb128-300e_cifar100.py',  # never was
        'dml_vgg16-x2_1xb128-300e_cifar100-fast.py',
        'my-dml_vgg16-x2_1xb128-300e_cifar100.py',
        'nothing.py',
    ],
)
def test_other_names_are_just_not_found(name):
    assert successor(name) == ''
    with pytest.raises(FileNotFoundError, match=f'^config file not found: {name}$'):
        load_config(name)
