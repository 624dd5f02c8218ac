"""A Slurm of one node, in a temporary folder: nothing of the host's own Slurm is touched.

python tests/cluster/one_node_slurm.py sbatch --wrap hostname   # any command
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ('munged', 'slurmctld', 'slurmd')
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
PlugStackConfig=/dev/null
NodeName={host} NodeAddr=127.0.0.1 CPUs={processors}
PartitionName=main Nodes={host} Default=YES
"""
# cred_expire is also how long a job that goes back into the queue has to wait there


def installed() -> bool:
    """Whether munge's and Slurm's daemons are there."""
    return all(map(find, DAEMONS))


def find(daemon: str) -> str | None:
    return shutil.which(daemon, path=f'{os.environ["PATH"]}:/usr/sbin:/usr/local/sbin')


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


@contextmanager
def one_node_slurm(processors: int = 2) -> Iterator[dict[str, str]]:
    """Run it; gives the environment in which ``sbatch``, ``srun`` and ``squeue`` find it."""
    with tempfile.TemporaryDirectory(prefix='slurm') as name, ExitStack() as daemons:
        folder = Path(name)
        conf = folder / 'slurm.conf'
        conf.write_text(
            CONF.format(
                host=socket.gethostname().partition('.')[0], user=getpass.getuser(), folder=folder,
                controller_port=free_port(), node_port=free_port(), processors=processors,
            )
        )  # fmt: skip
        key = folder / 'munge.key'
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        env = dict(os.environ, SLURM_CONF=str(conf))
        munge = dict(
            socket='socket', key_file='key', seed_file='seed', pid_file='pid', log_file='log'
        )
        options = [f'--{k.replace("_", "-")}={folder}/munge.{v}' for k, v in munge.items()]
        for command in (
            ['munged', '--foreground', '--force', *options],
            ['slurmctld', '-D', '-c'],
            ['slurmd', '-D'],
        ):
            log = daemons.enter_context(open(folder / f'{command[0]}.log', 'w'))
            daemons.callback(stop, start(command, env, log))
        wait_until_idle(env, folder)
        daemons.callback(wait_until_idle, env, folder)
        daemons.callback(subprocess.run, ['scancel', '--user', getpass.getuser()], env=env)
        yield env


def start(command: list[str], env: dict[str, str], log) -> subprocess.Popen:
    return subprocess.Popen([find(command[0]), *command[1:]], env=env, stdout=log, stderr=log)


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(30)


def wait_until_idle(env: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        state = subprocess.run(
            ['sinfo', '-h', '-o', '%T'], env=env, capture_output=True, text=True
        ).stdout.strip()
        if state == 'idle':
            return
        time.sleep(0.5)
    logs = '\n'.join(path.read_text() for path in folder.glob('*.log'))
    raise RuntimeError(f'the node is {state or "not there"}\n{logs}')


if __name__ == '__main__':
    with one_node_slurm() as environment:
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
