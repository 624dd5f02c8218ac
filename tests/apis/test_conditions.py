"""Where two configs differ, and what is allowed to."""

from pathlib import Path

import pytest

from mfef_mmrazor.apis.comparison import read_config
from mfef_mmrazor.apis.conditions import check_conditions, differences

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


@pytest.mark.parametrize('key', ['model.pretrained', 'model.init_cfg', 'val_cfg.fp16'])
def test_starts_and_precisions_are_conditions(key):
    methods = {name: read_config(CONFIG, {}) for name in ('mfef', 'plain')}
    methods['plain'].merge_from_dict({key: 'other'})
    with pytest.raises(ValueError, match=rf"differ in {key} \(None and 'other'\)"):
        check_conditions(methods, [])
    check_conditions(methods, [key])


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


def test_differences_are_named_by_dotted_keys():
    a, b = dict(x=dict(y=[1, 2]), z=1, only=3), dict(x=dict(y=[1, 3]), z=1)
    assert list(differences(a, b)) == [('only', 3, None), ('x.y.1', 2, 3)]
    assert list(differences(dict(x=[1]), dict(x=[1, 2]))) == [('x.length', 1, 2)]
