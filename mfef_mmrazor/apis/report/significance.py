"""What of the differences between methods is more than chance."""

from typing import Any

import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ...engine.results import METRIC
from .ranks import rank
from .runs import STUDENTS

MIN_SEEDS = 5


def statistics(runs: pd.DataFrame, baseline: str, metric: str = METRIC) -> dict[str, Any]:
    """Each method against the baseline: differences by seed, interval, tests, Holm-corrected.

    Over several blocks, ``blocks`` has the comparisons of each, and ``grid`` the methods' ranks.
    """
    shown = f'{metric}, {STUDENTS}, last epoch'
    if metric == METRIC:
        shown = f'top-1 accuracy, {STUDENTS}, last epoch, percent'
    found: dict[str, Any] = dict(metric=shown, baseline=baseline)
    blocks = runs.groupby('block', sort=False)
    by_block = {block: against_baseline(of_block, baseline) for block, of_block in blocks}
    if len(by_block) > 1:
        grid = rank(runs)
        return dict(found, blocks=by_block, **({'grid': grid} if grid else {}))
    return dict(found, comparisons=next(iter(by_block.values())))


def comparisons_of(stats: dict[str, Any], block: str) -> list[dict[str, Any]]:
    """The comparisons of one block in :func:`statistics`."""
    return stats['blocks'][block] if 'blocks' in stats else stats['comparisons']


def against_baseline(runs: pd.DataFrame, baseline: str) -> list[dict[str, Any]]:
    """Each method of one block against the baseline; none where that is not of the block."""
    by_seed = runs[runs['predictor'] == STUDENTS].pivot(
        index='seed', columns='method', values='last'
    )
    if baseline not in by_seed:
        return []
    comparisons = []
    for method in (m for m in runs['method'].unique() if m != baseline):
        pairs = (by_seed[method] - by_seed[baseline]).dropna()
        comparisons.append(dict(method=method, **compare_pairs(pairs)))
    for test in ('t_test', 'wilcoxon'):
        tested = [c for c in comparisons if isinstance(c[test], dict)]
        if tested:
            corrected = multipletests([c[test]['p'] for c in tested], method='holm')[1]
            for each, p in zip(tested, corrected, strict=True):
                each[test]['p_holm'] = float(p)
    return comparisons


def half_interval_95(values: pd.Series) -> float:
    """How far the 95 % interval of the mean of two or more values reaches, by Student's t."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.sem())


def compare_pairs(differences: pd.Series) -> dict[str, Any]:
    """Statistics of paired differences (index: seeds).

    Differences that are all the same have neither an interval nor a t-test.
    """
    n = len(differences)
    found: dict[str, Any] = dict(
        n=n, seeds=[int(s) for s in differences.index], differences=differences.round(6).tolist()
    )
    if n:
        found['mean'] = float(differences.mean())
    # rounding errors would turn equal values into differences, and break ties
    exact = differences.round(9)
    varied = exact.nunique() > 1
    if varied:
        half = half_interval_95(differences)
        found['interval_95'] = [found['mean'] - half, found['mean'] + half]
    if n < MIN_SEEDS:
        return dict(found, t_test='too few seeds', wilcoxon='too few seeds')
    if (exact == 0).all():
        return dict(found, t_test=dict(p=1.0), wilcoxon=dict(p=1.0))
    t_test = dict(p=float(stats.ttest_1samp(exact, 0).pvalue)) if varied else 'no variance'
    return dict(found, t_test=t_test, wilcoxon=dict(p=float(stats.wilcoxon(exact).pvalue)))
