"""The convolution block the connectors are made of."""

from typing import Any

from mmcv.cnn import ConvModule


def conv_block(*args: Any, **kwargs: Any) -> ConvModule:
    """A ``ConvModule`` with batch norm, not in-place, that respects a connector's ``init_cfg``.

    A ConvModule initialises itself when it is made. Doing so again in ``init_weights`` would undo
    what the ``init_cfg`` of the connector around it has just set.
    """
    block = ConvModule(*args, **{'norm_cfg': dict(type='BN'), 'inplace': False, **kwargs})
    block.is_init = True
    return block
