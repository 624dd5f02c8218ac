"""Processes of their own that need not import everything first: forks of one that has."""

import functools
import importlib
import json
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
    'matplotlib.figure', 'plain_configs',
]  # fmt: skip
# what mfef_mmrazor itself imports, before it looks at mmpretrain and mmrazor
BARE = ['torch', 'torchvision', 'mmengine.runner', 'mmcv']


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


def run_script(folder, *command):
    """What ``python COMMAND`` does in a folder, with its output, as of ``subprocess.run``.

    A fork of a process that has imported this package; for what an import does: ``run_python``.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    return _completed(functools.partial(_exit_code, 'forkserver'), folder, command)


def run_python(folder, *command):
    """Likewise, of a process that has imported nothing of this package, mmpretrain or mmrazor."""
    return _completed(_ask_bare_server, folder, command)


def _completed(run, folder, command):
    command = [str(part) for part in command]
    with tempfile.NamedTemporaryFile('r') as out, tempfile.NamedTemporaryFile('r') as err:
        exit_code = run(str(folder), out.name, err.name, dict(os.environ), command)
        return subprocess.CompletedProcess(command, exit_code, out.read(), err.read())


def _exit_code(start_method, *asked):
    process = multiprocessing.get_context(start_method).Process(target=_run_command, args=asked)
    process.start()
    process.join()
    return process.exitcode


def _ask_bare_server(*asked):
    server = _bare_server()
    print(json.dumps(asked), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@functools.cache
def _bare_server():
    """multiprocessing's own is there once, with this package. It ends when its input does."""
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve():
    for name in BARE:
        importlib.import_module(name)
    for line in sys.stdin:
        print(_exit_code('fork', *json.loads(line)), flush=True)


def _run_command(folder, out, err, environment, command):
    for number, path in enumerate((out, err), start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if command[0] in ('-c', '-m'):
        option, what, *args = command
        sys.path[0] = folder
        sys.argv = [option, *args]
        if option == '-m':
            runpy.run_module(what, run_name='__main__', alter_sys=True)
        else:
            exec(what, dict(__name__='__main__'))
    else:
        sys.path[0] = os.path.dirname(command[0])
        sys.argv = command
        runpy.run_path(command[0], run_name='__main__')


if __name__ == '__main__':
    _serve()
