"""Metadata is in setup.cfg; here configs and tools are put where `mim` looks for them."""

import json
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# <method>_<networks>_<GPUs>xb<batch size of each>-<epochs>e_<data>
NAME = re.compile(r'.+_(?P<gpus>\d+)xb(?P<batch>\d+)-(?P<epochs>\d+)e_(?P<data>[^_]+)')
PAPER = re.compile(r'^> \[(?P<Title>[^]]+)\]\((?P<URL>[^)]+)\)', re.M)
DATA = {
    'cifar10': 'CIFAR-10', 'cifar10-folder': 'CIFAR-10', 'cifar100': 'CIFAR-100',
    'cinic10': 'CINIC-10', 'cinic10-trainvalid': 'CINIC-10', 'digits': 'digits', 'folder': 'custom',
    'fashion-mnist': 'Fashion-MNIST', 'in1k': 'ImageNet-1k', 'tiny-imagenet': 'Tiny ImageNet',
}  # fmt: skip


def write_model_index(root: Path) -> None:
    """Write ``model-index.yml`` and each folder's ``metafile.yml``, from the configs' names.

    In JSON, which is YAML as well and needs no package.
    """
    cards = sorted(root.glob('configs/[!_]*/README.md'))
    for card in cards:
        text = card.read_text()
        name = text.splitlines()[0].removeprefix('# ')
        collection = dict(Name=name, README=str(card.relative_to(root)))
        paper = PAPER.search(text)
        if paper:
            collection['Paper'] = paper.groupdict()
        models = []
        for config in sorted(card.parent.rglob('*.py')):
            found = NAME.fullmatch(config.stem.removesuffix('-fast'))  # the same data, in memory
            if found is None or found['data'] not in DATA:
                raise ValueError(
                    f'{config}: expected a name like {NAME.pattern}, data of {[*DATA]}'
                )
            metadata = {
                'Training Data': DATA[found['data']],
                'Epochs': int(found['epochs']),
                'Batch Size': int(found['gpus']) * int(found['batch']),
            }
            models.append(
                {
                    'Name': config.stem,
                    'In Collection': name,
                    'Config': str(config.relative_to(root)),
                    'Metadata': metadata,
                }
            )
        metafile = dict(Collections=[collection], Models=models)
        card.with_name('metafile.yml').write_text(json.dumps(metafile, indent=1))
    imports = [str(card.relative_to(root).with_name('metafile.yml')) for card in cards]
    (root / 'model-index.yml').write_text(json.dumps(dict(Import=imports), indent=1))


class BuildWithMim(build_py):
    """Copies configs and tools to ``mfef_mmrazor/.mim`` in the wheel, and lists them there."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):  # not in setuptools < 64, which openmim installs
            return
        mim = Path(self.build_lib) / 'mfef_mmrazor' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        for folder in ('configs', 'tools'):
            shutil.copytree(folder, mim / folder, ignore=shutil.ignore_patterns('__pycache__'))
        write_model_index(mim)


setup(cmdclass=dict(build_py=BuildWithMim))
