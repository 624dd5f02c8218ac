"""Where two configs differ, and what is allowed to."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mfef_mmrazor.apis.comparison import read_config
from mfef_mmrazor.apis.conditions import (
    NOT_SET,
    check_conditions,
    differences,
    warn_of_long_ramp_up,
)

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


def test_a_part_of_a_condition_is_allowed_and_the_rest_is_not():
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    methods['plain'].optim_wrapper.optimizer.update(lr=0.2, momentum=0.8)
    with pytest.raises(ValueError) as error:
        check_conditions(methods, [])
    hint = str(error.value).partition('--allow ')[2].split()
    assert hint == ['optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.momentum']
    with pytest.raises(ValueError, match=r'momentum \(0.9 and 0.8\). .*--allow [a-z_.]*momentum$'):
        check_conditions(methods, hint[:1])
    check_conditions(methods, hint)
    check_conditions(methods, ['optim_wrapper'])


@pytest.mark.parametrize(
    'key', ['model.pretrained', 'model.init_cfg', 'val_cfg.fp16', 'val_cfg.dtype']
)
def test_starts_and_precisions_are_conditions(key):
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    methods['plain'].merge_from_dict({key: 'other'})
    with pytest.raises(ValueError, match=rf"differ in {key} \(None and 'other'\)"):
        check_conditions(methods, [])
    check_conditions(methods, [key])


@pytest.mark.parametrize(
    'key',
    [
        'train_dataloader.batch_size', 'train_dataloader.dataset.train_per_class',
        'val_dataloader.dataset.indices', 'val_evaluator.topk', 'param_scheduler.type',
        'train_cfg.max_epochs', 'randomness.seed', 'load_from', 'auto_scale_lr',
    ],
)  # fmt: skip
def test_data_schedule_and_scoring_are_conditions(key):
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    methods['plain'].merge_from_dict({key: 'other'})
    with pytest.raises(ValueError, match=f'differ in {key}'):
        check_conditions(methods, [])


@pytest.mark.parametrize('key', ['sync_bn', 'default_hooks.sampler_seed.type'])
def test_what_else_runs_is_a_condition(key):
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    methods['plain'].merge_from_dict(
        {'default_hooks.checkpoint.interval': 7, 'default_hooks.logger.interval': 3}
    )
    check_conditions(methods, [])  # only what is kept of the training
    methods['plain'].merge_from_dict({key: 'other'})
    with pytest.raises(ValueError, match=rf"differ in {key} \(.* and 'other'\)"):
        check_conditions(methods, [])
    check_conditions(methods, [key])


@pytest.mark.parametrize('change', ['timer', 'visualization', 'all'])
def test_hooks_that_change_nothing_are_none(change):
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    if change == 'timer':
        del methods['plain'].default_hooks.timer
    elif change == 'visualization':
        methods['plain'].default_hooks.visualization = dict(type='VisualizationHook', enable=False)
    else:  # mmengine adds its own
        methods['plain'].pop('default_hooks')
    check_conditions(methods, [])


def test_the_normalisation_that_mmengine_gives_to_the_model_is_a_condition():
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    del methods['plain'].model.data_preprocessor
    check_conditions(methods, [])  # it stands at the top as well
    methods['plain'].data_preprocessor.mean = [0.0]
    with pytest.raises(ValueError, match='differ in model.data_preprocessor.mean'):
        check_conditions(methods, [])


def test_differences_are_named_by_dotted_keys():
    a, b = dict(x=dict(y=[1, 2]), z=1, only=3), dict(x=dict(y=[1, 3]), z=1)
    assert list(differences(a, b)) == [('only', 3, NOT_SET), ('x.y.1', 2, 3)]
    assert list(differences(dict(x=None), {})) == [('x', None, NOT_SET)]
    assert list(differences(dict(x=[1]), dict(x=[1, 2]))) == [('x.length', 1, 2)]


BY_ITERATIONS = {'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=30)}
WITHOUT = {'model.distiller': dict(_delete_=True, type='ONEDistiller')}
LONG = 'ramp_up_epochs=80 (the default of ONEDistiller), but max_epochs=20: the weight of the '
LONG += 'distillation gets to 0.055 of 1. About a quarter of the training is usual: '


@pytest.mark.parametrize(
    'options, warning',
    [
        (WITHOUT, LONG + 'model.distiller.ramp_up_epochs=5'),
        ({'train_cfg.max_epochs': 4}, 'ramp_up_epochs=5, but max_epochs=4'),
        ({**BY_ITERATIONS, 'model.distiller.ramp_up_iters': 31}, 'ramp_up_iters=31, but max_it'),
        ({**BY_ITERATIONS, 'model.distiller.ramp_up_iters': 30}, None),
        ({'model.distiller.ramp_up_iters': 10, 'model.distiller.ramp_up_epochs': 80}, None),
        ({'model.distiller._scope_': 'mmrazor'}, None),
        ({'model.distiller': dict(_delete_=True, type='DMLDistiller')}, None),
        ({'model.distiller.ramp_up_epochs': 20}, None),
        ({'model': dict(_delete_=True, type='mmpretrain.ImageClassifier')}, None),
    ],
    ids=str,
)
def test_a_ramp_up_longer_than_the_training_is_warned_of(capsys, options, warning):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(options)
    warn_of_long_ramp_up('one', cfg)
    found = ''.join(capsys.readouterr())
    assert f'one: {warning}' in found if warning else found == ''
