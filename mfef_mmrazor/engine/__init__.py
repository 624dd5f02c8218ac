from .hooks import ChannelsLastHook, ProgressHook, ResultsHook
from .loops import OnlineDistillTestLoop, OnlineDistillValLoop
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'ProgressHook',
    'ResultsHook',
]
