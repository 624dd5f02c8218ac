"""Runs of a comparison, made up."""

import pandas as pd

from mfef_mmrazor.apis.report.runs import STUDENTS


def runs(block='', **accuracies):
    """Rows of two students a seed, whose mean is the accuracy given.

    Methods stand in another order by their best epochs.
    """
    return pd.DataFrame(
        [
            dict(block=block, method=method, name=method, config=f'{method}_x.py', seed=seed,
                 revision='r', device=None, processes=None, predictor=STUDENTS,
                 last=value, best=value + 9 - 3 * place,
                 train_seconds=10.0 + 5 * place, parameters=1000, macs=2_000_000)
            for place, (method, values) in enumerate(accuracies.items())
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip


A = [70.0, 71.0, 70.5, 69.5, 70.2]
B = [70.9, 71.6, 71.9, 70.1, 71.1]
C = [70.1, 70.8, 70.6, 69.9, 70.0]
