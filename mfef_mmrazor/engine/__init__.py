from .hooks import ChannelsLastHook, HeldOutHook, ProgressHook, ResultsHook
from .loops import OnlineDistillTestLoop, OnlineDistillValLoop
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'HeldOutHook',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'ProgressHook',
    'ResultsHook',
]
