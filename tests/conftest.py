"""Fixtures of all tests."""

import gc
import logging

import pytest
from mmengine.logging import MMLogger


def pytest_collection_finish():
    """Search for garbage only among what tests make: every data set has all of it searched."""
    gc.freeze()


@pytest.fixture
def log(monkeypatch):
    """The messages that mmengine's log gets from now on, without those for debugging."""
    lines = []

    def handle(record):
        if record.levelno > logging.DEBUG:
            lines.append(record.getMessage())

    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', handle)
    return lines
