from .hooks import ProgressHook, ResultsHook
from .loops import OnlineDistillTestLoop, OnlineDistillValLoop
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'ProgressHook',
    'ResultsHook',
]
