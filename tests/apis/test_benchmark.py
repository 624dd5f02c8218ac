"""The benchmark compares what it says; how long anything takes is no business of a test."""

import json
import resource
import subprocess
import sys

import pytest
import torch

from mfef_mmrazor.apis import benchmark
from mfef_mmrazor.apis.benchmark_cases import (
    METHODS,
    NETWORKS,
    Timer,
    bare_step,
    batch,
    data_config,
    epoch_of,
    kept_megabytes,
    online,
    step_of,
    summary,
)


def test_cases_take_turns():
    order = []
    rows = Timer('cpu', repeats=3, warm_up=1).compare(
        {name: lambda name=name: order.append(name) for name in 'ab'}
    )
    assert order == list('ab') * 4
    assert rows['a']['ratio'] == 1


def test_ratios_are_to_the_first_case_of_the_same_turn():
    turns = [dict(a=1.0, b=2.0), dict(a=10.0, b=30.0), dict(a=2.0, b=2.0)]
    assert summary(turns)['b'] == dict(seconds=2.0, ratio=2.0, quartiles=[1.0, 3.0])


def test_the_bare_step_and_independent_students_learn_the_same():
    inputs, labels = batch(8, 'cpu')
    torch.manual_seed(0)
    first = online('Independent', 'resnet20', 2, 'cpu')
    second = online('Independent', 'resnet20', 2, 'cpu')
    second.load_state_dict(first.state_dict())
    bare, step = bare_step(first, inputs, labels, False), step_of(second, inputs, labels, False)
    for _ in range(2):
        bare()
        step()
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize(
    ('number', 'method'), [(n, method) for n, methods in METHODS.items() for method in methods]
)
def test_every_method_takes_a_step_of_every_network(number, method, network):
    model = online(method, network, number, 'cpu')
    before = [p.detach().clone() for p in model.architecture.parameters()]
    step_of(model, *batch(4, 'cpu'), bf16=method == 'MFEF')()
    after = list(model.architecture.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_what_a_step_keeps_grows_with_the_batch():
    model = online('MFEF', 'resnet20', 2, 'cpu')
    weights = 3 * sum(p.numel() for p in model.parameters()) * 4 / 2**20
    small, large = (
        kept_megabytes(step_of(model, *batch(size, 'cpu'), False), model) - weights
        for size in (4, 16)
    )
    assert 3 < large / small < 4.1


@pytest.mark.parametrize('kind', ['cifar10', 'cifar10_fast'])
def test_an_epoch_is_of_the_shipped_data_config(kind):
    cfg = data_config(kind, 130)
    seen = []
    epoch = epoch_of(cfg, 'cpu')
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: seen.append(tuple(out['inputs'].shape))
    )
    epoch()
    handle.remove()
    assert seen == [(128, 3, 32, 32), (2, 3, 32, 32)]


def test_parts_are_written_to_a_file(tmp_path, capsys):
    out = tmp_path / 'benchmark.json'
    found = benchmark(['inference'], repeats=1, quick=True, out=out)
    stored = json.loads(out.read_text())
    assert stored == found
    assert stored['versions']['torch'] and stored['device'] and stored['threads']
    assert {'plain', 'exported'} == set(stored['inference']['batch of 1'])


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / 'file').touch()
    for out, message in (
        ('', 'could not be written'),
        ('file/out.json', 'file is a file, expected'),
    ):
        with pytest.raises(OSError, match=message):
            benchmark(['inference'], repeats=1, quick=True, out=tmp_path / out)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [(dict(parts=['stp']), 'stp'), (dict(repeats=0), 'repeats=0'), (dict(device='tpu'), 'tpu')],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        benchmark(**wrong)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
@pytest.mark.parametrize('kept', [False, True])
def test_freed_memory_is_kept_for_the_next_step(kept):
    code = """
import resource, torch
from mfef_mmrazor.apis.train import keep_freed_memory
if {kept}: keep_freed_memory()
def step(): return [torch.ones(2**20) for _ in range(32)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run(
        [sys.executable, '-c', code.format(kept=kept)], capture_output=True, text=True, check=True
    )
    pages = 32 * 4 * 2**20 / resource.getpagesize()
    again = int(done.stdout.split()[-1]) / pages
    assert again < 0.1 if kept else again > 0.5
