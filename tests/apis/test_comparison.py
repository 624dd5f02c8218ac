"""What config files are called in a comparison, and how they are kept."""

import pytest
from mmengine.config import Config

from mfef_mmrazor.apis.comparison import (
    Comparison,
    Entry,
    config_file,
    name_entries,
    read_comparison,
    stored_config,
    write_comparison,
    write_config,
)

X2 = '{}_resnet8-x2_1xb32-20e_digits.py'
X3 = '{}_resnet8-x3_1xb32-20e_digits.py'


def names(configs, earlier=(), methods=None):
    return [entry.name for entry in name_entries(configs, earlier, methods)[1]]


def test_one_block_has_plain_names():
    assert names([X2.format('mfef'), X3.format('okddip')]) == ['mfef', 'okddip']


def test_a_grid_has_a_folder_per_block():
    configs = [X2.format('mfef'), 'mfef_vgg8-x2_1xb32-20e_digits.py']
    assert names(configs) == ['resnet8_digits/mfef', 'vgg8_digits/mfef']


def test_a_second_config_of_a_method_gets_a_name_of_its_own():
    configs = [X2.format('mfef'), X3.format('mfef'), 'mfef_resnet8-x2_1xb64-40e_digits.py']
    assert names(configs) == ['mfef', 'mfef-resnet8-x3', 'mfef-1xb64-40e']
    with pytest.raises(ValueError, match='mfef_resnet8-x2.*another config of this name'):
        names([configs[0], configs[0]])
    longer = 'mfef_resnet8-x2_1xb32-20e_aug_digits.py'  # has all that the other's name has
    assert names([longer, configs[0]]) == ['mfef', 'mfef-resnet8-x2-1xb32-20e-digits']
    there = [Entry('', 'mfef-resnet8-x2-1xb32-20e-digits', 'resnet8_digits', 'other.py')]
    with pytest.raises(ValueError, match='would both be called mfef-resnet8.*-digits: rename one'):
        names([longer, configs[0]], there)


def test_what_is_there_keeps_its_name():
    _, earlier = name_entries([X2.format('mfef')])
    assert names([X3.format('mfef')], earlier) == ['mfef-resnet8-x3']
    _, both = name_entries([X3.format('mfef'), X2.format('mfef')], earlier)
    assert [entry.method for entry in both] == ['mfef-resnet8-x3', 'mfef']
    grid = names([X2.format('mfef'), 'mfef_vgg8-x2_1xb32-20e_digits.py'], earlier)
    assert grid == ['mfef', 'vgg8_digits/mfef']


def test_files_that_tell_no_network_are_of_the_only_one():
    there, found = name_entries(['mine.py', X2.format('mfef')], [Entry('dml', 'dml', '', '')])
    assert {entry.block for entry in [*there, *found]} == {'resnet8_digits'}
    assert name_entries(['mine.py', 'yours.py'])[1][0].block == ''
    with pytest.raises(ValueError, match='mine.py: is it of resnet8_digits or vgg8_digits?'):
        names(['mine.py', X2.format('mfef'), 'mfef_vgg8-x2_1xb32-20e_digits.py'])


def test_what_is_compared_is_read_back(tmp_path):
    assert read_comparison(tmp_path) is None
    _, entries = name_entries([X2.format('mfef'), 'mfef_vgg8-x2_1xb32-20e_digits.py'])
    write_comparison(tmp_path, Comparison(entries, 'mfef'))
    assert read_comparison(tmp_path) == Comparison(entries, 'mfef')
    (tmp_path / 'comparison.json').write_text('{"methods": ["a", "b"], "baseline": "a"}')
    old = read_comparison(tmp_path)
    assert [entry.name for entry in old.entries] == ['a', 'b'] and old.baseline == 'a'


def test_a_config_is_kept_as_it_was(tmp_path):
    kept = dict(z=(1, 2), a=[0.1, 1e-5, None, True], b={3: 'no', 'x.y': 'é: {{'}, empty={}, t=())
    write_config(tmp_path, 'vgg8_digits/mfef-tau=2.0', Config(dict(b=kept, a=kept)))
    (path,) = (tmp_path / 'configs').rglob('*.*')
    assert path == config_file(tmp_path, 'vgg8_digits/mfef-tau=2.0') and path.suffix != '.py'
    found = stored_config(tmp_path, 'vgg8_digits/mfef-tau=2.0').to_dict()
    assert repr(found) == repr(dict(b=kept, a=kept))  # types and order too
    path.write_text("x: !!python/object/apply:os.getenv ['HOME']\n")
    with pytest.raises(ValueError, match='was not written by a comparison: could not determine'):
        stored_config(tmp_path, 'vgg8_digits/mfef-tau=2.0')
