"""What is read from stored runs."""

from pathlib import Path

import pytest

from mfef_mmrazor.apis.report.runs import check_last_epoch


def test_a_run_that_was_not_scored_at_its_end():
    history = [dict(epoch=epoch, student0=50.0) for epoch in (1, 2)]
    check_last_epoch(Path('results.json'), dict(epochs=2, history=history))
    with pytest.raises(ValueError, match='results.json: the last epoch that was scored is 2 of 3'):
        check_last_epoch(Path('results.json'), dict(epochs=3, history=history))
