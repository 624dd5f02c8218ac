"""The configs that are shipped, and what became of those that no longer are."""

import re
from pathlib import Path

from mmengine.config import Config

ONCE_SHIPPED = re.compile(
    r'(?<![\w-])(clilr|dml|ffl|ffsd|independent|kdcl|mcl|okddip|one)'
    r'_(densenet-bc-40-12|resnet32|vgg16|wrn-16-2)-x([23])_1xb128-300e'
    r'_(cifar100|cifar10|cinic10)(?:\.py)?(?![\w.-])'
)


def configs() -> Path:
    """The shipped configs, of the repository or of the installed package."""
    package = Path(__file__).parents[1]
    # the first is a symbolic link in a repository, if the system has such links
    folders = (package / '.mim/configs', package.parent / 'configs')
    return next(x.resolve() for x in folders if x.is_dir())


def successor(text: str) -> str:
    """The lines that give a config which was shipped once, as the end of a message.

    It is that of MFEF for the same networks and data, with the distiller of the method's own
    config for CIFAR-100.

    Args:
        text: Path of a config that is not there, or a message with it.

    Returns:
        Nothing if the text names no such config.
    """
    found = ONCE_SHIPPED.search(text)
    if found is None:
        return ''
    method, network, students, data = found.groups()
    shown = network if method == 'ffsd' else 'resnet32'  # FFSD names stages of the network
    own = configs() / method / f'{method}_{shown}-x{students}_1xb128-300e_cifar100.py'
    if not own.is_file() or own.stem in found.group():
        return ''
    distiller = {'_delete_': True, **Config.fromfile(own).model.distiller.to_dict()}
    arguments = ', '.join(f'{name}={value!r}' for name, value in distiller.items())
    several = 'students=[_base_.student] * 3, ' if students == '3' else ''
    return (
        '. It is no longer shipped: two lines over another config give the same,\n'
        f"_base_ = ['mfef_mmrazor::mfef/mfef_{network}-x2_1xb128-300e_{data}.py']\n"
        f'model = dict({several}distiller=dict({arguments}))'
    )
