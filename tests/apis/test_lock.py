"""Two runs in one work dir at once: the second is refused, and a killed one leaves no lock."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmpretrain.registry import MODELS

from mfef_mmrazor.apis import compare, load_config, train
from mfef_mmrazor.apis.lock import locked
from mfef_mmrazor.models import CifarResNet

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
LOCK = Path(__file__).parents[2] / 'mfef_mmrazor/apis/lock.py'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 20,
    'train_cfg.max_epochs': 1,
}
HOLDER = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location('lock', {path!r})
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.locked({work_dir!r}):
    child = os.fork()  # like a worker that loads data; it outlives its parent
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@MODELS.register_module()
class TryingResNet(CifarResNet):
    """Whenever it is built, another process tries to get into the work dir."""

    refused = []

    def __init__(self, work_dir, **kwargs):
        super().__init__(**kwargs)
        if Path(work_dir).exists():
            script = f'import lock; lock.locked({work_dir!r}).__enter__()'
            done = subprocess.run(
                [sys.executable, '-c', script], cwd=LOCK.parent, capture_output=True, text=True
            )
            self.refused.append(f'is in use by process {os.getpid()}' in done.stderr)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path``, and one that was forked from it."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER.format(path=str(LOCK), work_dir=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_the_second_run_is_refused_until_the_first_is_gone(holder, tmp_path, monkeypatch):
    cfg = load_config(CONFIG, tmp_path, SMALL)
    in_use = f'{tmp_path} is in use by process {holder.pid} on '
    with pytest.raises(RuntimeError, match=in_use):
        train(cfg)
    with pytest.raises(RuntimeError, match=in_use):
        compare([CONFIG], [0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']

    monkeypatch.setenv('RANK', '1')  # the first process of a launcher's holds it for the others
    with locked(tmp_path, 'pytorch'):
        pass
    with pytest.raises(RuntimeError, match=in_use), locked(tmp_path):
        pass
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('SLURM_PROCID', '1')  # torchrun under srun, which may count otherwise
    with pytest.raises(RuntimeError, match=in_use), locked(tmp_path, 'pytorch'):
        pass
    monkeypatch.delenv('RANK')

    holder.kill()
    holder.wait()
    for _ in range(2):  # the second time after a run that ended as it should
        with locked(tmp_path):
            assert f'process {os.getpid()} on ' in (tmp_path / '.lock').read_text()


def test_no_other_run_gets_in_between_the_choice_of_a_checkpoint_and_the_start(tmp_path):
    """The network is built for the first time to see whether the checkpoint's weights fit it."""
    cfg = load_config(CONFIG, tmp_path / 'run', SMALL)
    for student in cfg.model.students:
        student.backbone.update(type='TryingResNet', work_dir=str(tmp_path / 'run'))
    train(cfg, resume=True)  # nothing is there yet, nor made before all is checked
    assert TryingResNet.refused == [True] * 2
    TryingResNet.refused.clear()
    cfg.train_cfg.max_epochs = 2
    assert train(cfg, resume=True).epoch == 2
    assert TryingResNet.refused == [True] * 4
