"""tools/*.sh: the same training and scores in several processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
OPTIONS = [
    '--cfg-options',
    'train_dataloader.dataset.indices=100',
    'val_dataloader.dataset.indices=101',  # not the same number for both processes
    'test_dataloader.dataset.indices=101',
    'train_cfg.max_epochs=1',
]
SCORE = re.compile(r'(\w+\.accuracy/top1): ([\d.]+)')


def start(folder, *command):
    """Run a command in another folder, with this Python first on the path."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env=dict(os.environ, PATH=path, OMP_NUM_THREADS='1'),
    )  # fmt: skip


def scores(done):
    assert done.returncode == 0, done.stderr
    return dict(SCORE.findall(done.stdout + done.stderr))


@pytest.mark.slow
def test_two_processes_train_and_score_exactly_as_one_scores(tmp_path):
    done = start(tmp_path, ROOT / 'tools/dist_train.sh', CONFIG, 2, '--work-dir', 'run',
                 '--seed', 0, *OPTIONS)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'MMDistributedDataParallel' in done.stdout
    trained = json.loads((tmp_path / 'run/results.json').read_text())['history'][-1]

    test = CONFIG, 'run/epoch_1.pth'
    two = start(tmp_path, ROOT / 'tools/dist_test.sh', *test, 2, '--work-dir', 'two', *OPTIONS)
    one = start(tmp_path, sys.executable, ROOT / 'tools/test.py', *test, '--work-dir', 'one',
                *OPTIONS)  # fmt: skip
    assert scores(two) == scores(one)
    assert {'student0.accuracy/top1', 'ensemble.accuracy/top1', 'fused.accuracy/top1'} <= set(
        scores(one)
    )
    assert scores(one)['fused.accuracy/top1'] == f'{trained["fused"]:.4f}'


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_without_arguments_they_say_how_they_are_used(tmp_path, name):
    done = start(tmp_path, ROOT / 'tools' / name)
    assert done.returncode == 2 and f'{name} CONFIG' in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='it works on GPUs')
def test_sync_bn_on_cpus_is_refused_before_the_training(tmp_path):
    """torch would end it with a traceback; one process trains, with plain batch norm."""
    options = [*OPTIONS, 'sync_bn=torch']
    two = start(tmp_path, ROOT / 'tools/dist_train.sh', CONFIG, 2, '--work-dir', 'two', *options)
    said = [line for line in two.stderr.splitlines() if line.startswith('error: ')]
    assert len(said) == 2 and all("sync_bn='torch'" in line for line in said), two.stderr
    assert two.returncode and 'SyncBatchNorm layers' not in two.stderr
    assert not (tmp_path / 'two').exists()
    one = start(tmp_path, sys.executable, ROOT / 'tools/train.py', CONFIG, '--work-dir', 'one',
                *options)  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert (tmp_path / 'one/results.json').is_file()
