"""What keeps ``import mfef_mmrazor`` short."""

import atexit
import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def here_to_stay() -> Iterator[None]:
    """Let Python look for no garbage among the objects that are imported inside.

    They are a million. To look through them takes a second or two during the import, and a third of
    one each time that mmengine asks for it, as for every data set. At exit they are looked through
    as usual: some extensions count then what is left.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
        if collecting:
            gc.enable()


@contextmanager
def at_first_use(*modules: str) -> Iterator[None]:
    """Let what is imported inside put off its own import of these modules until it uses them.

    Works for ``import a.b as c`` and ``from a.b import c`` where ``c`` is called or asked for an
    attribute later on. A module that is there already is used as it is.

    Args:
        modules: Names with a dot, as of ``scipy.stats``.
    """
    put_off = {name: Late(name) for name in modules if name not in sys.modules}
    sys.modules.update(put_off)
    try:
        yield
    finally:
        for name in put_off:
            del sys.modules[name]


class Late(ModuleType):
    """Stands for a module that nobody has used yet."""

    def __getattr__(self, name: str) -> 'LateName':
        if name.startswith('__'):  # the import system asks for __path__ and the like
            raise AttributeError(name)
        return LateName(self.__name__, name)


class LateName:
    """Stands for a function or a class of such a module."""

    def __init__(self, module: str, name: str) -> None:
        self.__module, self.__name = module, name

    def __found(self) -> Any:
        return getattr(importlib.import_module(self.__module), self.__name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__found()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__found(), name)
