"""Ranks by hand, tests by their formulas."""

import numpy as np
import pandas as pd
import pytest
from accuracies import runs
from scipy import stats

from mfef_mmrazor.apis.report.ranks import draw_critical_difference, nemenyi, rank, rank_table

SCORES = np.array([[70, 71, 72], [60, 59, 61], [50, 52, 52], [80, 81, 83], [40, 41, 45]]) + 0.0


def grid(scores=SCORES):
    return pd.concat(
        [
            runs(f'net{i}_data', a=[a - 1, a + 1], b=[b], c=[c, c])
            for i, (a, b, c) in enumerate(scores)
        ]
    )


def test_average_ranks_and_pairs():
    found = rank(grid())
    assert found['average_ranks'] == dict(a=2.8, b=2.1, c=1.1)  # a tie shares places 1 and 2
    assert found['pairs'] == [
        dict(a='a', b='b', wins=1, ties=0, losses=4),
        dict(a='a', b='c', wins=0, ties=0, losses=5),
        dict(a='b', b='c', wins=0, ties=1, losses=4),
    ]
    first, second, third = rank_table(found)
    assert list(first.values()) == ['c', '1.10', '', '4/1/0', '5/0/0']
    assert second['c'] == '0/1/4' and third['b'] == '1/0/4'


def test_tests_over_blocks():
    found = rank(grid())
    assert found['friedman']['p'] == pytest.approx(stats.friedmanchisquare(*SCORES.T).pvalue)
    # Demsar's statistic, times the root of two for the studentized range
    q = (2.8 - 1.1) / np.sqrt(3 * 4 / (6 * 5)) * np.sqrt(2)
    expected = stats.studentized_range.sf(q, 3, np.inf)
    assert found['nemenyi']['a']['c'] == pytest.approx(expected, abs=1e-3)
    assert found['nemenyi']['c']['a'] == found['nemenyi']['a']['c']
    assert nemenyi(pd.DataFrame(SCORES, columns=list('abc'))).loc['a', 'c'] < 0.05


def test_too_few_blocks_have_ranks_and_no_p_value():
    found = rank(grid(SCORES[:2]))
    assert found['average_ranks'] == dict(a=2.5, b=2.5, c=1.0)
    assert found['friedman'] == found['nemenyi'] == 'too few blocks'
    assert rank(grid(SCORES[:4]))['friedman'] == 'too few blocks'
    pair = grid()
    pair = rank(pair[pair['method'] != 'c'])
    assert pair['friedman'] == pair['nemenyi'] == 'too few methods'
    assert rank(grid(SCORES[:1])) is None
    alone = grid()
    assert rank(alone[alone['method'] == 'a']) is None


def test_what_is_equal_in_the_tables_is_a_tie():
    blocks = [runs(name, a=[70.001], b=[70.004]) for name in ('vgg_data', 'resnet_data')]
    found = rank(pd.concat(blocks))
    assert found['pairs'] == [dict(a='a', b='b', wins=0, ties=2, losses=0)]
    assert found['average_ranks'] == dict(a=1.5, b=1.5)
    assert found['blocks'] == ['vgg_data', 'resnet_data']  # as they were given


def test_a_method_that_is_not_everywhere_is_not_ranked():
    found = rank(pd.concat([grid(), runs('net0_data', d=[99.0])]))
    assert found['left_out'] == ['d'] and found['average_ranks'] == dict(a=2.8, b=2.1, c=1.1)


def test_the_diagram_joins_what_is_not_told_apart():
    axes = draw_critical_difference(grid()).axes[0]
    assert [text.get_text() for text in axes.texts] == ['c (1.1)', 'b (2.1)', '(2.8) a']
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2]
    assert sorted(map(tuple, bars)) == [(1.1, 2.1), (2.1, 2.8)]  # in this order, whatever the hash


def test_few_blocks_are_drawn_without_a_claim():
    axes = draw_critical_difference(grid(SCORES[:2])).axes[0]
    assert not [line for line in axes.lines if line.get_linewidth() == 2]
    assert axes.get_title().endswith('; not tested: too few blocks')
    assert 'tested' not in draw_critical_difference(grid()).axes[0].get_title()


def test_methods_that_are_all_equal_have_no_p_value():
    found = rank(grid(np.full((5, 3), 70.0)))
    assert found['friedman'] == found['nemenyi'] == 'no differences'
