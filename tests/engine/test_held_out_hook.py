"""Real runs of the shipped KDCL-General config, on a few digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from processes import in_processes

from mfef_mmrazor import compat
from mfef_mmrazor.datasets import Digits
from mfef_mmrazor.engine import HeldOutHook
from mfef_mmrazor.engine.hooks.held_out_hook import held_out

CONFIG = Path(__file__).parents[2] / 'configs/kdcl/kdcl-general_resnet8-x2_1xb32-20e_digits.py'


def runner(work_dir, **options):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 9,
            'train_dataloader.batch_size': 8,
            'train_dataloader.dataset.dataset.train_per_class': 4,
            'val_dataloader.batch_size': 3,
            'val_dataloader.dataset.indices': 3,
            **{key.replace('__', '.'): value for key, value in options.items()},
        }
    )
    return Runner.from_cfg(cfg)


def hook_of(run):
    return next(hook for hook in run.hooks if isinstance(hook, HeldOutHook))


def pixels(dataset):
    return [dataset.get_data_info(i)['img'].tobytes() for i in range(len(dataset))]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    run = runner(tmp_path_factory.mktemp('finished'))
    run.seen = []
    run.model.data_preprocessor.register_forward_hook(
        lambda module, args, out: run.seen.append((args[1], out['inputs'].shape[0]))
    )
    run.train()
    return run


def test_what_is_held_out_is_training_data_that_no_step_sees(finished):
    trained = pixels(finished.train_dataloader.dataset)
    held_out = pixels(hook_of(finished).dataloader.dataset)
    assert len(trained) == 36 and len(held_out) == 4
    every = pixels(Digits(split='train', train_per_class=4))
    assert sorted(trained + held_out) == sorted(every)
    assert not set(held_out) & (set(trained) | set(pixels(Digits(split='test'))))
    # 2 epochs: the held-out images before each, in two batches, then the steps
    epoch = [(False, 3), (False, 1)] + [(True, 8)] * 4 + [(True, 4)]
    assert finished.seen[: 2 * len(epoch)] == 2 * epoch


def test_the_log_says_what_was_found(finished):
    log = next(Path(finished.work_dir).rglob('*.log')).read_text()
    assert log.count('best on 4 held-out training images') == 2


def test_weights_are_found_on_the_held_out_images_by_the_students_in_evaluation(finished):
    finished.model.train()
    hook_of(finished).before_train_epoch(finished)
    assert all(module.training for module in finished.model.modules())
    finished.model.eval()
    dataset = hook_of(finished).dataloader.dataset
    images = torch.stack([dataset[i]['inputs'] for i in range(4)]).float()
    labels = [dataset[i]['data_samples'].gt_label.item() for i in range(4)]
    with torch.no_grad():
        p = [student((images - 78) / 96) for student in finished.model.students]
    a, b = (x.double().softmax(dim=1).numpy() - np.eye(10)[labels] for x in p)
    c = np.array([[(a * a).sum(), (a * b).sum()], [(a * b).sum(), (b * b).sum()]])
    expected = np.linalg.solve(c, [1, 1]) / np.linalg.solve(c, [1, 1]).sum()
    np.testing.assert_allclose(finished.model.distiller.weights, expected, rtol=1e-3)


def test_what_an_epoch_had_found_when_it_was_stopped_serves_for_the_rest_of_it_alone(finished):
    hook, distiller = hook_of(finished), finished.model.distiller
    hook.before_train_epoch(finished)
    found, kept = distiller.weights, torch.tensor([0.25, 0.75])
    hook.kept = kept
    hook.before_train_epoch(finished)
    assert distiller.weights is kept
    hook.before_train_epoch(finished)
    assert torch.equal(distiller.weights, found)


def test_looking_at_held_out_images_changes_nothing_else(tmp_path):
    """Without the transfer, a run with the hook is one without."""
    off = dict(model__distiller__loss_weight=0.0)
    others = [dict(type=f'mmrazor.{name}Hook') for name in ('ChannelsLast', 'EpochSeed')]
    without = dict(custom_hooks=others, model__distiller__variant='minlogit')
    states = [
        runner(tmp_path / name, **off, **options).train().state_dict()
        for name, options in (('looks', {}), ('plain', without))
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_in_a_training_by_iterations_it_looks_once_before_every_epoch(tmp_path, monkeypatch):
    by_iterations = dict(by_epoch=False, max_iters=11, val_interval=99, _delete_=True)
    run, looked = runner(tmp_path, train_cfg=by_iterations), []
    learn = run.model.distiller.learn_held_out

    def note(logits, labels):
        looked.append(run.iter)
        learn(logits, labels)

    monkeypatch.setattr(run.model.distiller, 'learn_held_out', note)
    run.train()
    assert looked == [0, 5, 10]  # 36 images in batches of 8


def test_nothing_held_out(tmp_path):
    dataset = dict(type='Digits', pipeline=[], _delete_=True)
    with pytest.raises(ValueError, match='is a Digits, so nothing is held out; put it into .*KFo'):
        runner(tmp_path, train_dataloader__dataset=dataset).train()


def test_training_and_validation_data_that_are_not_read_alike():
    files = dict(type='ImageFolder', pipeline=[dict(type='LoadImageFromFile')])
    with pytest.raises(ValueError, match='ImageFolder, and the validation data, InMemory, are not'):
        held_out(dict(type='KFoldDataset', dataset=files), dict(type='InMemory'))


def test_a_distiller_that_has_no_use_for_them(tmp_path):
    distiller = dict(type='DMLDistiller', _delete_=True)
    with pytest.raises(ValueError, match='DMLDistiller learns nothing from held-out images'):
        runner(tmp_path, model__distiller=distiller).train()


def keep_weights(folder):
    """Train one epoch in one of several processes; what it has found, as a file."""
    compat.init_cpu_processes()
    run = runner(folder, launcher='pytorch', train_cfg__max_epochs=1)
    run.train()
    torch.save(run.model.module.distiller.weights, folder / f'{run.rank}.pt')


def test_processes_find_the_same_weights_on_the_images_of_all(tmp_path):
    in_processes(2, keep_weights, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    one = runner(tmp_path / 'one', train_cfg__max_epochs=1)
    one.train()
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one.model.distiller.weights)


def test_processes_have_as_many_held_out_images_whatever_the_validation_has(tmp_path):
    run = runner(tmp_path, val_dataloader__sampler__round_up=False, train_cfg__max_epochs=1)
    run.train()
    assert hook_of(run).dataloader.sampler.round_up
