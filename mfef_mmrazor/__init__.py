"""Online knowledge distillation for mmrazor.

Importing this package makes mmrazor importable on today's torch and registers all of its parts.
"""

import atexit
import gc
import sys

from .version import __version__

# `python -m mfef_mmrazor.doctor` imports this file first, with '-m' in the place of the script's
# name. The doctor is for environments in which nothing below can be imported.
if not (sys.argv[:1] == ['-m'] and 'mfef_mmrazor.doctor' in sys.orig_argv):
    collecting = gc.isenabled()
    gc.disable()  # a million objects come in to stay: to look through them takes seconds
    try:
        from . import compat

        compat.apply()

        from . import datasets, engine, models  # mmrazor imports only after compat
    finally:
        gc.freeze()  # later collections, such as mmengine's for every data set, leave them out,
        atexit.register(gc.unfreeze)  # but not the last, of which some extensions count the rest
        if collecting:
            gc.enable()

__all__ = ['__version__', 'datasets', 'engine', 'models']
