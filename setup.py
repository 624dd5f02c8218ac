"""Metadata is in setup.cfg; here configs and tools are put where `mim` looks for them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMim(build_py):
    """Copies configs, tools and the model index to ``mfef_mmrazor/.mim`` in the wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'mfef_mmrazor' / '.mim' / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy('model-index.yml', Path(self.build_lib) / 'mfef_mmrazor' / '.mim')


setup(cmdclass=dict(build_py=BuildWithMim))
