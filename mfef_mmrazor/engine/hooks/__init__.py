from .channels_last_hook import ChannelsLastHook
from .checkpoint_hook import SafeCheckpointHook
from .continued_schedule_hook import ContinuedScheduleHook
from .data_check_hook import DataCheckHook
from .distiller_update_hook import DistillerUpdateHook
from .epoch_seed_hook import EpochSeedHook
from .finite_hook import FiniteHook
from .held_out_hook import HeldOutHook
from .plain_log_hook import PlainLogHook
from .progress_hook import ProgressHook
from .ramp_up_hook import RampUpHook
from .results_hook import ResultsHook
from .signal_hook import SignalHook
from .term_share_hook import TermShareHook

__all__ = [
    'ChannelsLastHook',
    'ContinuedScheduleHook',
    'DataCheckHook',
    'DistillerUpdateHook',
    'EpochSeedHook',
    'FiniteHook',
    'HeldOutHook',
    'PlainLogHook',
    'ProgressHook',
    'RampUpHook',
    'ResultsHook',
    'SafeCheckpointHook',
    'SignalHook',
    'TermShareHook',
]
