"""The bar on a terminal, in real runs."""

import re
import sys
from pathlib import Path

import pytest

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.hooks.finite_hook import NonFiniteError

CONFIG = (
    Path(__file__).parents[2] / 'configs/independent/independent_resnet8-x2_1xb32-20e_digits.py'
)
HIDE, SHOW = '\x1b[?25l', '\x1b[?25h'


@pytest.fixture
def run_on_a_terminal(tmp_path, monkeypatch, capsys):
    """Trains two epochs of two steps, or so many steps, and gives what was written."""
    monkeypatch.setenv('TERM', 'xterm')

    def run(lr, raises=None, steps=None):
        monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
        options = {
            'train_dataloader.dataset.train_per_class': 4,
            'val_dataloader.dataset.indices': 20,
            'train_cfg.max_epochs': 2,
            'optim_wrapper.optimizer.lr': lr,
        }
        cfg = load_config(CONFIG, tmp_path, options)
        if steps:
            cfg.train_cfg = dict(by_epoch=False, max_iters=steps)
            cfg.param_scheduler = None
        if raises is None:
            train(cfg)
        else:
            with pytest.raises(raises):
                train(cfg)
        return capsys.readouterr().out

    return run


def test_the_bar_has_epochs_steps_losses_and_accuracies(run_on_a_terminal):
    out = run_on_a_terminal(0.1)
    for part in ('epoch 2/2', '4/4', 'loss ', 'student0 '):
        assert part in out
    assert out.count(HIDE) == out.count(SHOW) == 1


def test_in_a_training_by_iterations_a_part_of_an_epoch_counts_as_one(run_on_a_terminal):
    out = run_on_a_terminal(0.1, steps=3)
    shown = re.findall(r'epoch (\d/\d)', out)
    assert shown[-1] == '2/2' and set(shown) <= {'1/2', '2/2'} and '3/3' in out


def test_the_cursor_is_back_after_a_run_that_fails(run_on_a_terminal):
    out = run_on_a_terminal(1e38, raises=NonFiniteError)
    assert out.count(HIDE) == out.count(SHOW) == 1
