from .hooks import (
    ChannelsLastHook,
    ContinuedScheduleHook,
    DataCheckHook,
    DistillerUpdateHook,
    EpochSeedHook,
    FiniteHook,
    HeldOutHook,
    PlainLogHook,
    ProgressHook,
    RampUpHook,
    ResultsHook,
    SafeCheckpointHook,
    SignalHook,
    TermShareHook,
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
    'FiniteHook',
    'HeldOutHook',
    'OnlineDistillTestLoop',
    'OnlineDistillValLoop',
    'PlainLogHook',
    'ProgressHook',
    'RampUpHook',
    'ResultsHook',
    'SafeCheckpointHook',
    'SignalHook',
    'TermShareHook',
]
