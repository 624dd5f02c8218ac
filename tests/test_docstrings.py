"""The examples in the docstrings are right."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import mfef_mmrazor

MODULES = ['mfef_mmrazor'] + [
    module.name for module in pkgutil.walk_packages(mfef_mmrazor.__path__, 'mfef_mmrazor.')
]


def examples_in_source(name):
    return Path(importlib.import_module(name).__file__).read_text().count('>>> ')


@pytest.mark.parametrize('name', MODULES)
def test_every_example_runs_and_shows_what_it_says(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert attempted == examples_in_source(name)


def test_there_are_examples():
    counts = {name: examples_in_source(name) for name in MODULES}
    assert len(MODULES) > 20 and sum(counts.values()) >= 40
    assert sum(count > 0 for count in counts.values()) >= 8
