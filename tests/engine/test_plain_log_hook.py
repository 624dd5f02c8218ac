"""The log in checkpoints: plain tensors there, mmengine's buffers again after reading."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mfef_mmrazor.engine import PlainLogHook


def test_a_log_comes_back_as_it_was(tmp_path):
    hub = MessageHub('before')
    for step in range(5):
        hub.update_scalar('train/loss', 1 / (step + 1), count=step + 1)
    hub.update_info('eta', np.float64(2.5))
    hub.update_info('epoch', 3)
    checkpoint = dict(message_hub=hub.state_dict())
    PlainLogHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'x.pth')
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        stored = torch.load(tmp_path / 'x.pth', weights_only=True)
    finally:
        torch.serialization.add_safe_globals(allowed)
    assert type(stored['message_hub']['runtime_info']['eta']) is float

    PlainLogHook().after_load_checkpoint(None, stored)
    again = MessageHub('after')
    again.load_state_dict(stored['message_hub'])
    expected, found = hub.get_scalar('train/loss'), again.get_scalar('train/loss')
    for before, after in zip(expected.data, found.data, strict=True):
        assert np.array_equal(before, after)
    assert found.mean() == expected.mean() and found.mean(2) == expected.mean(2)
    assert again.get_info('eta') == 2.5 and again.get_info('epoch') == 3


def test_a_checkpoint_of_stock_mmengine_stays_as_it_is():
    buffer = HistoryBuffer([1.0], [1])
    checkpoint = dict(message_hub=dict(log_scalars=dict(loss=buffer)))
    PlainLogHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint['message_hub']['log_scalars'] == dict(loss=buffer)
