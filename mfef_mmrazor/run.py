"""Runs a script with mmrazor made ready: ``python -m mfef_mmrazor.run SCRIPT ARGS...``.

mmrazor's own scripts import mmrazor before they read the config that names this plugin, which is
too late on torch 2. Here the plugin comes first, and mmrazor's configs for mmcls are read with
mmpretrain, as they are. Under torchrun as well::

    torchrun --nproc-per-node 2 -m mfef_mmrazor.run SCRIPT ARGS... --launcher pytorch
"""

import runpy
import sys
from pathlib import Path

from . import compat, mmcls_names
from .apis import user_errors


def main() -> None:
    """Run the script named by the first argument, with the others as its own."""
    if len(sys.argv) < 2:
        sys.exit('usage: python -m mfef_mmrazor.run SCRIPT ARGS...')
    script = Path(sys.argv[1])
    if not script.is_file():
        sys.exit(f'error: script not found: {script}')
    # torch.distributed.launch writes --local-rank, mmrazor's scripts read --local_rank
    sys.argv = [arg.replace('--local-rank', '--local_rank') for arg in sys.argv[1:]]
    sys.path[0] = str(script.resolve().parent)
    with user_errors():
        slurm = any(arg.rpartition('=')[2] == 'slurm' for arg in sys.argv)
        compat.init_cpu_processes('slurm' if slurm else 'pytorch')
        compat.lend_pkg_resources()
        mmcls_names.use_mmpretrain()
        runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main()
