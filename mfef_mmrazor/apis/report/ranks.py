"""Methods over several networks and data sets: ranks, pairs, and what of it is more than chance.

As in Demšar, "Statistical comparisons of classifiers over multiple data sets" (JMLR 7, 2006).
"""

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd
import scikit_posthocs
from scipy import stats

from .runs import STUDENTS

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

MIN_BLOCKS = 5
ALPHA = 0.05


def scores_by_block(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the students, mean over seeds: a row per block, a column per method.

    Rounded as in the tables, so that what is equal there is a tie. A method that is not in every
    block has no place in a ranking and is left out.
    """
    students = runs[runs['predictor'] == STUDENTS]
    means = students.groupby(['block', 'method'], sort=False)['last'].mean().unstack()
    order = [method for method in runs['method'].unique() if means[method].notna().all()]
    return means.loc[runs['block'].unique(), order].round(2)


def rank(runs: pd.DataFrame) -> dict[str, Any] | None:
    """Average ranks, wins, ties and losses of each pair, and tests; None for fewer than two blocks.

    Friedman's test says whether there is any difference, Nemenyi's between which methods. Neither
    is given for fewer than three methods or ``MIN_BLOCKS`` blocks, or where all methods are equal.
    """
    scores = scores_by_block(runs)
    if len(scores) < 2 or len(scores.columns) < 2:
        return None
    ranks = scores.rank(axis='columns', ascending=False).mean()
    pairs = []
    for a, b in combinations(scores.columns, 2):
        wins, losses = int((scores[a] > scores[b]).sum()), int((scores[a] < scores[b]).sum())
        pairs.append(dict(a=a, b=b, wins=wins, ties=len(scores) - wins - losses, losses=losses))
    found: dict[str, Any] = dict(
        blocks=list(scores.index),
        left_out=[method for method in runs['method'].unique() if method not in scores],
        average_ranks={method: round(float(r), 4) for method, r in ranks.items()},
        pairs=pairs,
    )
    untested = why_untested(scores)
    if untested:
        return dict(found, friedman=untested, nemenyi=untested)
    p = nemenyi(scores)
    found['friedman'] = dict(p=float(stats.friedmanchisquare(*scores.T.values).pvalue))
    found['nemenyi'] = {a: {b: float(p.loc[a, b]) for b in p.columns} for a in p.index}
    return found


def why_untested(scores: pd.DataFrame) -> str:
    """Why there is no test of :func:`scores_by_block`; empty where there is one."""
    if len(scores) < MIN_BLOCKS:
        return 'too few blocks'
    if len(scores.columns) < 3:
        return 'too few methods'
    return 'no differences' if (scores.nunique(axis='columns') == 1).all() else ''


def nemenyi(scores: pd.DataFrame) -> pd.DataFrame:
    """P-values of Nemenyi's test between the methods, from :func:`scores_by_block`."""
    return scikit_posthocs.posthoc_nemenyi_friedman(scores.reset_index(drop=True))


def draw_critical_difference(runs: pd.DataFrame) -> 'Figure':
    """Average ranks on an axis; a bar joins methods that Nemenyi's test does not tell apart.

    There is no bar where :func:`rank` gives no test.
    """
    from matplotlib.figure import Figure

    scores = scores_by_block(runs)
    ranks = scores.rank(axis='columns', ascending=False).mean()
    figure = Figure(figsize=(9, 1.2 + 0.16 * len(ranks)), layout='constrained')
    axes = figure.subplots()
    untested = why_untested(scores)
    p = pd.DataFrame(0.0, ranks.index, ranks.index) if untested else nemenyi(scores)
    drawn = scikit_posthocs.critical_difference_diagram(
        ranks,
        p,
        ax=axes,
        alpha=ALPHA,
        color_palette=['black'] * len(ranks),  # the names have it too
        label_fmt_left='{label} ({rank:.1f})',
        label_fmt_right='({rank:.1f}) {label}',
    )
    for (bar,) in drawn['crossbars']:  # through a set of points, which has no fixed order
        bar.set_xdata(sorted(bar.get_xdata()))
    title = f'average rank over {len(scores)} blocks (1 is best)'
    axes.set_title(title + f'; not tested: {untested}' * bool(untested), fontsize='medium')
    return figure


def rank_table(grid: dict[str, Any]) -> list[dict[str, str]]:
    """A row a method, the best first: its average rank, and its pairs with every other method."""
    ranks = dict(sorted(grid['average_ranks'].items(), key=lambda item: item[1]))
    counts = {}
    for pair in grid['pairs']:
        a, b, wins, ties, losses = pair.values()
        counts[a, b] = f'{wins}/{ties}/{losses}'
        counts[b, a] = f'{losses}/{ties}/{wins}'
    return [
        {'method': a, 'average rank': f'{r:.2f}', **{b: counts.get((a, b), '') for b in ranks}}
        for a, r in ranks.items()
    ]
