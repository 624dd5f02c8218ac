"""Misspelt keys of configs and options: found, named, and no others."""

import importlib.util
from pathlib import Path

import mmpretrain
import pytest
from mmengine.config import Config
from mmrazor.registry import MODELS
from torch import nn

from mfef_mmrazor.apis import load_config
from mfef_mmrazor.apis.config_keys import check_custom_keys, check_keys, typos
from mfef_mmrazor.models.builder import build

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'

MISSPELT = {  # as an option: what is misspelt, and what it was to be
    'default_hooks.chekpoint.interval': ('default_hooks', 'chekpoint', 'checkpoint'),
    'default_hooks.loger.interval': ('default_hooks', 'loger', 'logger'),
    'default_hooks.sampler_sed.type': ('default_hooks', 'sampler_sed', 'sampler_seed'),
    'optim_wrapper.paramwise_cfg.custom_kyes': ('paramwise_cfg', 'custom_kyes', 'custom_keys'),
    'optim_wrapper.paramwise_cfg.custom_keys.distiller.decay_mutl': (
        'custom_keys.distiller', 'decay_mutl', 'decay_mult',
    ),
    'optim_wrapper.paramwise_cfg.layer_decay_rat': (
        'paramwise_cfg', 'layer_decay_rat', 'layer_decay_rate',
    ),
    'optim_wrapper.optimizer.momentm': ('optimizer', 'momentm', 'momentum'),
    'auto_scale_lr.enabled': ('auto_scale_lr', 'enabled', 'enable'),
    'env_cfg.mp_cg.mp_start_method': ('env_cfg', 'mp_cg', 'mp_cfg'),
    'env_cfg.dist_cfgg.backend': ('env_cfg', 'dist_cfgg', 'dist_cfg'),
    'env_cfg.mp_cfg.mp_start_metod': ('mp_cfg', 'mp_start_metod', 'mp_start_method'),
    'randomness.sed': ('randomness', 'sed', 'seed'),
    'param_scheduler.T_mxa': ('param_scheduler', 'T_mxa', 'T_max'),
    'train_dataloader.num_worker': ('train_dataloader', 'num_worker', 'num_workers'),
    'train_dataloader.dataset.train_per_clas': ('dataset', 'train_per_clas', 'train_per_class'),
    'train_dataloader.dataset.pipeline.1.paddign': ('pipeline', 'paddign', 'padding'),
    'val_evaluator.topkk': ('val_evaluator', 'topkk', 'topk'),
    'custom_hooks.0.tpye': ('custom_hooks', 'tpye', 'type'),
    'model.distiler.tau': ('model', 'distiler', 'distiller'),
    'model.distiller.atention': ('model.distiller', 'atention', 'attention'),
    'model.distiller.multi_scale.scale': ('model.distiller.multi_scale', 'scale', 'scales'),
    'model.students.0.backbone.depht': ('model.students.backbone', 'depht', 'depth'),
}  # fmt: skip


@pytest.mark.parametrize('option', MISSPELT)
def test_a_misspelt_key_is_named(option, tmp_path):
    part, key, meant = MISSPELT[option]
    message = f"{part}: unknown key '{key}' .*nearest: {meant}|{part}: unknown key '{key}'; nearest"
    with pytest.raises(KeyError, match=message):
        load_config(DIGITS, cfg_options={option: 1})
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict({option: 1})
    cfg.dump(tmp_path / 'config.py')
    with pytest.raises(KeyError, match=message):
        load_config(tmp_path / 'config.py')


def test_typos_of_all_keys_are_found():
    path = ROOT / 'tests/chaos/typos.py'
    spec = importlib.util.spec_from_file_location('typos', path)
    chaos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chaos)
    counts = chaos.sweep([DIGITS, ROOT / 'configs/mmrazor/kd_resnet8_1xb32-20e_digits.py'])
    assert counts['keys'] > 150 and counts['typos'] > 3000
    assert counts['silent'] == 0 and counts['named'] >= 0.9 * counts['typos']


def test_what_a_typo_is():
    assert typos('lr') == {'l', 'r', 'llr', 'lrr', 'rl'}
    assert typos('aab') == {'ab', 'aa', 'aaab', 'aabb', 'aba'}


def test_own_variables_are_left_alone(tmp_path):
    names = ['student', 'depth', 'max_epochs', 'pipeline', 'data_root', 'norm_cfg']
    lines = [f'{name} = dict(tpye=1)' for name in names]
    (tmp_path / 'config.py').write_text('\n'.join([f'_base_ = [{str(DIGITS)!r}]', *lines]))
    load_config(tmp_path / 'config.py')


def test_what_may_be_meant_is_only_warned_of(capsys):
    @MODELS.register_module(name='TestTakesAnything')
    class Anything(nn.Module):
        def __init__(self, depth, **kwargs):
            super().__init__()

    try:
        for kind in ('TestTakesAnything', 'TestOfAPluginThatIsNotThere'):
            check_keys(Config(dict(model=dict(type=kind, depht=3, tpye=2))))
    finally:
        MODELS.module_dict.pop('TestTakesAnything')
    said = capsys.readouterr().out
    assert "model: unknown key 'depht' of TestTakesAnything; nearest: depth" in said
    assert "model: unknown key 'tpye' of TestOfAPluginThatIsNotThere; nearest: type" in said


def test_mmpretrains_own_configs_have_none(capsys):
    folder = Path(mmpretrain.__file__).parent / '.mim/configs'
    paths = sorted(path for path in folder.rglob('*_in1k.py') if '_base_' not in path.parts)[::25]
    assert len(paths) > 10
    for path in paths:
        check_keys(Config.fromfile(path))
    assert 'unknown key' not in capsys.readouterr().out


def test_a_pattern_of_no_parameter_is_warned_of(capsys):
    cfg = Config.fromfile(DIGITS)
    model = build(cfg.model)
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    keys['architecture.backbone.layer1'] = dict(lr_mult=0.1)
    check_custom_keys(cfg, model)
    assert capsys.readouterr().out == ''
    keys['distillre'] = keys['backbon.layer'] = dict(lr_mult=0.1)
    check_custom_keys(cfg, model)
    said = capsys.readouterr().out
    assert "custom_keys: 'distillre' is in no name of a parameter" in said
    assert 'nearest: distiller' in said and "'backbon.layer'" in said
    assert said.count('changes nothing') == 2


def test_a_class_that_a_pure_python_config_imports_is_not_a_key(tmp_path):
    path = tmp_path / 'pure.py'
    path.write_text(
        'from mmengine.visualization import LocalVisBackend, Visualizer\n'
        'visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])\n'
        'optim_wraper = dict()\n'
    )
    with pytest.raises(KeyError, match="unknown top-level key 'optim_wraper'"):
        load_config(path)
    path.write_text(path.read_text().replace('optim_wraper', 'optim_wrapper'))
    assert load_config(path).visualizer.type
