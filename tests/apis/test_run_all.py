"""The processes that run a comparison's trainings."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mfef_mmrazor.apis import run_all

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/dml/dml_resnet8-x2_1xb32-20e_digits.py'


def test_a_machine_without_room_for_a_process_ends_the_command(monkeypatch, tmp_path):
    class Full:
        def start(self):
            raise OSError('no room')

    monkeypatch.setattr(run_all, '_context', lambda: SimpleNamespace(Process=lambda **_: Full()))
    with pytest.raises(OSError, match='no room'):
        list(run_all.run_here([('dml', 0), ('dml', 1)], tmp_path, jobs=1))


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='no affinity')
def test_processors_that_are_not_ours_are_not_shared_out(monkeypatch, tmp_path):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        list(run_all.run_here([], tmp_path, jobs=1))
    finally:
        os.sched_setaffinity(0, before)
    assert os.environ.pop('OMP_NUM_THREADS') == '1'


def test_time_left_is_told_as_soon_as_a_round_is_over(monkeypatch, tmp_path, capsys):
    runs = [('dml', seed) for seed in range(4)]
    ended = iter([(run, True) for run in runs] * 2)
    monkeypatch.setattr(run_all, 'run_here', lambda *_: iter([next(ended) for _ in runs]))
    for jobs, expected in ((2, ' left'), (4, 'done')):
        run_all.run_all(runs, tmp_path, jobs)
        assert capsys.readouterr().out.splitlines()[1].endswith(expected)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == 'win32', reason='no signals')
def test_a_run_saves_a_checkpoint_and_ends_when_the_command_is_killed(tmp_path):
    command = subprocess.Popen(
        [
            sys.executable, ROOT / 'tools/compare.py', CONFIG, '--seeds', '0', '--work-dir', 'run',
            '--cfg-options', 'train_dataloader.dataset.train_per_class=4',
            'val_dataloader.dataset.indices=10', 'train_cfg.max_epochs=1000',
        ],
        cwd=tmp_path, env=dict(os.environ, OMP_NUM_THREADS='1'), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    folder = tmp_path / 'run/runs/dml/seed0'
    wait_for((folder / 'epoch_2.pth').is_file)
    command.kill()
    command.wait()
    wait_for(lambda: 'stopped by SIGTERM' in (folder / 'run.log').read_text())
    process = int((folder / '.lock').read_text().split()[1])
    wait_for(lambda: not Path(f'/proc/{process}').exists())


def wait_for(condition):
    end = time.monotonic() + 600  # a busy machine takes its time to start Python
    while not condition():
        assert time.monotonic() < end, 'it never came'
        time.sleep(0.1)
