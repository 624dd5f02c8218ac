"""What an import brings in, and what it puts off."""

import math
import subprocess
import sys

import numpy as np
import torch
from processes import run_python

from mfef_mmrazor.imports import Late, at_first_use

PUT_OFF = ('matplotlib.pyplot', 'pandas', 'scipy.stats', 'sklearn', 'statsmodels', 'torchmetrics')


CODE = f"""
import gc, sys
import mfef_mmrazor.apis
print(gc.isenabled() and gc.get_freeze_count() > 100_000)
print([name for name in {PUT_OFF} if name in sys.modules])
"""


def test_what_is_put_off_is_not_there_and_nothing_is_searched_for_garbage(tmp_path):
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ['True', '[]']


LATE = """
import gc, weakref
import torch
class Model: pass
model = Model()
model.itself, alive = model, weakref.ref(model)
import mfef_mmrazor
del model
gc.collect()
print(alive() is None and gc.isenabled())
"""


def test_a_model_that_was_there_before_can_be_collected(tmp_path):
    done = run_python(tmp_path, '-c', LATE)
    assert done.stdout.splitlines()[-1:] == ['True'], done.stderr


def test_architecture_search_finds_its_libraries_when_it_needs_them():
    from mmrazor.models.task_modules.predictor import metric_predictor
    from mmrazor.models.task_modules.predictor.handler import carts_handler

    rho, _ = metric_predictor.stats.spearmanr([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    assert np.isclose(rho, 0.5)
    tree = carts_handler.DecisionTreeRegressor(random_state=0)
    assert tree.fit([[0.0], [1.0]], [3.0, 5.0]).predict([[1.0]]) == [5.0]


def test_margins_of_ofd_are_computed():
    """Of a standard normal distribution, the mean of its negative half: -sqrt(2 / pi)."""
    from mmrazor.models.distillers import OFDDistiller

    margin = OFDDistiller._get_margin_from_BN(None, torch.nn.BatchNorm2d(2))
    assert torch.allclose(margin, torch.full((1, 2, 1, 1), -math.sqrt(2 / math.pi)))


def test_a_module_is_imported_when_it_is_used(tmp_path, monkeypatch):
    (tmp_path / 'slow').mkdir()
    (tmp_path / 'slow' / '__init__.py').write_text('')
    (tmp_path / 'slow' / 'part.py').write_text('class Answer:\n    value = 42\n')
    (tmp_path / 'user.py').write_text(
        'import slow.part as part\nfrom slow.part import Answer\n'
        'def value(): return Answer.value, type(part.Answer()).__name__\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with at_first_use('slow.part'):
        import user
    assert 'slow.part' not in sys.modules and isinstance(user.part, Late)
    assert user.value() == (42, 'Answer') and 'slow.part' in sys.modules
    with at_first_use('slow.part'):  # there already
        import slow.part
    assert slow.part.Answer.value == 42 and not isinstance(slow.part, Late)
