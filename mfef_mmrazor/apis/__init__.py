from .compare import compare
from .errors import user_errors
from .export import export
from .networks import count_networks
from .report import report
from .train import load_config, test, train

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
