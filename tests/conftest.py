"""Fixtures of all tests."""

import gc
import logging
from types import SimpleNamespace

import plain_configs  # noqa: F401
import pytest
from mmengine.dataset import base_dataset
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope


def pytest_collection_finish():
    """Search for garbage only among what tests make, and not whenever a data set is built.

    mmengine does that for the memory of a large list of images; here it took a twentieth of the
    time.
    """
    gc.freeze()
    base_dataset.gc = SimpleNamespace(collect=lambda: None)


@pytest.fixture(autouse=True)
def no_scope_of_another_test():
    """Forget mmengine's own scope, in which a runner without one leaves the tests that follow."""
    scope = DefaultScope.get_current_instance()
    if scope and scope.scope_name == 'mmengine':
        DefaultScope._instance_dict.clear()


@pytest.fixture
def log(monkeypatch):
    """The messages that mmengine's log gets from now on, without those for debugging."""
    lines = []

    def handle(record):
        if record.levelno > logging.DEBUG:
            lines.append(record.getMessage())

    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', handle)
    return lines
