"""What is drawn of runs, and that it can be read."""

import itertools

import numpy as np
import pandas as pd
import pytest
from accuracies import A, B, runs

from mfef_mmrazor.apis.comparison import Entry
from mfef_mmrazor.apis.report.pictures import (
    draw_accuracies,
    draw_calibration,
    draw_cost,
    draw_curves,
)


def test_methods_that_are_close_are_told_apart_by_the_legend():
    names = [f'method-with-a-long-name{i}' for i in range(35)]
    same = {name: A for name in names}
    figure = draw_cost(pd.concat([runs('x', **same), runs('y', **same)]))
    first, second = figure.axes
    assert not first.texts and not second.texts
    looks = {line.get_label(): (line.get_marker(), line.get_color()) for line in first.lines}
    assert list(looks) == names and len(set(looks.values())) == len(names)
    assert looks == {x.get_label(): (x.get_marker(), x.get_color()) for x in second.lines}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    figure.draw_without_rendering()
    box, panel = legend.get_window_extent(), second.get_window_extent()
    assert panel.x1 < box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0


def test_seeds_are_drawn_over_the_mean():
    axes = draw_accuracies(runs(a=A)).axes[0]
    dots = next(line for line in axes.lines if line.get_marker() == 'o')
    assert list(dots.get_xdata()) == A
    assert dots.zorder > max(line.zorder for line in axes.lines if line is not dots)
    (mean,) = axes.containers[0].lines[0].get_xdata()
    assert mean == pytest.approx(np.mean(A))


def test_calibration_stands_beside_its_method():
    frame = runs(zeta=A, alpha=B)
    axes = draw_calibration(frame.assign(nll=frame['last']), 'nll', 'NLL').axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    line = axes.lines[0]
    found = {names[round(y)]: x for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert found == pytest.approx(dict(zeta=np.mean(A), alpha=np.mean(B)))


def test_neighbours_differ_in_their_markers_too():
    figure = draw_cost(runs(**{name: A for name in 'abcdef'}))
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert all(a != b for a, b in itertools.pairwise(markers))


def test_two_seeds_have_no_bar():
    def widths(values):
        (container,) = draw_accuracies(runs(a=values)).axes[0].containers
        _, _, (bar,) = container.lines
        ((start, end),) = bar.get_segments()
        return end[0] - start[0]

    assert widths(A[:2]) == 0
    # 4.3027: the quantile of Student's t for a 95 % interval of three
    assert widths(A[:3]) == pytest.approx(2 * 4.30265 * np.std(A[:3], ddof=1) / 3**0.5, rel=1e-4)


def test_many_blocks_stand_in_rows_of_three():
    figure = draw_accuracies(pd.concat([runs(f'net{i}', a=A) for i in range(5)]))
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [f'net{i}' for i in range(5)]
    assert len({round(axes.get_position().y0, 3) for axes in shown}) == 2
    assert figure.get_size_inches()[0] < 17


@pytest.mark.parametrize('epochs, marker', [([20], 'o'), ([10, 20], 'None')])
def test_a_run_that_was_scored_once_is_a_dot(epochs, marker):
    history = [dict(epoch=epoch, student0=70.0, student1=60.0, ensemble=71.0) for epoch in epochs]
    figure = draw_curves([(Entry('a', 'a', '', 'a.py'), dict(history=history))])
    students, _ = figure.axes[0].lines
    assert [line.get_marker() for line in figure.axes[0].lines] == [marker] * 2
    assert students.get_ydata().tolist() == [65.0] * len(epochs)
