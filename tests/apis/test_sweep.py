"""Sweeps on held-out training images, one of them really run."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from mfef_mmrazor.apis import Sweep, compare
from mfef_mmrazor.apis.comparison import read_config, read_sweep
from mfef_mmrazor.apis.sweep import all_settings, choose, hold_out
from mfef_mmrazor.engine.results import summarize, write_json

CONFIGS = Path(__file__).parents[2] / 'configs'
INDEPENDENT, DML, MFEF = (
    CONFIGS / f'{method}/{method}_resnet8-x2_1xb32-20e_digits.py'
    for method in ('independent', 'dml', 'mfef')
)
TAU, WEIGHT = 'model.distiller.tau', 'model.distiller.loss_transfer.loss_weight'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 100,
    'train_cfg.max_epochs': 1,
}


def test_settings_are_all_combinations_for_each_method():
    sweep = Sweep({f'dml:{TAU}': [2, 3, 4, 5], f'mfef:{TAU}': [2, 3], f'mfef:{WEIGHT}': [1, 2]})
    settings = all_settings([DML, MFEF], {}, sweep)
    assert [s.entry.name for s in settings[:4]] == [f'dml-tau={tau}' for tau in (2, 3, 4, 5)]
    assert [(s.trial.model.distiller.tau, s.trial.model.distiller.loss_transfer.loss_weight)
            for s in settings[4:]] == [(2, 1), (2, 2), (3, 1), (3, 2)]  # fmt: skip


def test_config_files_are_settings_as_well(tmp_path):
    half = tmp_path / DML.name.replace('dml_', 'dml-half_')
    half.write_text(f"_base_ = ['{DML}']\n")
    settings = all_settings([DML, half], {}, Sweep({TAU: [2, 3]}))
    assert {s.method for s in settings} == {'dml'}
    assert [s.entry.name for s in settings] == [
        'dml-tau=2', 'dml-tau=3', 'dml-half-tau=2', 'dml-half-tau=3'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('configs', 'sweep', 'message'),
    [
        ([DML, MFEF], Sweep({TAU: [2, 3], f'mfef:{WEIGHT}': [1, 2]}), 'dml: 2, .*mfef: 4'),
        ([INDEPENDENT, DML], Sweep({f'dml:{TAU}': [2, 3]}), 'dml: 2; .*--untuned'),
        ([INDEPENDENT, DML], Sweep({TAU: [2, 3]}), "independent-tau=2: .*argument 'tau'"),
        ([DML], Sweep({f'mfef:{TAU}': [2, 3]}), 'no config of mfef; there are those of dml'),
        ([DML], Sweep({TAU: [2, 2]}), 'dml-tau=2 is there twice'),
        ([DML], Sweep({'load_from': ['/a/b', '/a_b']}), 'would both be called dml-load_from=_a_b'),
        ([CONFIGS / 'kdcl/kdcl-general_resnet8-x2_1xb32-20e_digits.py'], Sweep({TAU: [2]}),
         'kdcl-general-tau=2: its training images cannot be held out'),
    ],
)  # fmt: skip
def test_unfair_or_impossible_sweeps_are_refused(configs, sweep, message):
    with pytest.raises(ValueError, match=message):
        all_settings(configs, {}, sweep)


def stored(*settings, seeds=(0,), untuned=()):
    """A ``sweep.json`` with these settings of DML-like methods."""
    tried = [
        dict(block='resnet8_digits', method=name.partition('-')[0], setting=name, config='x.py',
             options={}, seeds=[*seeds], untuned=name in untuned, accuracy=70.0, chosen=True)
        for name in settings
    ]  # fmt: skip
    return dict(held_out='1/5', settings=tried)


@pytest.mark.parametrize(
    ('earlier', 'message'),
    [
        (stored('mfef-tau=2'), 'mfef: 1, resnet8_digits dml: 2; expected the same number'),
        (
            stored('mfef-a', 'mfef-b', seeds=[0, 1]),
            r'mfef-a was tried .*with seeds \[0, 1\], these would be with \[0\]',
        ),
        (stored('dml-tau=2', 'dml-tau=9'), 'dml-tau=9 was tried in this work dir before'),
        (stored('mfef', 'mfef', untuned=['mfef']), 'mfef: 2, .*1 for an untuned'),
    ],
)
def test_a_later_sweep_is_as_large_as_the_earlier_one(earlier, message):
    with pytest.raises(ValueError, match=message):
        all_settings([DML], {}, Sweep({TAU: [2, 3]}), earlier)
    fair = stored('mfef-a', 'mfef-b', 'independent', untuned=['independent'])
    assert len(all_settings([DML], {}, Sweep({TAU: [2, 3]}), fair)) == 2


def test_a_sweep_on_another_network_need_not_be_like_the_earlier_one():
    earlier = stored('mfef-a', 'mfef-b', 'mfef-c', 'dml', seeds=[0, 1], untuned=['dml'])
    for tried in earlier['settings']:
        tried['block'] = 'vgg_digits'
    assert len(all_settings([DML], {}, Sweep({TAU: [2, 3]}), earlier)) == 2


def finish(work_dir, name, seed, accuracy):
    """The results of a run, made up."""
    history = [dict(epoch=1, student0=accuracy, student1=accuracy)]
    results = dict(
        seed=seed, epochs=1, history=history, predictors=summarize(history), train_seconds=1.0,
        deployed=dict(parameters=1, macs=1), git_revision='r', versions={},
    )  # fmt: skip
    write_json(work_dir / f'runs/{name}/seed{seed}/results.json', results)


def test_a_failed_setting_is_kept_and_never_chosen(tmp_path):
    sweep = Sweep({TAU: [2, 3, 4]}, seeds=[0, 1])
    settings = all_settings([DML], {}, sweep)
    with pytest.raises(
        RuntimeError, match='every setting of dml failed; .*dml-tau=2/seed0/run.log'
    ):
        choose(settings, sweep, tmp_path)
    for name, seed, accuracy in (
        ('dml-tau=2', 0, 99.0), ('dml-tau=3', 0, 60.0), ('dml-tau=3', 1, 62.0),
        ('dml-tau=4', 0, 61.0), ('dml-tau=4', 1, 60.0),
    ):  # fmt: skip
        finish(tmp_path / 'sweep', name, seed, accuracy)
    (best,), record = choose(settings, sweep, tmp_path)
    assert best.options == {TAU: 3}
    assert [(s['accuracy'], s['chosen']) for s in record['settings']] == [
        (None, False), (61.0, True), (60.5, False)
    ]  # fmt: skip


def test_a_later_sweep_keeps_what_the_earlier_one_tried(tmp_path):
    earlier = stored('mfef-a', 'mfef-b', 'independent', untuned=['independent'])
    write_json(tmp_path / 'sweep.json', earlier)
    sweep = Sweep({TAU: [2, 3]})
    settings = all_settings([DML], {}, sweep, earlier)
    for setting in settings:
        finish(tmp_path / 'sweep', setting.entry.name, 0, 50.0)
    for _ in range(2):  # the same again changes nothing
        _, found = choose(settings, sweep, tmp_path)
        write_json(tmp_path / 'sweep.json', found)
        assert found['settings'][:3] == earlier['settings']
        assert [s['setting'] for s in found['settings'][3:]] == ['dml-tau=2', 'dml-tau=3']
        assert [s['untuned'] for s in found['settings']] == [False] * 2 + [True] + [False] * 2


def without_training(monkeypatch, failing=None):
    """Let runs have made-up results at once; returns the list of those that were asked for."""
    asked = []

    def run_all(runs, work_dir, jobs, slurm):
        asked.extend(runs)
        for name, seed in runs:
            if name != failing:
                finish(work_dir, name, seed, 50.0 + seed)
        return [run for run in runs if run[0] == failing]

    monkeypatch.setattr(import_module('mfef_mmrazor.apis.compare'), 'run_all', run_all)
    return asked


def test_a_setting_that_fails_does_not_end_the_comparison(tmp_path, monkeypatch):
    """Also not where it is the first one, by which the trials are reported."""
    asked = without_training(monkeypatch, 'dml-tau=2')
    compare([DML], [0, 1], tmp_path, sweep=Sweep({TAU: [2, 3]}))
    assert asked == [('dml-tau=2', 0), ('dml-tau=3', 0), ('dml', 0), ('dml', 1)]
    assert read_config(tmp_path / 'configs/dml.yaml', {}).model.distiller.tau == 3
    assert f'| dml | {DML.name} | {TAU}=2 | failed |  |' in (tmp_path / 'table.md').read_text()

    weights = Sweep({f'mfef:{WEIGHT}': [1, 2]})  # joins it
    compare([MFEF], [0, 1], tmp_path, sweep=weights)
    assert len(json.loads((tmp_path / 'sweep.json').read_text())['settings']) == 4
    assert len(json.loads((tmp_path / 'sweep/comparison.json').read_text())['entries']) == 4
    with pytest.raises(RuntimeError, match='every setting of dml failed'):
        compare([DML], [0], tmp_path / 'other', sweep=Sweep({TAU: [2]}))


def test_a_repeated_sweep_that_is_refused_leaves_its_record_as_it_was(tmp_path, monkeypatch):
    without_training(monkeypatch)
    compare([DML], [0], tmp_path, sweep=Sweep({TAU: [2]}))
    before = {path: path.read_bytes() for path in tmp_path.glob('*.*')}
    with pytest.raises(ValueError, match=f'{TAU} was 2, is 3'):
        compare([DML], [0], tmp_path, sweep=Sweep({TAU: [3, 2]}))  # as good, so the first is taken
    assert {path: path.read_bytes() for path in tmp_path.glob('*.*')} == before


def test_a_sweep_of_another_network_joins_under_names_of_its_own(tmp_path, monkeypatch):
    asked = without_training(monkeypatch)
    first = Sweep({f'dml:{TAU}': [2, 3]}, untuned=['independent'])
    compare([INDEPENDENT, DML], [0], tmp_path / 'run', sweep=first)
    deeper = tmp_path / 'dml_resnet20-x2_1xb32-20e_digits.py'
    text = DML.read_text().replace("'../_base_", f"'{CONFIGS}/_base_")
    deeper.write_text(text.replace('resnet8', 'resnet20'))
    second = Sweep({f'dml:{TAU}': [4, 5, 6]}, seeds=[0, 1])
    # by what was compared before
    compare([deeper], [0], tmp_path / 'run', baseline='independent', sweep=second)
    trials = [f'resnet20_digits/dml-tau={tau}' for tau in (4, 5, 6)]
    assert {name for name, _ in asked[5:]} == {*trials, 'resnet20_digits/dml'}
    again = asked[:5]
    asked.clear()
    compare([INDEPENDENT, DML], [0], tmp_path / 'run', sweep=first)
    assert asked == again
    settings = read_sweep(tmp_path / 'run')['settings']
    assert [(s['seeds'], s['untuned']) for s in settings] == [
        *[([0, 1], False)] * 3, ([0], True), *[([0], False)] * 2
    ]  # fmt: skip
    table = (tmp_path / 'run/table.md').read_text()
    assert (
        '(1/5 of the training images; resnet20_digits: seeds 0, 1; resnet8_digits: seeds 0)'
        in table
    )
    assert 'Not tuned: resnet8_digits independent.' in table


def test_seeds_and_untuned_methods_of_an_earlier_versions_sweep(tmp_path):
    tried = [dict(block='', method=method) for method in ('dml', 'independent')]
    earlier = dict(held_out='1/5', seeds=[0, 1], untuned=['independent'], settings=tried)
    write_json(tmp_path / 'sweep.json', earlier)
    assert read_sweep(tmp_path)['settings'] == [
        dict(block='', method='dml', seeds=[0, 1], untuned=False),
        dict(block='', method='independent', seeds=[0, 1], untuned=True),
    ]


def test_held_out_images_are_training_images_that_no_step_sees():
    cfg = read_config(DML, {})
    whole = DATASETS.build(cfg.train_dataloader.dataset)
    hold_out(cfg, 'dml')
    train = DATASETS.build(cfg.train_dataloader.dataset)
    scored = DATASETS.build(cfg.val_dataloader.dataset)
    pixels = [
        {np.asarray(d.get_data_info(i)['img']).tobytes() for i in range(len(d))}
        for d in (whole, train, scored)
    ]
    assert (len(whole), len(train), len(scored)) == (300, 240, 60)
    assert not pixels[1] & pixels[2] and pixels[1] | pixels[2] == pixels[0]
    assert (
        cfg.val_dataloader.dataset.dataset.pipeline
        == read_config(DML, {}).val_dataloader.dataset.pipeline
    )
    assert 'test_dataloader' not in cfg


def test_images_in_memory_are_held_out_as_well():
    cfg = read_config(DML, {})
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset = dict(
            type='InMemory', cache=True, dataset=dict(loader.dataset, pipeline=[])
        )
    hold_out(cfg, 'dml')
    train = DATASETS.build(cfg.train_dataloader.dataset)
    scored = DATASETS.build(cfg.val_dataloader.dataset)
    assert (len(train), len(scored)) == (240, 60)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not seen & {image.numpy().tobytes() for image in scored.images}


@pytest.mark.slow
def test_the_best_setting_is_compared(tmp_path):
    sweep = Sweep({f'dml:{TAU}': [2.0, 3.0]}, seeds=[0, 1], untuned=['independent'])
    compare([INDEPENDENT, DML], [5], tmp_path, cfg_options=SMALL, sweep=sweep)
    found = json.loads((tmp_path / 'sweep.json').read_text())
    scores = {}
    for setting in found['settings'][1:]:
        last = [
            json.loads((tmp_path / f'sweep/runs/{setting["setting"]}/seed{seed}/results.json')
                       .read_text())['history'][-1]
            for seed in (0, 1)
        ]  # fmt: skip
        score = np.mean([entry[f'student{i}'] for entry in last for i in (0, 1)])
        assert setting['accuracy'] == pytest.approx(score, abs=1e-3)
        scores[setting['options'][TAU]] = score
    best = max(scores, key=scores.get)
    assert [s['chosen'] for s in found['settings']] == [True, best == 2.0, best == 3.0]
    assert read_config(tmp_path / 'configs/dml.yaml', {}).model.distiller.tau == best
    log = (tmp_path / 'runs/dml/seed5/run.log').read_text()
    assert f'tau={best}' in log and 'KFoldDataset' not in log
    table = (tmp_path / 'table.md').read_text()
    assert 'Not tuned: independent.' in table and f'{TAU}={best}' in table
