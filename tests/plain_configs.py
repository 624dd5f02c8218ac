"""Lets mmengine write configs as they are, where this is imported.

It formats a config with yapf in every run, which took a tenth of the time of all tests. Runs in
processes of their own that import everything themselves still do.
"""

from mmengine.config import config

config.FormatCode = lambda text, **options: (text, True)
