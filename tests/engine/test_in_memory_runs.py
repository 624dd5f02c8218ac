"""Real runs with a data set in memory, from a shipped config."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mfef_mmrazor.apis import export, load_config, train
from mfef_mmrazor.apis import test as score
from mfef_mmrazor.apis.student_config import image_pipeline
from mfef_mmrazor.engine.hooks import EpochSeedHook

CONFIGS = Path(__file__).parents[2] / 'configs'
DIGITS = dict(type='Digits', pipeline=[])
MFEF = CONFIGS / 'mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
KDCL = CONFIGS / 'kdcl/kdcl-general_resnet8-x2_1xb32-20e_digits.py'


def fast(config, work_dir, **options):
    """A config on few digits, in memory."""
    cfg = load_config(config, work_dir)
    cfg.model.data_preprocessor = dict(
        cfg.data_preprocessor,
        type='mmpretrain.InMemoryDataPreprocessor',
        crop_size=8,
        **options.pop('preprocessor', {}),
    )
    few = dict(DIGITS, train_per_class=6)
    train_data = dict(type='InMemory', dataset=few, padding=1)
    if config == KDCL:
        train_data = dict(cfg.train_dataloader.dataset, dataset=train_data)
    cfg.train_dataloader.dataset = train_data
    test_data = dict(DIGITS, split='test', indices=40)
    cfg.val_dataloader.dataset = dict(type='InMemory', dataset=test_data, test_mode=True)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.merge_from_dict({'train_cfg.max_epochs': 2, **options})
    return cfg


def weights(work_dir, name='epoch_2.pth'):
    return torch.load(Path(work_dir, name), weights_only=True)['state_dict']


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run of two epochs, and what its students have seen."""
    folder = tmp_path_factory.mktemp('finished')
    runner = train(fast(MFEF, folder))
    return runner, folder


@pytest.mark.parametrize('workers', [0, 1])
def test_a_run_that_was_stopped_goes_on_exactly(finished, tmp_path, workers):
    shutil.copy(finished[1] / 'epoch_1.pth', tmp_path)
    train(fast(MFEF, tmp_path, **{'train_dataloader.num_workers': workers}), resume=True)
    assert_equal(weights(tmp_path), weights(finished[1]))


def test_results_have_the_facts_of_the_data(finished):
    folder = finished[1]
    results = Config.fromfile(folder / 'results.json')
    assert results.train_images == 60 and results.epochs == 2
    assert results.deployed.parameters == 78_042


def test_crops_are_of_the_seed_and_the_epoch_while_it_trains(finished):
    runner, _ = finished
    preprocessor = runner.model.data_preprocessor
    assert preprocessor.seed_and_epoch is None  # whoever trains it next says which epoch it is
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EpochSeedHook))
    hook.before_train_iter(runner, 0)
    assert preprocessor.seed_and_epoch == (runner.seed, 2)
    hook.after_train(runner)


def test_it_is_scored_as_it_was_in_training(finished, tmp_path):
    folder = finished[1]
    out = tmp_path / 'predictions.json'
    found = score(fast(MFEF, tmp_path), folder / 'epoch_2.pth', out)
    last = Config.fromfile(folder / 'results.json').history[-1]
    assert found['student1.accuracy/top1'] == pytest.approx(last['student1'], abs=1e-3)
    assert len(json.loads(out.read_text())) == 40
    with pytest.raises(ValueError, match='tta.*InMemory'):
        score(fast(MFEF, tmp_path), folder / 'epoch_2.pth', tta=True)


def test_an_exported_student_takes_files(finished, tmp_path):
    folder = finished[1]
    export(folder / 'epoch_2.pth', tmp_path)
    cfg = Config.fromfile(next(tmp_path.glob('*.py')))
    kinds = [transform.type for transform in cfg.test_dataloader.dataset.pipeline]
    assert kinds == ['LoadImageFromFile', 'CenterCrop', 'PackInputs']
    assert cfg.model.data_preprocessor.type == 'mmpretrain.ClsDataPreprocessor'


def test_an_exported_student_of_images_that_are_not_cropped(tmp_path):
    cfg = fast(MFEF, tmp_path)
    del cfg.model.data_preprocessor.crop_size
    assert image_pipeline(cfg) == [dict(type='PackInputs')]


def test_held_out_images_are_not_cropped(tmp_path):
    cfg = fast(KDCL, tmp_path, **{'train_cfg.max_epochs': 1})
    runner = train(cfg)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'HeldOutHook')
    assert len(hook.dataloader.dataset) == 6 and len(runner.train_dataloader.dataset) == 54
    (batch,) = [runner.model.data_preprocessor(batch, False) for batch in hook.dataloader]
    numbers = [sample.sample_idx for sample in batch['data_samples']]
    kept = runner.train_dataloader.dataset.dataset.sample_idx.tolist()
    assert not set(numbers) & set(kept)
    images = torch.stack([hook.dataloader.dataset[i]['inputs'][0] for i in range(6)])
    preprocessor = runner.model.data_preprocessor
    whole = images[:, 1:-1, 1:-1].permute(0, 3, 1, 2)  # without their padding
    expected = (whole - preprocessor.mean) / preprocessor.std
    torch.testing.assert_close(batch['inputs'], expected)


def test_each_student_sees_its_own_view(tmp_path):
    runner = Runner.from_cfg(fast(MFEF, tmp_path, preprocessor=dict(num_views=2)))
    batch = next(iter(runner.build_dataloader(runner.cfg.train_dataloader, seed=0)))
    first, second = runner.model.data_preprocessor(batch, True)['inputs']
    assert first.shape == second.shape and not torch.equal(first, second)
