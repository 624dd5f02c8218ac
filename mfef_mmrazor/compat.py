"""Makes mmrazor 1.0.0 run on today's torch, mmengine and setuptools.

Each function repairs one break, and does nothing where that break is not.
"""

import functools
import importlib
import logging
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .doctor import WANTED
from .imports import at_first_use

TABLES = 'mmrazor.structures.quantization'
NEWEST_MMCV = '2.1.0'
"""The newest that mmrazor accepts by itself."""
OLDEST_TORCH = '2.1.0'
"""Older ones cannot read numbers in a checkpoint in their safe mode."""
OF_OTHER_METHODS = ('scipy.stats', 'sklearn.tree', 'matplotlib.pyplot')
"""What mmrazor's architecture search, OFD and visualizer need, and take 2 to 3 s to import."""
NEWEST_TESTED = dict(torch='2.15.0', mmengine='0.10.12', mmcv='2.2.0', mmpretrain='1.3.6')
"""The newest of each in the README's table, which ``make matrix`` writes."""

changes: list[str] = []
"""What was repaired in this process, in words."""


def _changed(what: str) -> None:
    if what not in changes:
        changes.append(what)


def apply() -> None:
    """Repair what is broken, then import mmrazor. ``import mfef_mmrazor`` calls it.

    Raises:
        ImportError: A part of OpenMMLab is missing or of a version that mmrazor refuses, or mmrazor
            was half-imported before; the message says what to do.
    """
    import_mmrazor()
    warn_of_untested()
    import_quantization_tables()
    import_registered_parts()
    repair_inplace()
    allow_checkpoints()
    read_urls_safely()
    replace_pkg_resources()
    announce_configs()

    from . import fast_mmengine  # mmengine must be there first

    fast_mmengine.apply()


def import_mmrazor() -> None:
    """Import mmrazor's top level, which checks the versions of mmcv and mmengine."""
    parts = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmrazor')
    missing = [name for name in parts if find_spec(name) is None]
    if len(missing) == 1:
        (name,) = missing
        raise ImportError(f'{name} is not installed. Repair: pip install {WANTED[name]}', name=name)
    if missing:
        raise ImportError(
            f'{", ".join(missing)} are not installed. In a fresh environment, in a clone of '
            'mfef_mmrazor: pip install ".[openmmlab]"; else python -m mfef_mmrazor.doctor names '
            'the command for each',
            name=missing[0],
        )
    check_torch()
    try:
        with warnings.catch_warnings():
            # mmcv-lite warns about an operator that only detection models use
            warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
            importlib.import_module('mmcv.cnn.bricks.transformer')
        importlib.import_module('mmpretrain')
        with accepted_mmcv():
            importlib.import_module('mmrazor')
    except AssertionError as error:  # their own checks of versions
        wrong = 'mmcv' if 'MMCV' in str(error) else 'mmengine'
        raise ImportError(f'{error} Repair: {_repair(wrong)}', name=wrong) from None


def check_torch() -> None:
    """Raise an ``ImportError`` if torch is too old to read checkpoints safely."""
    import torch
    from mmengine.utils import digit_version

    version = torch.__version__.split('+')[0]
    if digit_version(version) < digit_version(OLDEST_TORCH):
        raise ImportError(
            f'torch {version} is too old, expected {OLDEST_TORCH} or newer: its safe mode cannot '
            'read a checkpoint. Repair: pip install --upgrade torch torchvision',
            name='torch',
        )


@contextmanager
def accepted_mmcv() -> Iterator[None]:
    """Let mmrazor import with an mmcv that is newer than its newest, if mmpretrain accepts it.

    Only during this import mmcv reports that older version; afterwards it reports its own again.
    """
    mmcv: Any = importlib.import_module('mmcv')
    digit_version = importlib.import_module('mmengine.utils').digit_version
    real = mmcv.__version__
    if digit_version(real) <= digit_version(NEWEST_MMCV):
        yield
        return
    _changed(f'mmrazor accepts mmcv {real}')
    mmcv.__version__ = NEWEST_MMCV
    try:
        yield
    finally:
        mmcv.__version__ = real
    importlib.import_module('mmrazor').mmcv_version = digit_version(real)  # type: ignore


def warn_of_untested() -> None:
    """One line for packages that are newer than what this was tested with."""
    digit_version = importlib.import_module('mmengine.utils').digit_version
    newer = []
    for name, tested in NEWEST_TESTED.items():
        version = importlib.import_module(name).__version__.split('+')[0]
        if digit_version(version) > digit_version(tested):
            newer.append(f'{name} {version} (tested up to {tested})')
    if newer:
        logging.getLogger('mfef_mmrazor').warning(
            'newer than what mfef_mmrazor was tested with: %s', ', '.join(newer)
        )


def _repair(name: str) -> str:
    """The command that brings a version that mmrazor accepts."""
    if name == 'mmengine':
        return 'pip install "mmengine>=0.10.4,<1"'
    # mmcv and mmcv-lite (and forks of them) own the same folder
    owner = (metadata.packages_distributions().get('mmcv') or ['mmcv-lite'])[0]
    if owner in ('mmcv', 'mmcv-lite'):
        return f'pip install "{owner}==2.1.0"'
    return f'pip uninstall {owner} && pip install "mmcv-lite==2.1.0"'


def import_quantization_tables() -> None:
    """Import mmrazor's quantization tables, which need names that torch 2 no longer has.

    On torch < 1.13 mmrazor leaves these tables empty by itself, so during this one import it is
    told that torch is that old. It must not be told so later: pruning and NAS ask as well.
    """
    try:
        importlib.import_module(TABLES)
        return
    except ImportError as error:
        if 'torch>=1.13' not in str(error):
            raise
    import torch

    _changed("mmrazor's quantization tables are left empty, as on torch < 1.13")
    mmrazor: Any = importlib.import_module('mmrazor')
    real = mmrazor.digit_version
    mmrazor.digit_version = lambda version: real(
        '1.12.1' if version == torch.__version__ else version
    )
    try:
        importlib.import_module(TABLES)
    finally:
        mmrazor.digit_version = real
        for captured in ('common_operator_config_utils', 'mapping'):
            module: Any = importlib.import_module(f'{TABLES}.backend_config.{captured}')
            module.digit_version = real


def import_registered_parts() -> None:
    """Import everything that mmrazor registers.

    Raises:
        ImportError: Parts of it are registered already, by an import that failed half-way.
    """
    try:
        with at_first_use(*OF_OTHER_METHODS):
            importlib.import_module('mmrazor.models')
            importlib.import_module('mmrazor.engine')
    except KeyError as error:
        if 'already registered' not in str(error):
            raise
        raise ImportError(
            'an import of mmrazor before this one failed half-way and left its registries half '
            'full. Start a new Python process and import mfef_mmrazor before mmrazor; for a script '
            'that imports mmrazor itself: python -m mfef_mmrazor.run SCRIPT ARGS...',
            name='mmrazor',
        ) from None


def repair_inplace() -> None:
    """Let mmrazor's algorithms switch in-place activations off again.

    Since torch 2.5 a module's ``_modules`` is a plain dict, mmrazor looks for an OrderedDict and
    finds nothing, and in-place ReLUs overwrite what its recorders hold.
    """
    from collections import OrderedDict

    from mmrazor.models.algorithms.base import BaseAlgorithm
    from torch import nn

    if isinstance(nn.Module()._modules, OrderedDict):
        return

    def set_module_inplace_false(self: Any, architecture: nn.Module, varstr: str) -> None:
        for module in architecture.modules():
            if hasattr(module, 'inplace'):
                setattr(module, 'inplace', False)  # noqa: B010 (not a parameter or submodule)

    _changed("mmrazor's algorithms switch in-place activations off again")
    BaseAlgorithm.set_module_inplace_false = set_module_inplace_false


def allow_checkpoints() -> None:
    """Let ``torch.load`` read what mmengine writes, and keep its safe mode for all else.

    Since torch 2.6 it refuses classes it does not know. A checkpoint of mmengine's has log buffers:
    numpy arrays, and methods that were pickled by name.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.utils import digit_version

    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    _changed("torch.load reads mmengine's log buffers in its safe mode")
    refuse_unsafe_loading()
    # in numpy 1 these are in numpy.core; the name a pickle has depends on the numpy that wrote it
    multiarray: Any = getattr(np, '_core', None) or np.core
    functions = {
        f'numpy.{core}.multiarray.{name}': getattr(multiarray.multiarray, name)
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    }
    dtypes = {type(np.dtype(code)) for code in ('?bhilqBHILQefd')}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *dtypes,
            *((function, name) for name, function in functions.items()),
            (history_buffer_method, 'builtins.getattr'),
        ]
    )


def refuse_unsafe_loading() -> None:
    """Keep OneDL's mmengine from reading a refused checkpoint again, without the safe mode."""
    import torch
    from mmengine.runner import checkpoint

    if not hasattr(checkpoint, '_safe_torch_load'):
        return

    def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return torch.load(file, map_location=map_location, weights_only=weights_only is not False)

    _changed("mmengine's loader never leaves the safe mode by itself")
    checkpoint._safe_torch_load = load


def history_buffer_method(owner: Any, name: str) -> Any:
    """Stands in for ``getattr`` in checkpoints, and answers for nothing but HistoryBuffer's own."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('mean', 'max', 'min', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'the checkpoint asks for {name!r} of {owner!r}: refused')


def read_urls_safely() -> None:
    """Let mmengine read checkpoints from URLs in torch's safe mode as well.

    Its function for them, torch's ``load_state_dict_from_url``, runs what a file asks for unless
    told otherwise.
    """
    from torch.hub import load_state_dict_from_url

    checkpoint: Any = importlib.import_module('mmengine.runner.checkpoint')
    checkpoint.load_url = functools.partial(load_state_dict_from_url, weights_only=True)


def replace_pkg_resources() -> None:
    """Answer mmengine's questions about installed packages without setuptools' pkg_resources.

    Setuptools 82 dropped it; ``_base_ = ['mmpretrain::...']`` needs the answers.
    """
    if find_spec('pkg_resources') is not None:
        return
    _changed('mmengine finds installed packages without pkg_resources')
    for name in ('utils', 'utils.package_utils', 'config.config', 'config.utils', 'hub.hub'):
        module = importlib.import_module(f'mmengine.{name}')
        for function in (is_installed, get_installed_path):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)


def lend_pkg_resources() -> None:
    """Give scripts that ask pkg_resources for a package's version an answer where it is gone.

    mmpretrain's ``vis_cam.py`` is one. Only the launcher calls this, since other packages may test
    whether the module exists.
    """
    if find_spec('pkg_resources') is None:
        module: Any = types.ModuleType('pkg_resources')
        module.get_distribution = metadata.distribution
        sys.modules['pkg_resources'] = module


def is_installed(package: str) -> bool:
    """Whether there is a distribution or a module of that name."""
    try:
        metadata.distribution(package)
        return True
    except metadata.PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None


def get_installed_path(package: str) -> str:
    """Folder of the module of that name, or of one that a distribution of that name installs.

    Raises:
        PackageNotFoundError: There is none.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        owners = metadata.packages_distributions()  # slow: it reads the file lists of all
        modules = (name for name in owners if package in owners[name] and name[0] != '_')
        spec = find_spec(next(modules, package))
    if spec is None or spec.origin is None:
        raise metadata.PackageNotFoundError(package)
    return str(Path(spec.origin).parent)


def announce_configs() -> None:
    """Let ``_base_ = ['mfef_mmrazor::mfef/...']`` be read.

    mmengine has a list of packages, and takes a package's name for the scope of its registries;
    this one registers in those of mmrazor and mmpretrain.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    name = 'mfef_mmrazor'
    if name in MODULE2PACKAGE:
        return
    MODULE2PACKAGE[name] = name
    locate = Config._get_cfg_path

    def locate_without_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = locate(cfg_path, filename)
        return path, None if scope == name else scope

    Config._get_cfg_path = staticmethod(locate_without_scope)


def init_cpu_processes(launcher: str = 'pytorch') -> None:
    """Join the other processes that torchrun or srun started, on a host without a GPU.

    mmengine's own start asks for a GPU whatever the backend.

    Args:
        launcher: As the Runner's; with ``none`` nothing is joined. With ``slurm``, Slurm's
            variables are read, and jobs that share a node get different ports, with a GPU as well;
            a ``MASTER_PORT`` that is set is kept.
    """
    import torch
    from torch import distributed

    if launcher == 'none' or distributed.is_initialized():
        return
    if launcher == 'slurm' and 'SLURM_PROCID' in os.environ:
        os.environ.setdefault('MASTER_PORT', str(20000 + int(os.environ['SLURM_JOB_ID']) % 10000))
        if not torch.cuda.is_available():
            os.environ.update(slurm_processes())
    if 'RANK' in os.environ and not torch.cuda.is_available():
        distributed.init_process_group('gloo')


def slurm_processes() -> dict[str, str]:
    """The variables that torchrun would set, from those that srun sets."""
    known = os.environ
    nodes = subprocess.check_output(
        ['scontrol', 'show', 'hostnames', known['SLURM_STEP_NODELIST']], text=True
    ).split()
    return dict(
        MASTER_ADDR=known.get('MASTER_ADDR', nodes[0]),
        RANK=known['SLURM_PROCID'],
        WORLD_SIZE=known['SLURM_NTASKS'],
        LOCAL_RANK=known['SLURM_LOCALID'],
    )
