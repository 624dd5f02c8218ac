"""What is printed in bold, and that it is booktabs."""

import pandas as pd
from accuracies import A, B, C, runs

from mfef_mmrazor.apis.report.latex import latex
from mfef_mmrazor.apis.report.significance import statistics
from mfef_mmrazor.apis.report.tables import summary


def table(frame):
    blocks = frame.groupby('block', sort=False)
    summaries = {block: summary(of_block, 'a') for block, of_block in blocks}
    return latex(summaries, statistics(frame, 'a'), 'a', 'accuracy/top1')


def test_the_best_is_in_bold_only_where_the_test_says_so():
    better = table(runs(a=A, b=B))
    row = next(line for line in better.splitlines() if line.startswith('b &'))
    assert row.split(' & ')[2] == r'\textbf{71.12 $\pm$ 0.69}'
    assert better.count(r'\textbf') == 1
    assert r'\textbf' not in table(runs(a=A, b=B[:4]))  # too few seeds
    baseline = table(runs(a=B, b=A, c=C))  # the best is the baseline
    row = next(line for line in baseline.splitlines() if line.startswith('a &'))
    assert row.count(r'\textbf') == baseline.count(r'\textbf') == 1
    assert r'\textbf' not in table(runs(a=B, b=A, c=C[:4]))  # not tested against all
    assert r'\textbf' not in table(runs(a=A))
    noisy = [70.9, 70.8, 70.6, 69.9, 70.0]
    assert r'\textbf' not in table(runs(a=A, b=noisy))


def test_booktabs_and_escaped_names():
    text = table(pd.concat([runs('x_y', a=A, m_f=B), runs('z', a=A)]))
    assert text.count(r'\toprule') == text.count(r'\bottomrule') == 2
    assert r'm\_f &' in text and '% x_y\n' in text
