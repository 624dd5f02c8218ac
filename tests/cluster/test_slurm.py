"""Runs, and a comparison, on a real Slurm of one node; ``make test-slurm``."""

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pandas
import pytest
from one_node_slurm import installed, one_node_slurm

from mfef_mmrazor.apis import report

ROOT = Path(__file__).parents[2]
CONFIGS = [
    ROOT / f'configs/{method}/{method}_resnet8-x2_1xb32-20e_digits.py' for method in ('dml', 'mfef')
]
OPTIONS = [
    '--cfg-options', 'train_dataloader.dataset.train_per_class=4', 'train_cfg.max_epochs=6',
    'val_dataloader.dataset.indices=101', 'test_dataloader.dataset.indices=101',
]  # fmt: skip
SCORE = re.compile(r'(\w+\.accuracy/top1): ([\d.]+)')
PATIENCE = 1200  # seconds, for a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason='munged, slurmctld or slurmd is not installed'),
]


@pytest.fixture(scope='module')
def cluster():
    """The environment of a cluster's user, with this Python first on the path."""
    with one_node_slurm() as env:
        yield dict(env, PATH=f'{Path(sys.executable).parent}:{env["PATH"]}', OMP_NUM_THREADS='1')


@pytest.fixture
def start(cluster, tmp_path):
    """Starts commands in the test's folder; what they print is in ``log``."""
    with ExitStack() as started:

        def start(*command, **variables):
            with open(tmp_path / 'log', 'w') as log:
                process = subprocess.Popen(
                    [str(part) for part in command], cwd=tmp_path, env={**cluster, **variables},
                    stdout=log, stderr=log,
                )  # fmt: skip
            started.callback(process.kill)
            return process

        yield start


@pytest.fixture
def run(start, tmp_path):
    """Runs commands to their end, and gives what they print."""

    def run(*command, code=0, **variables):
        found = start(*command, **variables).wait(PATIENCE)
        log = (tmp_path / 'log').read_text()
        assert found == code, log
        return log

    return run


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'it never came'
        time.sleep(0.2)


def comparison(work_dir, *options):
    return (
        sys.executable, ROOT / 'tools/compare.py', *CONFIGS, '--seeds', '0-1', '--work-dir',
        work_dir, *options, *OPTIONS,
    )  # fmt: skip


def test_a_comparison_is_the_same_as_on_one_machine(start, run, tmp_path):
    """Also if the command is killed and started again, and one of the jobs is told to go."""
    on_slurm = comparison(
        'slurm', '--launcher', 'slurm', '--partition', 'main', '--gpus-per-run', '0',
        '--runs-at-once', '2',
    )  # fmt: skip
    first = start(*on_slurm)
    wait_for((tmp_path / 'slurm/runs/mfef/seed0/epoch_2.pth').is_file)
    assert '4 jobs submitted' in (tmp_path / 'log').read_text()
    first.kill()
    first.wait()
    job = json.loads((tmp_path / 'slurm/slurm/jobs.json').read_text())['mfef/seed0']
    own = tmp_path / f'slurm/slurm/{job}_0_log.out'
    telling = start('scancel', '--signal=TERM', job)
    wait_for(lambda: 'back into the queue' in own.read_text())
    telling.kill()  # it would tell the job again, which has left since
    log = run(*on_slurm)
    assert '0 jobs submitted' in log
    told = re.findall('.*stopped by SIGTERM.*|.*into the queue|.*resumed epoch.*', own.read_text())
    print(log, *told, sep='\n')  # for those who run it with -s
    assert len(told) == 3

    run(*comparison('here', '--jobs', '2'))
    stats = [(tmp_path / folder / 'stats.json').read_bytes() for folder in ('slurm', 'here')]
    assert stats[0] == stats[1]
    runs = [pandas.read_csv(tmp_path / folder / 'runs.csv') for folder in ('slurm', 'here')]
    assert len(runs[0]) == 2 * 5 + 2 * 9  # five predictors and summaries; MFEF has four more
    pandas.testing.assert_frame_equal(
        *(each.drop(columns='train_seconds') for each in runs), check_exact=True
    )
    before = (tmp_path / 'slurm/runs.csv').read_bytes()
    report(tmp_path / 'slurm')
    assert (tmp_path / 'slurm/runs.csv').read_bytes() == before


def test_two_tasks_train_and_score_one_model(run, tmp_path):
    on_cpus = dict(GPUS='0', TASKS='2', CPUS_PER_TASK='1')
    log = run(
        ROOT / 'tools/slurm_train.sh', 'main', 'digits', CONFIGS[0], 'run', *OPTIONS, **on_cpus
    )
    assert 'MMDistributedDataParallel' in log
    checkpoint = 'run/epoch_6.pth'
    two = run(
        ROOT / 'tools/slurm_test.sh', 'main', 'digits', CONFIGS[0], checkpoint, *OPTIONS, **on_cpus
    )
    one = run(sys.executable, ROOT / 'tools/test.py', CONFIGS[0], checkpoint, *OPTIONS)
    assert dict(SCORE.findall(two)) == dict(SCORE.findall(one)) != {}


def test_what_slurm_refuses_is_one_line(run):
    options = '--launcher', 'slurm', '--gpus-per-run', '0', '--partition', 'nowhere'
    error = run(*comparison('run', *options), code=2).splitlines()[-1]
    assert error.startswith('error: Slurm refuses the jobs') and 'partition' in error


def test_without_slurm_it_says_so(run, tmp_path):
    log = run(*comparison('run', '--launcher', 'slurm'), code=2, PATH=str(tmp_path))
    assert 'error: sbatch is not on the path' in log
