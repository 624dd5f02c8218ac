"""Online knowledge distillation for mmrazor.

Importing this package makes mmrazor importable on today's torch and registers all of its parts.
"""

import sys

from .version import __version__

# `python -m mfef_mmrazor.doctor` imports this file first, with '-m' in the place of the script's
# name. The doctor is for environments in which nothing below can be imported.
if not (sys.argv[:1] == ['-m'] and 'mfef_mmrazor.doctor' in sys.orig_argv):
    from . import compat, imports

    with imports.here_to_stay():
        compat.apply()

        from . import datasets, engine, models  # mmrazor imports only after compat

__all__ = ['__version__', 'datasets', 'engine', 'models']
