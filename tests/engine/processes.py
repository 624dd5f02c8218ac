"""Several processes of one training, forks of one that has imported everything."""

import os
import socket

from torch import multiprocessing


def in_processes(number, function, *args):
    """Call a function in so many processes, which find each other as torchrun's do.

    Raises what the first that fails has raised. They are forks of multiprocessing's server, not of
    this process, whose threads may hold locks.
    """
    multiprocessing.set_forkserver_preload(['mfef_mmrazor.apis'])
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
