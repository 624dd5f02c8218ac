from .channels_last_hook import ChannelsLastHook
from .progress_hook import ProgressHook
from .results_hook import ResultsHook

__all__ = ['ChannelsLastHook', 'ProgressHook', 'ResultsHook']
