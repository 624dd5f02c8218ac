from .hooks import (
    ChannelsLastHook,
    ContinuedScheduleHook,
    DataCheckHook,
    DistillerUpdateHook,
    EpochSeedHook,
    HeldOutHook,
    PlainLogHook,
    ProgressHook,
    RampUpHook,
    ResultsHook,
)
from .loops import OnlineDistillTestLoop, OnlineDistillValLoop
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'ContinuedScheduleHook',
    'DataCheckHook',
    'DistillerUpdateHook',
    'EpochSeedHook',
    'HeldOutHook',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'PlainLogHook',
    'ProgressHook',
    'ResultsHook',
    'RampUpHook',
]
