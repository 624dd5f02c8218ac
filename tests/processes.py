"""Processes of their own that need not import everything first: forks of one that has."""

import os
import runpy
import socket
import subprocess
import sys
import tempfile

from torch import distributed, multiprocessing

# what a run on digits imports
PRELOADED = [
    'mfef_mmrazor.apis', 'sklearn.datasets', 'torchmetrics.functional.classification',
    'matplotlib.figure',
]  # fmt: skip


def in_processes(number, function, *args):
    """Call a function in so many processes, which find each other as torchrun's do.

    Raises what the first that fails has raised. They are forks of multiprocessing's server, not of
    this process, whose threads may hold locks.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(
        _call, (number, port, function, args), nprocs=number, start_method='forkserver'
    )


def _call(rank, number, port, function, args):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR='localhost', MASTER_PORT=str(port),
    )  # fmt: skip
    function(*args)
    if distributed.is_initialized():  # none leaves while another is still connecting to it
        distributed.barrier()
        distributed.destroy_process_group()


def run_script(folder, script, *args):
    """What ``python SCRIPT ARGS`` does in a folder, with its output, as of ``subprocess.run``."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    command = [str(part) for part in (script, *args)]
    context = multiprocessing.get_context('forkserver')
    with tempfile.NamedTemporaryFile('r') as out, tempfile.NamedTemporaryFile('r') as err:
        process = context.Process(target=_run_script, args=(folder, out.name, err.name, command))
        process.start()
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, out.read(), err.read())


def _run_script(folder, out, err, command):
    for number, path in enumerate((out, err), start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(folder)
    sys.argv = command
    runpy.run_path(command[0], run_name='__main__')
