"""What is said about a config file that cannot be meant."""

from pathlib import Path

import pytest

from mfef_mmrazor.apis import load_config

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


def test_a_config_that_is_no_python(tmp_path):
    (tmp_path / 'half.py').write_text('model = dict(')
    with pytest.raises(ValueError, match='half.py: '):
        load_config(tmp_path / 'half.py')
    (tmp_path / 'name.py').write_text('model = modle')
    with pytest.raises(ValueError, match="name.py: name 'modle' is not defined"):
        load_config(tmp_path / 'name.py')


@pytest.mark.parametrize(
    'text, message',
    [
        (f'_base_ = [{str(CONFIG)!r}]\nmodel = dict(students=[_base_.studnt])', 'studnt'),
        ('lr = 1 / 0', 'division by zero'),
        ('\ufeffmodel = dict()', 'U\\+FEFF.*without a byte-order mark'),
    ],
)
def test_a_config_that_cannot_be_run(text, message, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match=f'broken.py: .*{message}'):
        load_config(path)


def test_a_config_in_a_folder_called_mmengine_that_is_no_python(tmp_path):
    path = tmp_path / 'mmengine/broken.py'
    path.parent.mkdir()
    path.write_text('model = dict(\n')
    with pytest.raises(ValueError, match=r'broken.py: .*never closed'):
        load_config(path)


@pytest.mark.parametrize(('name', 'text'), [('a.json', '{"model": '), ('a.yaml', 'model: [1')])
def test_a_config_that_is_no_json_or_yaml(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f'{name}: '):
        load_config(tmp_path / name)


def test_an_error_in_a_users_module_has_its_place(tmp_path, monkeypatch):
    (tmp_path / 'my_losses.py').write_text('scale = 2\nhalf = scale / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['my_losses'])\n")
    with pytest.raises(ValueError, match=r'division by zero \(.*my_losses.py:2\)$'):
        load_config(path)


def test_a_part_cannot_be_switched_to_mixed_precision(tmp_path):
    part = CONFIG.parents[1] / '_base_/datasets/digits.py'
    assert 'optim_wrapper' not in load_config(part, tmp_path, amp=True)


def test_what_is_only_scored_is_scored_in_mixed_precision(tmp_path):
    """As an exported student, whose config has no training."""
    path = tmp_path / 'student0.py'
    path.write_text(f'_base_ = [{str(CONFIG)!r}]\noptim_wrapper = None\n')
    assert load_config(path, amp=True).test_cfg.fp16 is True


def test_a_variable_that_only_a_base_reads_is_told(tmp_path, capsys):
    path = tmp_path / 'config.py'
    base = f'_base_ = [{str(CONFIG)!r}]\n'
    path.write_text(f'{base}student = dict(backbone=dict(depth=20))\nsize = 32\n')
    load_config(path)
    assert 'config.py: nothing in it reads size, student.' in capsys.readouterr().out
    path.write_text(f'{base}epochs = 3\ntrain_cfg = dict(max_epochs=epochs)\n')
    load_config(path)
    assert 'nothing in it reads' not in capsys.readouterr().out


def test_a_misspelt_key_of_a_config_file(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = [{str(CONFIG)!r}]\nparam_schedulers = []\n')
    with pytest.raises(KeyError, match="unknown top-level key 'param_schedulers'.*param_scheduler"):
        load_config(path)


def test_find_unused_parameters_counts_beside_the_model_wrapper(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = [{str(CONFIG)!r}]\nfind_unused_parameters = True\n')
    assert load_config(path).model_wrapper_cfg.find_unused_parameters is True
    own = load_config(path, cfg_options={'model_wrapper_cfg.find_unused_parameters': False})
    assert own.model_wrapper_cfg.find_unused_parameters is False
    assert 'find_unused_parameters' not in load_config(CONFIG).model_wrapper_cfg
