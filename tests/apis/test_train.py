"""Real runs of the shipped digits config, shrunken, through the API and through the tools."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from processes import run_script

from mfef_mmrazor.apis import load_config, train, user_errors
from mfef_mmrazor.apis import test as score
from mfef_mmrazor.engine import ResultsHook
from mfef_mmrazor.engine.results import device_name

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
SHARED = ROOT / 'configs/ffl/ffl_resnet8-x2-shared2_1xb32-20e_digits.py'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 100,
    'test_dataloader.dataset.indices': 100,
    'train_cfg.max_epochs': 2,
}
ENHANCED = ['enhanced0', 'enhanced1', 'enhanced_ensemble']
NAMES = ['student0', 'student1', 'ensemble', 'fused', *ENHANCED]


def config(work_dir, seed=0, amp=False, path=CONFIG, **options):
    options = {**SMALL, **{key.replace('__', '.'): v for key, v in options.items()}}
    return load_config(path, work_dir, options, seed=seed, amp=amp)


def results(work_dir):
    return json.loads((Path(work_dir) / 'results.json').read_text())


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """One finished run of two epochs."""
    work_dir = tmp_path_factory.mktemp('finished')
    train(config(work_dir))
    return work_dir


def test_a_run_leaves_results_and_a_picture(finished):
    found = results(finished)
    assert list(found['predictors']) == NAMES
    assert [entry['epoch'] for entry in found['history']] == [1, 2]
    last = found['predictors']['fused']['last']
    assert (last['epoch'], last['accuracy']) == (2, found['history'][-1]['fused'])
    assert found['seed'] == 0 and found['epochs'] == 2 and found['images_per_second'] > 0
    assert found['train_images'] == 40
    logged = torch.load(finished / 'epoch_2.pth')['log_history']
    losses = found['training_losses']
    for name, value in losses.items():  # 40 images are two steps
        assert value == pytest.approx(float(logged[f'train/{name}'][0][-2:].mean()), abs=1e-4)
    assert losses.pop('loss') == pytest.approx(sum(losses.values()), abs=1e-3) and len(losses) == 8
    assert found['versions']['torch'] and found['peak_memory_mb'] > 100
    assert found['device'] == device_name()
    assert (finished / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_same_seed_same_numbers_other_seed_others(finished, tmp_path):
    train(config(tmp_path / 'same'))
    train(config(tmp_path / 'other', seed=1))
    assert results(tmp_path / 'same')['history'] == results(finished)['history']
    assert results(tmp_path / 'other')['history'] != results(finished)['history']


def test_a_resumed_run_with_a_shared_trunk_goes_on_where_it_stopped(tmp_path):
    options = dict(path=SHARED, train_cfg__max_epochs=3)
    train(config(tmp_path, **options))
    straight = results(tmp_path)['history']
    weights = torch.load(tmp_path / 'epoch_3.pth')['state_dict']

    (tmp_path / 'epoch_3.pth').unlink()  # as if stopped in the third epoch
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    train(config(tmp_path, **options), resume=True)
    assert results(tmp_path)['history'] == straight
    resumed = torch.load(tmp_path / 'epoch_3.pth')['state_dict']
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_no_epoch_is_made_up_for_that_would_not_have_been_scored(tmp_path):
    options = dict(train_cfg__max_epochs=3, train_cfg__val_begin=3)
    train(config(tmp_path, **options))
    straight = results(tmp_path)['history']
    assert [entry['epoch'] for entry in straight] == [3]
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    train(config(tmp_path, **options), resume=True)
    assert results(tmp_path)['history'] == straight


def test_a_run_without_a_seed_goes_on_with_the_one_it_had(tmp_path):
    def without_seed(epochs):
        cfg = config(tmp_path, train_cfg__max_epochs=epochs)
        cfg.randomness = dict(seed=None)
        return cfg

    first = train(without_seed(1))
    assert train(without_seed(2), resume=True).cfg.randomness.seed == first.seed


def test_a_test_needs_no_training_data(finished, tmp_path):
    cfg = config(tmp_path, seed=5, resume=True)  # which is for a training
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg.pop(part)
    whole = score(config(tmp_path), finished / 'epoch_2.pth')
    assert score(cfg, finished / 'epoch_2.pth') == whole


def test_data_of_other_classes_than_the_training_had_is_refused(finished, tmp_path):
    digits = [*'0123456789']
    for other, message in (
        ([*digits[:9], 'A'], 'missing: 9; unexpected: A'),
        (digits[:9], 'missing: 9; unexpected: none'),
        (digits[::-1], 'the same in another order'),
    ):
        cfg = config(tmp_path, test_dataloader__dataset__metainfo=dict(classes=other))
        with pytest.raises(ValueError, match=rf'epoch_2.pth was trained on: {message}\. Give'):
            score(cfg, finished / 'epoch_2.pth')


def test_images_that_are_left_out_of_every_epoch_are_not_counted(tmp_path):
    whole = config(tmp_path, train_dataloader__batch_size=30, train_cfg__max_epochs=1)
    whole.train_dataloader.drop_last = True
    train(whole)
    found = results(tmp_path)
    seconds = torch.load(tmp_path / 'epoch_1.pth')['results']['seconds']
    assert found['images_per_second'] == round(30 / seconds, 1)  # of 40 images


def test_a_last_epoch_that_was_not_scored_is_scored_on_resuming(tmp_path):
    options = dict(train_cfg__max_epochs=3, train_cfg__val_interval=2)
    train(config(tmp_path, **options))
    straight = results(tmp_path)
    assert [entry['epoch'] for entry in straight['history']] == [2, 3]
    (tmp_path / 'results.json').unlink()  # as if stopped while the last epoch was scored
    checkpoint = torch.load(tmp_path / 'epoch_3.pth')
    seconds = checkpoint['results']['seconds']
    checkpoint['results'].update(revisions=['another'], devices=['one, 1 thread'])
    torch.save(checkpoint, tmp_path / 'epoch_3.pth')
    train(config(tmp_path, **options), resume=True)
    resumed = results(tmp_path)
    assert resumed['history'] == straight['history']
    assert resumed['train_seconds'] == straight['train_seconds'] == round(seconds, 1)
    # nothing was trained by this revision, on this device
    assert (resumed['git_revision'], resumed['device']) == ('another', 'one, 1 thread')


def test_a_start_from_another_runs_weights_is_no_resuming_of_it(finished, tmp_path):
    checkpoint = str(finished / 'epoch_2.pth')
    options = dict(load_from=checkpoint, train_cfg__max_epochs=2)
    train(config(tmp_path, seed=1, **options), resume=True)
    straight = results(tmp_path)
    assert [entry['epoch'] for entry in straight['history']] == [1, 2] and straight['seed'] == 1
    assert straight['history'] != results(finished)['history']

    (tmp_path / 'epoch_2.pth').unlink()  # as if stopped in the second epoch
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    train(config(tmp_path, seed=1, **options), resume=True)
    assert results(tmp_path)['history'] == straight['history']


def test_an_earlier_run_in_the_same_folder_is_not_taken_for_this_one(
    finished, tmp_path, capsys, monkeypatch
):
    work_dir = tmp_path / 'used'
    shutil.copytree(finished, work_dir)
    workers = dict(train_dataloader__num_workers=1)
    train(config(work_dir, **workers), resume=True)
    assert 'other settings' not in capsys.readouterr().out

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    changed = dict(model__distiller__tau=5, optim_wrapper__optimizer__lr=0.5)
    train(config(work_dir, **changed), resume=True)
    assert re.search(
        'epoch_2.pth, .* other settings: model.distiller.tau was not set, is 5, .*'
        'The optimizer goes on with the learning rate and weight decay that are stored',
        capsys.readouterr().out,
    )
    earlier = {path.name: path.read_bytes() for path in work_dir.iterdir() if path.is_file()}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ResultsHook, 'after_train_iter', interrupt)
        train(config(work_dir, **changed))
    assert not any(path.suffix in ('.json', '.pth') for path in work_dir.iterdir())
    kept = {path.name: path.read_bytes() for path in (work_dir / 'earlier_1').iterdir()}
    assert {'results.json', 'curves.png', 'epoch_2.pth', 'last_checkpoint'} <= kept.keys()
    assert kept.items() <= earlier.items()
    again = train(config(work_dir, **changed), resume=True)
    assert again.epoch == 2 and len(results(work_dir)['history']) == 2


def test_a_run_may_start_from_a_checkpoint_in_its_own_folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'run')
    cfg = config(tmp_path / 'run')
    cfg.load_from = str(tmp_path / 'run/epoch_2.pth')
    train(cfg)
    assert (tmp_path / 'run/earlier_1/epoch_2.pth').read_bytes() == (
        finished / 'epoch_2.pth'
    ).read_bytes()
    assert results(tmp_path / 'run')['history'] != results(finished)['history']


def test_interrupting_a_tool_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped, user_errors():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().err.startswith('interrupted: --resume goes on from the last')


def test_resume_of_a_finished_run_writes_the_results_again(finished):
    before = results(finished)['history']
    (finished / 'results.json').unlink()
    train(config(finished), resume=True)
    assert results(finished)['history'] == before


def test_scores_of_a_checkpoint_are_those_of_its_epoch(finished, tmp_path):
    metrics = score(config(tmp_path), finished / 'epoch_2.pth')
    last = results(finished)['history'][-1]
    assert {name: metrics[f'{name}.accuracy/top1'] for name in NAMES} == pytest.approx(
        {name: last[name] for name in NAMES}, abs=1e-4
    )


def test_amp_trains_in_bf16_on_the_cpu(finished, tmp_path):
    runner = train(config(tmp_path, amp=True))
    assert type(runner.optim_wrapper).__name__ == 'BFloat16OptimWrapper'
    dtypes = []
    conv = runner.model.architecture.backbone.conv1
    conv.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    runner.val_loop.run()
    assert set(dtypes) == {torch.bfloat16}  # scored as it is trained
    weights = [
        torch.load(folder / 'epoch_2.pth', weights_only=True)['state_dict']
        for folder in (tmp_path, finished)
    ]
    for key, value in weights[1].items():
        assert weights[0][key].dtype == value.dtype
    key = 'architecture.backbone.conv1.weight'
    assert not torch.equal(weights[0][key], weights[1][key])
    assert torch.allclose(weights[0][key], weights[1][key], atol=0.1)


MISTAKES = {
    'misspelt part': (
        dict(model__distiller__atention=None),
        "model.distiller: unknown key 'atention' of MFEFDistiller; nearest: attention",
    ),
    'misspelt distiller': (
        dict(model__distiller__type='MFEFDistiler'),
        'MFEFDistiler is not registered in mmrazor or mmpretrain; nearest: MFEFDistiller',
    ),
    'misspelt key': (dict(param_schedulers=[]), "option 'param_schedulers' belongs to no part"),
    'scales': (dict(model__distiller__multi_scale__scales=5), 'scales that fit: [2, 4, 8, 16]'),
    'recorder': (
        dict(
            model__distiller__recorders__feature=dict(type='ModuleOutputs', source='bakbone'),
            model__distiller__in_channels=64,
        ),
        "student0 has no module 'bakbone'; nearest: backbone",
    ),
    'checkpoint not there': (dict(load_from='nowhere.pth'), 'checkpoint not found: nowhere.pth'),
    'data not there': (
        dict(train_dataloader__dataset=dict(_delete_=True, type='CustomDataset',
                                            data_root='nowhere', pipeline=[])),
        'data folder not found: nowhere',
    ),
    'map of other channels': (dict(model__distiller__in_channels=32), 'stands for a map of'),
    'option of nothing': (dict(max_epochs=1), "option 'max_epochs' belongs to no part"),
    'option of a variable that was used': (
        {'student__backbone__depth': 20}, "the config has used its variable 'student' already"
    ),
    'option of what the model has': (
        dict(data_preprocessor__mean=[0]), "used its variable 'data_preprocessor' already"
    ),
    'iterations': (dict(train_cfg__by_epoch=False), 'expected max_iters, and no max_epochs'),
    'a schedule by epochs': (
        dict(train_cfg=dict(_delete_=True, by_epoch=False, max_iters=4)),
        'CosineAnnealingLR goes by epochs, but the training by iterations',
    ),
    'half an epoch': (dict(train_cfg__max_epochs=0.5), 'train_cfg.max_epochs=0.5, expected'),
    'never validated': (dict(train_cfg__val_interval=0), 'train_cfg.val_interval=0, expected'),
    'no images': (dict(train_dataloader__batch_size=0), 'expected a whole number, 1 or more'),
    'lr': (dict(optim_wrapper__optimizer__lr='big'), "optimizer.lr='big', expected a number"),
    'misspelt optimizer': (
        dict(optim_wrapper__optimizer__type='SDG'),
        "optimizer.type='SDG' is not registered; nearest: SGD",
    ),
    'tau': (dict(model__distiller__tau='hot'), "tau='hot', but a temperature must be positive"),
    'ramp-up': (dict(model__distiller__ramp_up_epochs='five'), "is 'five' epochs, expected"),
    'ramp-up by iterations': (
        dict(model__distiller__ramp_up_iters=0.5), 'ramp_up_iters=0.5, expected a whole number'
    ),
    'channels': (dict(model__distiller__in_channels=None), 'in_channels=None, expected the number'),
    'no optimizer': (dict(optim_wrapper=None), "has no 'optim_wrapper', so it cannot be trained"),
    'misspelt argument of mmengine': (
        dict(train_cfg__max_epoch=1), "train_cfg: unknown key 'max_epoch'; nearest: max_epochs"
    ),
    'misspelt argument of a network': (
        dict(model__students=[dict(type='mmpretrain.ImageClassifier',
                                   backbone=dict(type='CifarResNet', depth=8, depht=8))] * 2),
        "unknown key 'depht' of CifarResNet; nearest: depth",
    ),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, tmp_path, capsys):
    options, message = MISTAKES[mistake]
    with pytest.raises(SystemExit) as stopped, user_errors():
        train(config(tmp_path / 'run', **options))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    line = [line for line in error.splitlines() if line.startswith('error: ')][-1]
    assert message in line
    assert not list(tmp_path.rglob('*.pth')) and not list(tmp_path.rglob('results.json'))
    if mistake.startswith(('misspelt distiller', 'misspelt argument of a network', 'scales')):
        assert not (tmp_path / 'run').exists()


def test_a_ramp_up_longer_than_the_training_is_warned_of(finished, tmp_path, capsys):
    train(config(tmp_path, model__distiller__ramp_up_epochs=80), resume=True)
    assert 'ramp_up_epochs=80, but the training has 2 epochs' in capsys.readouterr().out


def test_one_student_only_and_other_classes(tmp_path, capsys):
    for change, message in (
        (lambda students: students.pop(), 'students: found 1, expected a list of at least 2'),
        (lambda students: students[0].head.update(num_classes=7), 'student0: 7, student1: 10'),
    ):
        cfg = config(tmp_path / 'run')
        change(cfg.model.students)
        with pytest.raises(SystemExit), user_errors():
            train(cfg)
        assert message in capsys.readouterr().err


def test_after_an_error_signals_are_as_they_were(tmp_path):
    def signals():
        return signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM)

    before = signals()
    with pytest.raises(RuntimeError, match='nan|inf'):
        train(config(tmp_path, optim_wrapper__optimizer__lr=1e30))
    assert signals() == before


def test_a_checkpoint_of_another_architecture_changes_nothing(finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.rglob('*') if path.is_file()}
    with pytest.raises(SystemExit), user_errors():
        train(config(finished, model__distiller__enhanced_head=None), resume=True)
    error = capsys.readouterr().err
    assert 'unexpected: distiller.enhanced_heads.0.fc.bias' in error
    with pytest.raises(SystemExit), user_errors():
        score(config(finished, model__distiller__multi_scale__scales=2), finished / 'epoch_2.pth')
    error = capsys.readouterr().err
    assert 'missing' not in error and 'unexpected: distiller.multi_scale.0.convs.1' in error
    (tmp_path / 'text.pth').write_text('no weights')
    for path, resume, message in (
        (None, True, 'epoch_2.pth is of a run with seed 0, and cannot go on with seed 1'),
        (tmp_path / 'text.pth', False, 'text.pth cannot be read as a checkpoint'),
    ):
        with pytest.raises(SystemExit), user_errors():
            train(config(finished, seed=1, load_from=path and str(path)), resume=resume)
        assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in finished.rglob('*') if p.is_file()} == before


def test_a_work_dir_that_cannot_be_made_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit), user_errors():
        train(config('/proc/nobody/makes/this'))
    error = capsys.readouterr().err
    assert error.startswith('error: ') and '/proc/nobody' in error and error.count('\n') == 1


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), user_errors():
        1 / 0  # noqa: B018
    with pytest.raises(ValueError), user_errors():
        int('x')


def test_the_tools_from_another_folder(tmp_path):
    options = [f'{key}={value}' for key, value in SMALL.items()]
    options.append('visualizer.vis_backends.0.type=TensorboardVisBackend')
    run = run_script(
        tmp_path, ROOT / 'tools/train.py', CONFIG, '--work-dir', 'run', '--seed', '3',
        '--cfg-options', *options,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    *_, last, _, json_path, png_path = run.stdout.splitlines()
    assert 'enhanced_ensemble' in last
    assert [json_path, png_path] == [
        str(tmp_path / 'run' / f) for f in ('results.json', 'curves.png')
    ]
    assert results(tmp_path / 'run')['seed'] == 3
    assert list(tmp_path.rglob('events.out.tfevents*'))

    checkpoint = 'run/epoch_2.pth'
    test = ROOT / 'tools/test.py'
    run = run_script(tmp_path, test, CONFIG, checkpoint + 'x', '--work-dir', 'test')
    assert run.returncode == 2 and 'Traceback' not in run.stderr
    assert run.stderr.endswith('error: checkpoint not found: run/epoch_2.pthx\n')
