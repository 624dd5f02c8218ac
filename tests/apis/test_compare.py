"""Comparisons really run, on a few digits."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from mfef_mmrazor.apis import compare, report, user_errors
from mfef_mmrazor.apis.comparison import read_sweep
from mfef_mmrazor.apis.slurm import Slurm, log_of
from mfef_mmrazor.apis.sweep import Sweep

CONFIGS = Path(__file__).parents[2] / 'configs/mfef'
DIGITS = (CONFIGS / 'mfef_resnet8-x2_1xb32-20e_digits.py').read_text()
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 100,
    'train_cfg.max_epochs': 1,
}
REPORT = ('runs.csv', 'table.md', 'stats.json', 'accuracy.png')


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """MFEF and MFEF without extraction, as two files."""
    folder = tmp_path_factory.mktemp('configs')
    text = DIGITS.replace("'../_base_", f"'{CONFIGS.parent}/_base_")
    paths = []
    for name, code in (('mfef', ''), ('plain', 'model["distiller"]["multi_scale"] = None\n')):
        paths.append(folder / f'{name}_digits.py')
        paths[-1].write_text(text + code)
    return paths


@pytest.fixture(scope='module')
def compared(configs, tmp_path_factory):
    """A finished comparison of two methods and two seeds."""
    work_dir = tmp_path_factory.mktemp('compared')
    compare(configs, [0, 1], work_dir, jobs=2, cfg_options=SMALL)
    return work_dir


@pytest.fixture
def variant(configs, tmp_path):
    """Writes MFEF's config with more lines, as the file of a method of its own."""

    def write(name, code):
        path = tmp_path / f'{name}_digits.py'
        path.write_text(configs[0].read_text() + code)
        return path

    return write


def results(work_dir, method, seed):
    return json.loads((work_dir / f'runs/{method}/seed{seed}/results.json').read_text())


def test_a_seed_is_the_same_start_for_every_method(compared):
    logs = {
        (method, seed): (compared / f'runs/{method}/seed{seed}/run.log').read_text()
        for method in ('mfef', 'plain')
        for seed in (0, 1)
    }
    losses = {
        run: log.split('student0.loss: ')[1].split()[0] for run, log in logs.items()
    }  # over an epoch of two steps, in which the methods have hardly parted
    assert losses['mfef', 0] != losses['mfef', 1]
    for seed in (0, 1):
        assert float(losses['mfef', seed]) == pytest.approx(float(losses['plain', seed]), abs=0.01)


def test_the_report_is_of_the_runs(compared):
    stats = json.loads((compared / 'stats.json').read_text())
    assert stats['baseline'] == 'mfef'
    (found,) = stats['comparisons']
    expected = []
    for seed in (0, 1):
        last = [results(compared, method, seed)['history'][-1] for method in ('plain', 'mfef')]
        means = [(entry['student0'] + entry['student1']) / 2 for entry in last]
        expected.append(means[0] - means[1])
    assert any(expected) and found['differences'] == pytest.approx(expected, abs=1e-6)
    assert found['t_test'] == found['wilcoxon'] == 'too few seeds'
    table = (compared / 'table.md').read_text()
    assert '| mfef | 2 |' in table and '| plain | 2 |' in table and '| 78,042 |' in table
    rows = (compared / 'runs.csv').read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 9  # methods, seeds, predictors and their summaries
    assert (compared / 'accuracy.png').read_bytes().startswith(b'\x89PNG')


def test_the_report_is_rebuilt_byte_for_byte(compared):
    before = [(compared / name).read_bytes() for name in REPORT]
    for name in REPORT:
        (compared / name).unlink()
    report(compared)
    assert [(compared / name).read_bytes() for name in REPORT] == before


def test_a_copy_under_another_seed_is_named(compared, tmp_path):
    shutil.copytree(compared, tmp_path / 'run')
    shutil.copytree(tmp_path / 'run/runs/mfef/seed0', tmp_path / 'run/runs/mfef/seed0 (copy)')
    report(tmp_path / 'run')  # its name is no seed's
    (tmp_path / 'run/runs/mfef/seed0 (copy)').rename(tmp_path / 'run/runs/mfef/seed7')
    with pytest.raises(ValueError, match='runs/mfef/seed7 has the results of seed 0'):
        report(tmp_path / 'run')


def test_finished_runs_are_not_run_again(compared, configs, capfd):
    stamps = [path.stat().st_mtime_ns for path in compared.glob('runs/*/*/results.json')]
    compare(configs, [0, 1], compared, cfg_options=SMALL)
    assert '4 runs, 4 of them finished before' in capfd.readouterr().out
    assert [p.stat().st_mtime_ns for p in compared.glob('runs/*/*/results.json')] == stamps


def test_a_work_dir_of_an_earlier_version_goes_on(compared, configs, tmp_path, capfd):
    """Its configs are Python, and say what they now leave to the students' heads."""
    work_dir = tmp_path / 'earlier'
    shutil.copytree(compared, work_dir)
    for path in sorted(work_dir.glob('configs/*')):
        cfg = Config.fromfile(path)
        cfg.model.distiller.update(in_channels=64, num_classes=10)
        cfg.dump(path.with_suffix('.py'))
        path.unlink()
    report(work_dir)
    for name in REPORT:
        assert (work_dir / name).read_bytes() == (compared / name).read_bytes()
    compare(configs, [0, 1], work_dir, cfg_options=SMALL)
    assert '4 runs, 4 of them finished before' in capfd.readouterr().out
    for name in ('mfef.yaml', 'plain.yaml'):
        stored = work_dir / 'configs' / name
        assert stored.read_bytes() == (compared / 'configs' / name).read_bytes()
    assert not list(work_dir.glob('configs/*.py'))


def test_a_run_that_was_cut_off_goes_on(configs, tmp_path):
    options = {**SMALL, 'train_cfg.max_epochs': 2}
    compare(configs[:1], [0], tmp_path, cfg_options=options)
    straight, folder = results(tmp_path, 'mfef', 0), tmp_path / 'runs/mfef/seed0'
    for name in ('results.json', 'epoch_2.pth'):  # as if cut off in the second epoch
        (folder / name).unlink()
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    compare(configs[:1], [0], tmp_path, cfg_options=options)
    assert results(tmp_path, 'mfef', 0)['history'] == straight['history']
    assert 'Epoch(train) [1]' not in (folder / 'run.log').read_text().rpartition('resumed')[2]


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_go_on(configs, variant, tmp_path, capsys):
    broken = variant('broken', 'model["distiller"]["in_channels"] = 32\n')
    with pytest.raises(SystemExit), user_errors():
        compare([broken, configs[0]], [0], tmp_path / 'run', 'mfef', cfg_options=SMALL)
    error = capsys.readouterr().err
    assert '1 of 2 runs failed' in error and 'runs/broken/seed0/run.log' in error
    assert 'stands for a map' in (tmp_path / 'run/runs/broken/seed0/run.log').read_text()
    assert results(tmp_path / 'run', 'mfef', 0)['seed'] == 0
    assert (tmp_path / 'run/table.md').is_file()

    with pytest.raises(RuntimeError, match='1 of 1 runs failed: .*runs/broken/seed0/run.log'):
        compare([broken], [0], tmp_path / 'alone', cfg_options=SMALL)
    assert 'the report was not renewed: no finished run' in capsys.readouterr().out


def test_unlike_conditions_are_refused_by_name(configs, variant, tmp_path):
    other = variant('other', 'optim_wrapper = dict(optimizer=dict(lr=0.2))\n')
    with pytest.raises(ValueError, match=r'differ in optim_wrapper.optimizer.lr \(0.1 and 0.2\)'):
        compare([configs[0], other], [0], tmp_path / 'run', cfg_options=SMALL)
    third = variant('third', 'model["students"] = [_base_.student] * 3\n')
    with pytest.raises(ValueError, match='--allow model.students$'):
        compare([configs[0], third], [0], tmp_path / 'run', cfg_options=SMALL)
    averaged = variant(
        'averaged', "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.1)]\n"
    )
    with pytest.raises(ValueError, match='custom_hooks.length.*--allow custom_hooks$'):
        compare([configs[0], averaged], [0], tmp_path / 'run', cfg_options=SMALL)
    shared = variant('shared', 'model["shared_stages"] = 2\n')
    with pytest.raises(ValueError, match='None and 2.*--allow model.shared_stages$'):
        compare([configs[0], shared], [0], tmp_path / 'run', cfg_options=SMALL)
    nothing = variant('nothing', 'model["distiller"] = None\noptim_wrapper = None\n')
    with pytest.raises(ValueError, match="has no 'optim_wrapper'"):
        compare([configs[0], nothing], [0], tmp_path / 'run', allow=['optim_wrapper'])
    assert not (tmp_path / 'run').exists()


def test_a_later_comparison_joins_the_earlier_one(compared, variant, tmp_path):
    work_dir = tmp_path / 'joined'
    shutil.copytree(compared, work_dir)
    other = variant('other', 'optim_wrapper = dict(optimizer=dict(lr=0.2))\n')
    with pytest.raises(ValueError, match='mfef and other differ in optim_wrapper'):
        compare([other], [0], work_dir, cfg_options=SMALL)
    third = variant('third', 'model["distiller"]["multi_scale"] = None\n')
    compare([third], [0], work_dir, cfg_options=SMALL)
    stats = json.loads((work_dir / 'stats.json').read_text())
    assert stats['baseline'] == 'mfef'
    assert [(c['method'], c['n']) for c in stats['comparisons']] == [('plain', 2), ('third', 1)]


def test_runs_of_another_config_are_not_taken_for_this_one(compared, configs):
    before = sorted(compared.rglob('*'))
    changed = {**SMALL, 'train_cfg.max_epochs': 2}
    again = f'delete {compared}/configs/.*yaml and {compared}/runs/'
    with pytest.raises(ValueError, match=f'train_cfg.max_epochs was 1, is 2.* {again}'):
        compare(configs, [0], compared, cfg_options=changed)
    assert sorted(compared.rglob('*')) == before


def test_a_part_that_is_switched_off_is_another_config_than_its_default(compared, configs):
    off = {**SMALL, 'model.distiller.enhanced_head': None}
    with pytest.raises(ValueError, match='distiller.enhanced_head was not set, is None'):
        compare(configs[:1], [0], compared, cfg_options=off)


def test_a_dry_run_says_what_is_left_and_writes_nothing(compared, configs, variant, capsys):
    before = {path: path.stat().st_mtime_ns for path in compared.rglob('*')}
    third = variant('third', 'model["distiller"]["multi_scale"] = None\n')
    compare([*configs, third], [0, 1, 2], compared, jobs=2, cfg_options=SMALL, dry_run=True)
    said = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split('│')[1:-1]] for line in said if '│' in line]
    seconds = round(results(compared, 'mfef', 0)['train_seconds'])
    assert [(row[0], row[3]) for row in rows] == [
        ('mfef', '1 of 3'), ('plain', '1 of 3'), ('third', '3 of 3')
    ]  # fmt: skip
    assert rows[0][4] == f'0:00:{seconds:02d}' and rows[2][4] == '?'
    assert said[-1].startswith('5 runs, 2 at a time') and ', and 3 runs of unknown' in said[-1]
    for seeds, left in (([0, 1], '0 runs'), ([2], '2 runs')):
        compare(configs, seeds, compared, cfg_options=SMALL, dry_run=True)
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(left) and ('nothing to do' in last) == (left == '0 runs')
    assert {path: path.stat().st_mtime_ns for path in compared.rglob('*')} == before


def test_a_dry_run_for_slurm_shares_nothing_out_here(compared, configs, capsys):
    options = dict(cfg_options=SMALL, dry_run=True, slurm=Slurm('short'))
    compare(configs, [0, 1, 2, 3], compared, **options)
    last = ' '.join(capsys.readouterr().out.splitlines()[-1:])
    assert last.startswith('4 runs, 4 at a time, on Slurm, partition short')
    compare(configs, [0, 1, 2, 3], compared, jobs=3, **options)
    assert capsys.readouterr().out.splitlines()[-1].startswith('4 runs, 3 at a time')


@pytest.mark.parametrize(
    ('part', 'value', 'message'),
    [
        ('model.distiller.tau', -1, 'tau=-1'),
        ('model.students.0.backbone.depth', 9, '9'),
        ('val_dataloader', None, 'nothing to compare by'),
    ],
)
def test_what_cannot_be_trained_or_scored_is_refused_before_any_run(
    part, value, message, configs, tmp_path
):
    options = {**SMALL, part: value}
    if part == 'val_dataloader':
        options = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    with pytest.raises((ValueError, KeyError), match=message):
        compare(configs[:1], [0], tmp_path / 'run', cfg_options=options, dry_run=True)
    if part == 'val_dataloader':
        with pytest.raises(ValueError, match=message):
            sweep = Sweep({'model.distiller.tau': [2, 3]})
            compare(configs[:1], [0], tmp_path / 'run', cfg_options=options, sweep=sweep)


def test_a_part_of_a_config_is_not_compared(configs, tmp_path):
    part = CONFIGS.parent / '_base_/datasets/digits.py'
    with pytest.raises(ValueError, match="digits.py has no 'model'"):
        compare([configs[0], part], [0], tmp_path / 'run')


@pytest.mark.parametrize('content', ['{"version": 2, "base', '[]', '{}', '{"entries": [1]}'])
def test_a_damaged_comparison_is_named(content, compared, tmp_path):
    shutil.copytree(compared, tmp_path / 'damaged')
    path = tmp_path / 'damaged/comparison.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=f'{path} (is damaged|was not written by)'):
        report(path.parent)
    path.with_name('sweep.json').write_text(content)
    with pytest.raises(ValueError, match='sweep.json (is damaged|was not written by)'):
        read_sweep(path.parent)


def test_where_a_run_has_said_why_it_failed(tmp_path):
    (tmp_path / 'slurm').mkdir()
    (tmp_path / 'slurm/jobs.json').write_text('{"mfef/seed0": "12_3"}')
    assert log_of(tmp_path, ('mfef', 0)) == tmp_path / 'slurm/12_3_0_log.out'
    assert log_of(tmp_path, ('dml', 0)) == tmp_path / 'runs/dml/seed0/run.log'
    here = tmp_path / 'runs/mfef/seed0/run.log'
    here.parent.mkdir(parents=True)
    here.touch()
    assert log_of(tmp_path, ('mfef', 0)) == here


def test_other_mistakes(compared, configs, tmp_path):
    with pytest.raises(ValueError, match='another config of this name'):
        compare([configs[0], configs[0]], [0], tmp_path)
    with pytest.raises(ValueError, match="baseline='dml', expected one of mfef, plain"):
        compare(configs, [0], tmp_path, 'dml')
    for seeds, jobs in (([], 1), ([0], 0)):
        with pytest.raises(ValueError, match='expected at least one of each'):
            compare(configs, seeds, tmp_path, jobs=jobs)
    with pytest.raises(ValueError, match="'modle.students' is not one of the conditions.*nearest"):
        compare(configs, [0], tmp_path, allow=['modle.students'])
    with pytest.raises(FileNotFoundError, match='not the folder of a comparison'):
        report(tmp_path)
    with pytest.raises(ValueError, match="baseline 'dml' has no finished run"):
        report(compared, 'dml')


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (('--untuned', 'dml'), 'go with --sweep or --select-on'),
        (('--sweep-seeds', '0-1'), 'go with --sweep or --select-on'),
        (('--sweep-seeds', '3-1'), 'argument --sweep-seeds: 3-1 is not a range: expected 1-3'),
        (('--seeds', '3-1'), 'argument --seeds: 3-1 is not a range: expected 1-3'),
        (('--gpus-per-run', '0'), '--gpus-per-run and --sbatch go with --launcher slurm'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(option, message, configs, monkeypatch, capsys):
    tool = CONFIGS.parents[1] / 'tools/compare.py'
    monkeypatch.setattr('sys.argv', ['compare.py', str(configs[0]), '--work-dir', 'x', *option])
    with pytest.raises(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    assert message in capsys.readouterr().err
