from .progress_hook import ProgressHook
from .results_hook import ResultsHook

__all__ = ['ProgressHook', 'ResultsHook']
