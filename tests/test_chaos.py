"""The scripts of ``make chaos`` find no fault in the least that can be asked of them."""

from pathlib import Path

import pytest
from processes import run_script

CHAOS = Path(__file__).with_name('chaos')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('script', 'options', 'said'),
    [
        ('kill.py', ['--kills', 1, '--methods', 'dml'], '1 of 1 methods without a fault'),
        ('nonfinite.py', ['--methods', 'dml'], '15 of 15 (100 %)'),
    ],
)
def test_one_method(script, options, said, tmp_path):
    done = run_script(tmp_path, CHAOS / script, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(said)
