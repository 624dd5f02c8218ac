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
    """Keep Python's garbage collector away from the objects that are imported inside.

    There are about a million of them. Searching them takes a second or two during the import, and a
    third of a second whenever mmengine starts a collection, as it does for every data set. At exit
    they are collected as usual, since some extensions then count the objects that are left. If
    torch was imported before, there may be models already, which must stay collectable.
    """
    fresh, collecting = 'torch' not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if fresh:
            gc.freeze()
            atexit.register(gc.unfreeze)
        if collecting:
            gc.enable()


@contextmanager
def at_first_use(*modules: str) -> Iterator[None]:
    """Delay the import of these modules until the code that is imported inside first uses them.

    Works for ``import a.b as c`` and ``from a.b import c`` if ``c`` is only called, or its
    attributes are read, later on. A module that is already imported is used as it is.

    Args:
        modules: Names with a dot, such as ``scipy.stats``.
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
