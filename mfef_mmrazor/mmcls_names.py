"""Lets mmrazor's own configs, written for mmcls, be read with its successor mmpretrain.

``python -m mfef_mmrazor.run`` calls :func:`use_mmpretrain`; nothing else does.
"""

import importlib
import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

# what has another name in mmpretrain: package, class, config file
RENAMED = (
    # _scope_ makes mmpretrain's parts known as well: the default type of the data preprocessor has
    # no prefix in mmpretrain, but had one in mmcls
    (r"type='mmcls\.ImageClassifier'", "_scope_='mmpretrain', type='ImageClassifier'"),
    (r"""\bmmcls(?=::|\.[A-Za-z])|(?<=['"])mmcls(?=['"])""", 'mmpretrain'),
    (r'\bPackClsInputs\b', 'PackInputs'),
    (r'deit-base_pt-16xb64_in1k', 'deit-base_16xb64_in1k'),
)


def use_mmpretrain() -> None:
    """Read ``mmcls`` in every config file as ``mmpretrain``, unless mmcls itself is installed."""
    if find_spec('mmcls') is None:
        translate_configs()
        complete_mmrazor()


def translate(text: str) -> str:
    """The text of a config with mmpretrain's names.

    Example:
        >>> translate("_base_ = ['mmcls::_base_/default_runtime.py']")
        "_base_ = ['mmpretrain::_base_/default_runtime.py']"
    """
    for old, new in RENAMED:
        text = re.sub(old, new, text)
    return text


def translate_configs() -> None:
    """Translate each config file where mmengine has copied it, before it looks for its bases."""
    from mmengine.config import Config

    copy_to, locate = Config._substitute_predefined_vars, Config._get_cfg_path

    def copy_translated(filename: str, copied: str) -> None:
        copy_to(filename, copied)
        path = Path(copied)
        path.write_text(translate(path.read_text(encoding='utf-8')), encoding='utf-8')

    def locate_with_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = locate(cfg_path, filename)  # mmrazor::_base_/datasets/mmcls/...
        return path, 'mmpretrain' if scope == 'mmrazor' and '/mmcls/' in path else scope

    Config._substitute_predefined_vars = staticmethod(copy_translated)
    Config._get_cfg_path = staticmethod(locate_with_scope)


def complete_mmrazor() -> None:
    """Import mmrazor's data for CRD again, over mmpretrain's classes in place of mmcls's."""
    from mmpretrain.datasets.transforms import formatting
    from mmpretrain.structures import DataSample
    from mmrazor.registry import TRANSFORMS

    structures: Any = types.ModuleType('mmcls.structures')
    structures.ClsDataSample = DataSample
    transforms: Any = types.ModuleType('mmcls.datasets.transforms.formatting')
    transforms.PackClsInputs, transforms.to_tensor = formatting.PackInputs, formatting.to_tensor
    lent = {module.__name__: module for module in (structures, transforms)}
    with patch.dict(sys.modules, lent):
        placeholder = TRANSFORMS.module_dict.pop('PackCRDClsInputs')
        importlib.reload(sys.modules[placeholder.__module__])
