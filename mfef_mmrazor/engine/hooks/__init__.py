from .channels_last_hook import ChannelsLastHook
from .epoch_seed_hook import EpochSeedHook
from .progress_hook import ProgressHook
from .results_hook import ResultsHook

__all__ = ['ChannelsLastHook', 'EpochSeedHook', 'ProgressHook', 'ResultsHook']
