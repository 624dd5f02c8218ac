"""Checkpoint files: what is written is whole, what is damaged is noticed."""

import io
import os
import random
import resource
import signal

import pytest
import torch
from processes import in_processes

from mfef_mmrazor.engine.checkpoint_files import (
    DamagedCheckpointError,
    check_intact,
    newest_checkpoint,
    seal,
    write_atomically,
)


def saved(value=0.0):
    file = io.BytesIO()
    torch.save({'state_dict': {'weight': torch.full((50,), value)}, 'meta': {'epoch': 1}}, file)
    return file.getvalue()


def value(path):
    return torch.load(path, weights_only=True)['state_dict']['weight'][0].item()


def refused(path):
    try:
        check_intact(path)
        torch.load(path, weights_only=True)
    except Exception:
        return True
    return False


def save(path, number=0.0):
    write_atomically(path, *seal(saved(number)))
    return path


def test_a_sealed_file_is_still_a_checkpoint(tmp_path):
    path = save(tmp_path / 'a.pth', 3.0)
    check_intact(path)
    assert value(path) == 3.0 and os.listdir(tmp_path) == ['a.pth']
    assert b''.join(seal(path.read_bytes())) == path.read_bytes()  # sealed once


@pytest.mark.parametrize('sealed', [True, False])
def test_any_flipped_bit_is_noticed(tmp_path, sealed):
    """In a sealed file anywhere; in one of another program's, wherever it changes the content."""
    content = bytearray(b''.join(seal(saved())) if sealed else saved())
    path, chance = tmp_path / 'a.pth', random.Random(0)
    tail = range(8 * (len(content) - 100), 8 * len(content), 7)
    everywhere = [chance.randrange(8 * len(content)) for _ in range(200)]
    for bit in [0, *everywhere, *tail]:
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        if sealed:
            with pytest.raises(DamagedCheckpointError, match=r'a\.pth is damaged'):
                check_intact(path)
        else:
            assert refused(path) or value(path) == 0.0
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize('sealed', [True, False])
def test_any_torn_file_is_noticed(tmp_path, sealed):
    content, path = b''.join(seal(saved())) if sealed else saved(), tmp_path / 'a.pth'
    for length in [0, 2, 10, *range(100, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError, match=r'a\.pth is damaged'):
            check_intact(path)


def test_the_newest_intact_one_is_taken_and_others_are_named(tmp_path, caplog, capsys):
    for epoch in (2, 9, 10):
        save(tmp_path / f'epoch_{epoch}.pth')
    save(tmp_path / 'best_accuracy_epoch_11.pth')
    assert newest_checkpoint(tmp_path).name == 'epoch_10.pth'
    save(tmp_path / 'epoch_10_iter_137.pth')  # in the eleventh epoch
    assert newest_checkpoint(tmp_path).name == 'epoch_10_iter_137.pth'
    (tmp_path / 'epoch_10_iter_137.pth').unlink()

    (tmp_path / 'last_checkpoint').write_text('epoch_9.pth')
    assert newest_checkpoint(tmp_path).name == 'epoch_9.pth'
    (tmp_path / 'epoch_9.pth').write_bytes(b'')
    (tmp_path / 'epoch_10.pth').write_bytes(saved()[:100])
    assert newest_checkpoint(tmp_path).name == 'epoch_2.pth'
    (tmp_path / 'last_checkpoint').write_text('')  # as mmengine leaves it when it is killed
    assert newest_checkpoint(tmp_path).name == 'epoch_2.pth'
    (tmp_path / 'epoch_2.pth').unlink()
    with pytest.raises(DamagedCheckpointError, match=r'epoch_10\.pth.*epoch_9\.pth.*empty'):
        newest_checkpoint(tmp_path)


def test_a_moved_folder_and_another_out_dir(tmp_path):
    save(tmp_path / 'new' / 'epoch_1.pth')
    pointer = tmp_path / 'new' / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'old' / 'epoch_1.pth'))
    assert newest_checkpoint(tmp_path / 'new') == tmp_path / 'new' / 'epoch_1.pth'
    save(tmp_path / 'out' / 'new' / 'epoch_2.pth')
    for named in ('../out/new/epoch_2.pth', str(tmp_path / 'out' / 'new' / 'epoch_2.pth')):
        pointer.write_text(named)
        assert newest_checkpoint(tmp_path / 'new').samefile(tmp_path / 'out/new/epoch_2.pth')
    save(tmp_path / 'new' / 'epoch_2.pth')  # of an earlier run that had no out_dir
    pointer.write_text('../out/new/epoch_2.pth')
    assert newest_checkpoint(tmp_path / 'new').samefile(tmp_path / 'out/new/epoch_2.pth')
    pointer.write_text('s3://bucket/new/epoch_3.pth')
    assert newest_checkpoint(tmp_path / 'new') == 's3://bucket/new/epoch_3.pth'


def test_nothing_there_is_a_new_run_but_a_lost_checkpoint_is_not(tmp_path):
    assert newest_checkpoint(tmp_path / 'nowhere') is None
    (tmp_path / 'last_checkpoint').write_text('epoch_3.pth')
    with pytest.raises(DamagedCheckpointError, match=r'epoch_3\.pth, which last_checkpoint names'):
        newest_checkpoint(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """A limit on the size of files stands for it."""
    path = save(tmp_path / 'a.pth', 1.0)
    in_processes(1, write_on_a_full_disk, path)
    assert value(path) == 1.0 and os.listdir(tmp_path) == ['a.pth']


def write_on_a_full_disk(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(OSError, match=r'a\.pth could not be written \(File too large\)'):
        write_atomically(path, bytes(5000))
