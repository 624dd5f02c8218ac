"""The faster parts against mmengine's own."""

import copy
import pickle

import pytest
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.evaluator import metric
from mmengine.logging import HistoryBuffer
from processes import in_processes
from torch import distributed
from yapf.yapflib.yapf_api import FormatCode

from mfef_mmrazor import compat, fast_mmengine


def test_a_config_is_formatted_once(monkeypatch):
    monkeypatch.setattr('mmengine.config.config.FormatCode', FormatCode)  # tests have a plain one
    fast_mmengine.format_configs_once()
    one, other = Config(dict(a=[1, 2])), Config(dict(b='text'))
    assert one.pretty_text is one.pretty_text
    assert [cfg.pretty_text for cfg in (one, other, one)] == [
        'a = [\n    1,\n    2,\n]\n',
        "b = 'text'\n",
        'a = [\n    1,\n    2,\n]\n',
    ]


def collect_as_mmengine_does():
    """In one of two processes: the same results by mmengine's function and by its replacement."""
    compat.init_cpu_processes()
    rank = distributed.get_rank()
    batch = torch.arange(12.0).view(4, 3) + 100 * rank
    results = [dict(score=row, label=[torch.tensor(rank)], name=f'image {rank}') for row in batch]
    results += [(batch.bfloat16(), None, torch.nn.Parameter(batch[:0]))] * (1 - rank)
    for device in ('cpu', 'gpu'):
        expected = dist.collect_results(results, 8, device)
        found = metric.collect_results(results, 8, device)
        assert (found is None) == (rank == 1)
        if rank == 0:
            assert len(found) == 8 and str(found) == str(expected)
            assert found[0]['score'].untyped_storage().nbytes() == 12  # without its batch
            found[0]['score'] += 1  # it can be written to


def test_results_of_several_processes_are_those_that_mmengine_collects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_processes(2, collect_as_mmengine_does)


@pytest.mark.parametrize('most', [1000, 40])
def test_a_log_has_what_was_appended_and_shares_it_with_no_copy(most):
    log, expected = HistoryBuffer(max_length=most), []
    for i in range(100):
        if i == 50:
            copies = [
                copy.deepcopy(log),
                pickle.loads(pickle.dumps(log)),
                HistoryBuffer(*log.data, most),
            ]
        log.update(i / 7, 1 + i % 3)
        expected.append((i / 7, 1 + i % 3))
    assert list(zip(*log.data, strict=True)) == expected[-most:]
    for other in copies:
        other.update(5, 2)
        assert list(zip(*other.data, strict=True)) == [*expected[:50], (5, 2)][-most:]
    assert list(zip(*log.data, strict=True)) == expected[-most:]
    assert len(pickle.dumps(copies[0])) < 3000  # without the room for more
    log = HistoryBuffer([1, 2], [1, 1])  # whole numbers, as mmengine has them
    log.update(0.5)
    assert log.data[0].tolist() == [1, 2, 0.5] and log.data[1].tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match='expected a number'):
        log.update('0.5')


def test_a_log_is_not_copied_at_every_step():
    log, stores = HistoryBuffer(), []
    for i in range(1000):
        log.update(i)
        stores.append(log.data[0].base)
    assert len({id(store) for store in stores}) < 10
