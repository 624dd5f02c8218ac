from .compare import compare
from .config import load_config
from .errors import user_errors
from .export import export
from .networks import count_networks
from .report import report
from .train import test, train

__all__ = [
    'compare',
    'count_networks',
    'export',
    'load_config',
    'report',
    'test',
    'train',
    'user_errors',
]
