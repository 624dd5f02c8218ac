"""What is drawn of runs, and that it can be read."""

import pandas as pd
from accuracies import A, runs

from mfef_mmrazor.apis.report.pictures import draw_accuracies, draw_cost


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
