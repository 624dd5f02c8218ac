from .hooks import ChannelsLastHook, EpochSeedHook, HeldOutHook, ProgressHook, ResultsHook
from .loops import OnlineDistillTestLoop, OnlineDistillValLoop
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'EpochSeedHook',
    'HeldOutHook',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'ProgressHook',
    'ResultsHook',
]
