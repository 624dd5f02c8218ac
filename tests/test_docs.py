"""What the documentation says works as it is written there."""

import copy
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.utils import digit_version
from PIL import Image
from processes import run_script

from mfef_mmrazor import datasets, engine
from mfef_mmrazor.apis import export, load_config, train
from mfef_mmrazor.apis.checkpoints import build_trained, read_checkpoint
from mfef_mmrazor.apis.conditions import warn_of_long_ramp_up
from mfef_mmrazor.apis.show_maps import prepare
from mfef_mmrazor.compat import NEWEST_TESTED
from mfef_mmrazor.models import backbones

ROOT = Path(__file__).parents[1]
SMALL = {
    'train_cfg.max_epochs': 1,
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 50,
}


def code_blocks(page, language='python'):
    return re.findall(rf'```{language}\n(.*?)```', (ROOT / 'docs' / page).read_text(), re.S)


def test_a_method_of_ones_own_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    method, config, test = code_blocks('adding_a_method.md')
    Path('median_distiller.py').write_text(method)
    exec(
        f'{test}\ntest_the_losses_are_those_of_the_formula()',
        vars(import_module('median_distiller')),
    )
    Path('median_digits.py').write_text(config.replace('CONFIGS', str(ROOT / 'configs')))
    runner = train(load_config('median_digits.py', 'run', SMALL, seed=0))
    hub = runner.message_hub.log_scalars
    for name in ('loss_median', 'loss_pooled'):
        assert hub[f'train/distill.{name}'].current() > 0
    assert Path('run/results.json').is_file()


CROP = dict(type='CenterCrop', crop_size=16)
RESIZED = {
    'as the config says': None,
    'shorter edge': [dict(type='ResizeEdge', scale=20, interpolation='bicubic'), CROP],
    'shorter edge alone': [dict(type='ResizeEdge', scale=16)],
    'to a size, then cropped': [dict(type='Resize', scale=(24, 20)), CROP],
    'cropped alone': [CROP],
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint, and the config of its training."""
    folder = tmp_path_factory.mktemp('trained')
    config = ROOT / 'configs/dml/dml_resnet8-x2_1xb32-20e_digits.py'
    cfg = load_config(config, folder, SMALL, seed=0)
    train(cfg)
    return folder / 'epoch_1.pth', cfg


@pytest.mark.parametrize('resized', RESIZED)
def test_an_exported_student_runs_without_torch_on_what_was_scored(
    resized, trained, tmp_path, monkeypatch
):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    checkpoint, cfg = trained
    config = None
    if RESIZED[resized]:  # BGR from files, 0 to 255
        config = Path('config.py')
        cfg = copy.deepcopy(cfg)
        cfg.model.data_preprocessor = dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=True)
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.pipeline = [*RESIZED[resized], dict(type='PackInputs')]
        cfg.dump(config)
    export(checkpoint, 'exported', 0, ['onnx'], config=config)
    size = (41, 41, 3) if resized == 'shorter edge alone' else (41, 30, 3)
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(image).save('some.png')
    (script,) = [block for block in code_blocks('taking_home.md') if 'onnxruntime' in block]
    script += '\nimport sys\nassert "torch" not in sys.modules\nprint(logits.tolist())'
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, logits = done.stdout.splitlines()
    stored, cfg = read_checkpoint(checkpoint, config)
    with torch.no_grad():
        inputs, _ = prepare(cfg, Path('some.png'))
        (expected,) = build_trained(stored, cfg).predict_logits(inputs)['student0']
    assert label == str(int(expected.argmax()))
    np.testing.assert_allclose(json.loads(logits)[0], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_tutorial_runs_to_the_digit_at_its_end(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'docs'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    nbformat = pytest.importorskip('nbformat')
    short = (ROOT / 'docs/tutorial.ipynb').read_text().replace('EPOCHS = 10', 'EPOCHS = 2')
    notebook = nbformat.reads(short, as_version=4)
    import_module('run_notebook').run(notebook)
    printed = [out for out in notebook.cells[-2].outputs if out.output_type == 'stream']
    assert printed[-1].text.startswith('the digit is a ')
    pictures = [out for cell in notebook.cells for out in cell.get('outputs', ())]
    assert sum('image/png' in out.get('data', {}) for out in pictures) == 3


@pytest.mark.parametrize('page', ['../README.md', 'comparing.md'])
def test_a_comparison_is_of_configs_that_can_be_compared(page):
    command, *_ = [x for x in code_blocks(page, 'bash') if x.startswith('python tools/compare.py')]
    words = ['bash', '-c', command.replace('python', 'printf "%s\\n"', 1)]
    script, *args = subprocess.check_output(words, cwd=ROOT, text=True).splitlines()
    done = run_script(ROOT, script, *args, '--dry-run')
    assert done.returncode == 0, done.stderr
    assert '20 runs, 2 at a time' in done.stdout


def test_the_config_on_the_page_builds(tmp_path):
    (config,) = code_blocks('configs.md')
    path = tmp_path / 'three.py'
    path.write_text(config.replace('../_base_', str(ROOT / 'configs/_base_')))
    cfg = load_config(path)
    assert [student.backbone.depth for student in cfg.model.students] == [20, 20]


def test_the_newest_versions_of_the_readme_are_those_that_need_no_warning():
    rows = re.findall(r'^\| [\w.-]+ \| 3\.\d+ \| (.+?) \|', (ROOT / 'README.md').read_text(), re.M)
    found = {}
    for row in rows:
        for part in row.split(', '):
            name, version = part.split()
            name = name.removeprefix('onedl-').removesuffix('-lite')
            found[name] = max(found.get(name, version), version, key=digit_version)
    assert {name: found[name] for name in NEWEST_TESTED} == NEWEST_TESTED


def test_another_method_over_a_shorter_config_has_a_ramp_up_that_fits(tmp_path, capsys):
    for name, block in enumerate(code_blocks('../configs/README.md')):
        path = tmp_path / f'{name}.py'
        path.write_text(block)
        cfg = load_config(path)
        assert cfg.model.distiller.type == 'ONEDistiller'
        warn_of_long_ramp_up(path.name, cfg)
    assert 'ramp_up' not in ''.join(capsys.readouterr())


def test_all_hooks_networks_and_data_sets_are_in_the_reference():
    page, table = [(ROOT / 'docs' / name).read_text() for name in ('api.md', 'configs.md')]
    names = [f'engine.{name}' for name in engine.__all__ if name.endswith('Hook')]
    assert [name for name in names if f'`{name.removeprefix("engine.")}`' not in table] == []
    names += [f'models.{name}' for name in backbones.__all__]
    names += [f'datasets.{name}' for name in datasets.__all__ if name != 'BrokenImageError']
    assert [name for name in names if f'autoclass:: mfef_mmrazor.{name}\n' not in page] == []


def test_the_hook_of_the_example_is_where_the_page_says():
    cfg = load_config(ROOT / 'configs/dml/dml_resnet8-x2_1xb32-20e_digits.py')
    assert cfg.custom_hooks[6].type == 'mmrazor.FiniteHook'
    assert 'custom_hooks.6.skip_nonfinite' in (ROOT / 'docs/configs.md').read_text()


def test_every_page_is_in_the_table_of_contents():
    pages = {
        path.stem for path in (ROOT / 'docs').glob('*.[mi]*') if path.suffix in ('.md', '.ipynb')
    } - {'index'}
    index = (ROOT / 'docs/index.md').read_text()
    assert pages <= set(re.findall(r'^- \[.+?\]\((\w+)\.\w+\)', index, re.M))
    assert 'toctree' not in index  # GitHub would show it as code
