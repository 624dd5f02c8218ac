"""Real runs of shipped digits configs, trained by iterations."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from mfef_mmrazor.apis import compare, export, load_config, train
from mfef_mmrazor.apis.config import use_iterations

ROOT = Path(__file__).parents[2]
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,  # two steps are an epoch
    'train_dataloader.batch_size': 20,
    'train_dataloader.num_workers': 0,
    'val_dataloader.dataset.indices': 100,
}
BY_ITERATIONS = """
_base_ = [{base!r}]
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=7, val_interval=3)
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', by_epoch=False, T_max=7)
"""


def shipped(method):
    return ROOT / f'configs/{method}/{method}_resnet8-x2_1xb32-20e_digits.py'


def by_iterations(folder, method='mfef'):
    path = folder / f'{method}_by-iterations.py'
    path.write_text(BY_ITERATIONS.format(base=str(shipped(method))))
    return path


def config(folder, options=None):
    return load_config(by_iterations(folder), folder / 'run', {**SMALL, **(options or {})})


def results(work_dir):
    return json.loads((work_dir / 'results.json').read_text())


def losses(runner):
    """The losses of every step."""
    scalars = runner.message_hub.log_scalars
    return {
        name: values.data[0].tolist()
        for name, values in scalars.items()
        if name.startswith('train/') and 'loss' in name
    }


def test_hooks_that_are_switched_off_stay_so(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.update(checkpoint=None, logger=None)
    use_iterations(cfg)
    assert cfg.default_hooks.checkpoint is None and cfg.default_hooks.logger is None


@pytest.mark.parametrize('given, interval', [(None, 3), (1, 3), (5, 5)])
def test_checkpoints_are_saved_as_often_as_asked_for(given, interval, tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.checkpoint.interval = given
    if given is None:
        del cfg.default_hooks.checkpoint['interval']
    use_iterations(cfg)
    assert cfg.default_hooks.checkpoint.interval == interval
    assert cfg.default_hooks.checkpoint.by_epoch is False


def test_results_count_iterations(tmp_path):
    runner = train(config(tmp_path, {'model.distiller.ramp_up_epochs': 2}))
    found = results(tmp_path / 'run')
    assert [entry['iter'] for entry in found['history']] == [3, 6, 7]
    assert found['iters'] == 7 and 'epochs' not in found
    last = found['predictors']['fused']['last']
    assert (last['iter'], last['accuracy']) == (7, found['history'][-1]['fused'])
    seen = 7 / 2 * found['train_images']
    # the seconds are rounded to a tenth
    assert seen / found['images_per_second'] == pytest.approx(found['train_seconds'], abs=0.06)
    of_steps = losses(runner)
    for name, value in found['training_losses'].items():  # an epoch is two steps
        assert value == pytest.approx(sum(of_steps[f'train/{name}'][-2:]) / 2, abs=1e-4)
    assert {p.name for p in (tmp_path / 'run').glob('*.pth')} == {'iter_6.pth', 'iter_7.pth'}
    assert (tmp_path / 'run' / 'curves.png').is_file()
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['step'] for line in logged if 'accuracy/top1' in line] == [3, 6, 7]


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(tmp_path, workers):
    options = {
        'train_dataloader.num_workers': workers,
        'model.distiller.ramp_up_iters': 5,
        'default_hooks.checkpoint.max_keep_ckpts': 3,
    }
    straight = train(config(tmp_path, options))
    history = results(tmp_path / 'run')['history']
    weights = torch.load(tmp_path / 'run' / 'iter_7.pth')['state_dict']

    for stopped in (6, 3):  # between two epochs, and within one
        for later in range(stopped + 1, 8):
            (tmp_path / 'run' / f'iter_{later}.pth').unlink(missing_ok=True)
        last = tmp_path / 'run' / f'iter_{stopped}.pth'
        (tmp_path / 'run' / 'last_checkpoint').write_text(str(last))
        resumed = train(config(tmp_path, options), resume=True)
        assert losses(resumed) == losses(straight)
        assert results(tmp_path / 'run')['history'] == history
        again = torch.load(tmp_path / 'run' / 'iter_7.pth')['state_dict']
        assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_an_epoch_is_the_same_images_in_the_same_order_as_by_epochs(tmp_path):
    """At a constant weight and learning rate the losses of all steps are equal."""
    common = {**SMALL, 'train_dataloader.num_workers': 1, 'param_scheduler': None}
    iterations = train(load_config(by_iterations(tmp_path, 'dml'), tmp_path / 'run', common))
    options = {**common, 'train_cfg.max_epochs': 3}
    epochs = train(load_config(shipped('dml'), tmp_path / 'epochs', options))
    expected = losses(epochs)
    assert {name: values[:6] for name, values in losses(iterations).items()} == expected
    assert len(expected['train/loss']) == 6


@pytest.mark.slow
def test_comparison_and_export_go_by_iterations(tmp_path, capsys):
    configs = [by_iterations(tmp_path, method) for method in ('independent', 'mfef')]
    compare(configs, [0], tmp_path / 'compare', cfg_options=SMALL)
    runs = pd.read_csv(tmp_path / 'compare' / 'runs.csv')
    run = tmp_path / 'compare/runs/mfef/seed0'
    of_run = runs[runs['method'] == 'mfef'].set_index('predictor')['last']
    assert of_run['fused'] == results(run)['history'][-1]['fused']
    export(run / 'iter_6.pth', tmp_path / 'exported', 'best', ['pth'])
    assert 'validation accuracy at iteration 6 (checkpoint: iteration 6)' in capsys.readouterr().out
