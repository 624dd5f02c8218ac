"""Files that are not checkpoints, or only in part; those that would run code are in apis/."""

import io

import numpy as np
import pytest
import torch
from mmengine import fileio
from mmengine.logging import HistoryBuffer

from mfef_mmrazor.safe_load import safe_load, weights_of


def test_tensors_plain_values_and_mmengines_log_come_back_as_they_were(tmp_path):
    stored = dict(
        meta=dict(epoch=3, classes=('a', 'b')), state_dict=dict(w=torch.arange(3)),
        log=HistoryBuffer([1.0, 2.0], [1, 1]), eta=np.float64(0.5),
    )  # fmt: skip
    for zipped in (True, False):
        torch.save(stored, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
        found = safe_load(tmp_path / 'x.pth')
        assert found['meta'] == stored['meta'] and found['log'].mean() == 1.5
        assert torch.equal(found['state_dict']['w'], torch.arange(3)) and found['eta'] == 0.5


def test_weights_are_found_in_both_forms():
    weight = torch.ones(1)
    for stored in (dict(state_dict={'module.a.module.b': weight}), {'a.module.b': weight}):
        assert weights_of(stored) == {'a.module.b': weight}


@pytest.mark.parametrize('content', [b'', b'text', b'\x80\x02', b'PK\x03\x04' + bytes(99)])
def test_another_kind_of_file_is_named(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'x\.pth (cannot be read|is refused)'):
        safe_load(tmp_path / 'x.pth')


@pytest.mark.parametrize('content', [[1, 2], torch.ones(1), dict(meta='text')])
def test_another_content_is_named(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth cannot be read as a checkpoint: found'):
        safe_load(tmp_path / 'x.pth')


def test_every_torn_file_is_named(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.arange(300))), tmp_path / 'x.pth')
    whole = (tmp_path / 'x.pth').read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        (tmp_path / 'x.pth').write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r'x\.pth cannot be read'):
            safe_load(tmp_path / 'x.pth')


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint not found: .*nowhere.pth'):
        safe_load(tmp_path / 'nowhere.pth')


def test_a_file_in_a_cloud_is_read_as_data_too(monkeypatch):
    def stored(content):
        file = io.BytesIO()
        torch.save(content, file)
        monkeypatch.setattr(fileio, 'get', lambda path: file.getvalue())

    stored(dict(w=torch.ones(2)))
    assert torch.equal(safe_load('s3://bucket/a.pth')['w'], torch.ones(2))
    stored(dict(w=pytest.fail))
    with pytest.raises(ValueError, match='s3://bucket/a.pth is refused: reading it would call'):
        safe_load('s3://bucket/a.pth')
