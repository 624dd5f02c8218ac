"""Two runs in one work dir at once: the second is refused, and a killed one leaves no lock."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mfef_mmrazor.apis import compare, load_config, train
from mfef_mmrazor.apis.lock import locked

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
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


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path``, and one that was forked from it."""
    path = Path(__file__).parents[2] / 'mfef_mmrazor/apis/lock.py'
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER.format(path=str(path), work_dir=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def test_the_second_run_is_refused_until_the_first_is_gone(holder, tmp_path, monkeypatch):
    small = {'train_dataloader.dataset.train_per_class': 4, 'train_cfg.max_epochs': 1}
    cfg = load_config(CONFIG, tmp_path, small)
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
