"""What the hook keeps of a run that is stopped; real runs are in tests/apis."""

from types import SimpleNamespace

from torch.utils.data import DataLoader

from mfef_mmrazor.engine import ResultsHook
from mfef_mmrazor.engine.results import device_name


def test_all_that_was_measured_is_in_the_checkpoint_and_comes_back():
    first, second, checkpoint = ResultsHook(), ResultsHook(), {}
    first.history = [dict(epoch=1, student0=50.0)]
    first.calibration = [dict(epoch=1, student0=dict(nll=1.5))]
    first.metric, first.seconds = 'multi-label/mAP', 12.5
    first.devices, first.revisions = ['A100, 1 thread'], ['r']
    first.before_save_checkpoint(None, checkpoint)
    second.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)
    assert second.peak_memory > 0
    assert vars(second) == dict(vars(first), peak_memory=second.peak_memory)
    second.peak_memory *= 1000
    assert second.peak() == second.peak_memory


def test_where_and_by_what_a_run_was_trained_and_not_only_scored():
    hook = ResultsHook()
    hook.revision, hook.revisions, hook.devices = 's', ['r'], ['A100, 1 thread']
    runner = SimpleNamespace(
        _resume=True, epoch=0, iter=0, train_loop=None, val_loop=None,
        train_dataloader=DataLoader(range(3)),
    )  # fmt: skip
    hook.before_train(runner)
    assert (hook.revisions, hook.devices) == (['r'], ['A100, 1 thread'])
    for _ in range(2):
        hook.before_train_iter(runner, 0)
        assert hook.revisions == ['r', 's'] and hook.devices[1:] == [device_name()]


def test_batches_that_a_resumed_run_skips_are_not_in_its_time():
    hook = ResultsHook()
    runner = SimpleNamespace(
        _resume=True, epoch=0, iter=1, train_loop=None, val_loop=None,
        train_dataloader=DataLoader(range(3)),
    )  # fmt: skip
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    hook._started -= 1000  # seconds, in which it skips one
    hook.before_train_iter(runner, 1)
    hook.after_train_iter(runner, 1)
    assert hook.seconds < 500
    hook._started -= 1000  # the next one is slow
    hook.before_train_iter(runner, 2)
    runner.iter = 0
    hook.after_train_iter(runner, 2)
    assert hook.seconds > 1000


def test_an_epoch_that_is_scored_again_has_one_entry():
    hook = ResultsHook()
    entries = [dict(epoch=1, student0=50.0), dict(epoch=2, student0=60.0)]
    assert hook._with(entries, dict(epoch=2), dict(student0=61.0)) == [
        entries[0], dict(epoch=2, student0=61.0)
    ]  # fmt: skip
