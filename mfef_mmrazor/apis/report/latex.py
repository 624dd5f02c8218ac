"""The table of accuracies for a paper."""

from typing import Any

import pandas as pd

from .ranks import ALPHA
from .runs import STUDENTS
from .significance import comparisons_of
from .tables import mean_std, metric_name

COLUMNS = {STUDENTS: 'students', 'student0': 'student 0', 'ensemble': 'ensemble', 'fused': 'fused'}
HEAD = """\
% needs \\usepackage{{booktabs}}. {metric}, last epoch, mean $\\pm$ standard deviation over n seeds.
% Bold: the best students, where the t-test against {baseline} (Holm) has p < 0.05; {baseline}'s,
% where they are the best, if that is so of every other method.
"""


def best_method(rows: pd.DataFrame, comparisons: list[dict[str, Any]]) -> str | None:
    """The method of the best students, if the tests say that it is better than the baseline.

    If it is the baseline itself, the tests must say that it is better than every other method.
    """
    if rows[STUDENTS].isna().all():
        return None
    best = rows.loc[rows[STUDENTS].idxmax(), 'method']
    own = [c for c in comparisons if c['method'] == best]
    sign = 1 if own else -1
    told = [
        isinstance(c['t_test'], dict) and c['t_test']['p_holm'] < ALPHA and sign * c['mean'] > 0
        for c in own or comparisons
    ]
    return best if told and all(told) else None


def latex(
    summaries: dict[str, pd.DataFrame], stats: dict[str, Any], baseline: str, metric: str
) -> str:
    r"""A table with booktabs per block, ready to ``\input``.

    Args:
        summaries: The numbers of each block, see :func:`~.tables.summary`.
        stats: See :func:`~.significance.statistics`.
        baseline: What the others are compared with.
        metric: What accuracy is.
    """
    parts = [HEAD.format(metric=metric_name(metric), baseline=baseline)]
    for block, rows in summaries.items():
        cells = pd.DataFrame(
            [
                {
                    'method': row['method'],
                    'n': row['n'],
                    **{label: mean_std(row, name) for name, label in COLUMNS.items()},
                    'cost': '' if pd.isna(row.get('cost')) else f'{row["cost"]:.2f}',
                }
                for row in rows.to_dict('records')
            ]
        )
        style = cells.style.hide(axis='index').format(escape='latex')
        best = best_method(rows, comparisons_of(stats, block))
        bold = cells.index[cells['method'] == best]
        style = style.map(lambda _: 'textbf:--rwrap;', subset=pd.IndexSlice[bold, ['students']])
        table = style.to_latex(hrules=True, column_format='l' + 'r' * (len(cells.columns) - 1))
        parts.append(f'% {block}\n' * (len(summaries) > 1) + table.replace('±', r'$\pm$'))
    return '\n'.join(parts)
