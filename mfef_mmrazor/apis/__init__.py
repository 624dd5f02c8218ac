from .benchmark import benchmark
from .compare import compare
from .config import load_config
from .errors import user_errors
from .export import export
from .networks import count_networks
from .report import report
from .show_maps import show_maps
from .slurm import Slurm
from .sweep import Sweep
from .train import test, train

__all__ = [
    'Slurm',
    'Sweep',
    'benchmark',
    'compare',
    'count_networks',
    'export',
    'load_config',
    'report',
    'show_maps',
    'test',
    'train',
    'user_errors',
]
