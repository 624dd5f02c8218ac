from .errors import user_errors
from .train import load_config, test, train

__all__ = ['load_config', 'test', 'train', 'user_errors']
