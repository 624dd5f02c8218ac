"""Two hosts with an address each: network namespaces, with nothing between them but a cable."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
OPTIONS = [
    '--cfg-options', 'train_dataloader.dataset.train_per_class=20', 'train_cfg.max_epochs=4',
    'val_dataloader.dataset.indices=101',
]  # fmt: skip
HOSTS = '10.77.0.1', '10.77.0.2'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which('ip') is None or os.geteuid() != 0, reason='needs iproute2, and to be root'
    ),
]


def ip(*arguments):
    subprocess.run(['ip', *arguments], check=True)


@pytest.fixture
def hosts():
    """Names of two network namespaces that are connected."""
    names = [f'mfef{os.getpid()}{side}' for side in 'ab']
    with ExitStack() as undo:
        for name in names:
            ip('netns', 'add', name)
            undo.callback(ip, 'netns', 'del', name)
        ip('link', 'add', 'eth0', 'netns', names[0], 'type', 'veth',
           'peer', 'name', 'eth0', 'netns', names[1])  # fmt: skip
        for name, address in zip(names, HOSTS, strict=True):
            ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', 'eth0')
            for device in ('lo', 'eth0'):
                ip('-n', name, 'link', 'set', device, 'up')
        yield names


def train(name, rank, folder, *options):
    """``dist_train.sh`` on a host, one process there, as the documentation says."""
    env = dict(
        os.environ, NNODES='2', NODE_RANK=str(rank), MASTER_ADDR=HOSTS[0], OMP_NUM_THREADS='1',
        GLOO_SOCKET_IFNAME='eth0',
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    )  # fmt: skip
    command = ROOT / 'tools/dist_train.sh', CONFIG, '1', '--work-dir', folder, '--seed', '0'
    return subprocess.Popen(
        ['ip', 'netns', 'exec', name, *map(str, command), *options, *OPTIONS],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_line(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f'{text!r} never came')


def test_two_hosts_train_are_stopped_and_go_on(hosts, tmp_path):
    straight = [train(name, rank, tmp_path / 'straight') for rank, name in enumerate(hosts)]
    outputs = [process.communicate(timeout=600)[0] for process in straight]
    assert [process.returncode for process in straight] == [0, 0], outputs
    assert 'MMDistributedDataParallel' in outputs[0]

    stopped = [train(name, rank, tmp_path / 'stopped') for rank, name in enumerate(hosts)]
    wait_for_line(stopped[0], 'Epoch(val) [1]')
    stopped[1].terminate()  # the second host is taken away: both save and end
    outputs = [process.communicate(timeout=600)[0] for process in stopped]
    assert 'stopped by SIGTERM' in outputs[0] and not (tmp_path / 'stopped/results.json').exists()

    resumed = [
        train(name, rank, tmp_path / 'stopped', '--resume') for rank, name in enumerate(hosts)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in resumed]
    assert [process.returncode for process in resumed] == [0, 0], outputs
    assert 'Epoch(train) [1]' not in outputs[0]
    found, expected = (
        json.loads((tmp_path / run / 'results.json').read_text())['history']
        for run in ('stopped', 'straight')
    )
    assert found == expected
