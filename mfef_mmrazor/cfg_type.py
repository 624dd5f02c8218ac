"""The type of a config."""

from typing import Any

Cfg = dict[str, Any]
"""A config; that of a part has the ``type`` that a registry builds, and its arguments."""
