"""Online knowledge distillation for mmrazor.

Importing this package makes mmrazor importable on today's torch and registers all of its parts.
"""

from . import compat
from .version import __version__

compat.apply()

from . import datasets, engine, models  # noqa: E402  (mmrazor imports only after compat)

__all__ = ['__version__', 'datasets', 'engine', 'models']
