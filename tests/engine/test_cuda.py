"""What a GPU is needed for; skipped where there is none."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.apis.benchmark import METHODS
from mfef_mmrazor.apis.benchmark_cases import batch, online, step_of
from mfef_mmrazor.datasets import InMemory
from mfef_mmrazor.models import InMemoryDataPreprocessor

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU'),
]


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('method', ['Independent', *METHODS])
def test_a_step_of_every_method(method, bf16):
    model = online(method, 'resnet20', 2, 'cuda')
    before = [p.clone() for p in model.parameters()]
    step_of(model, *batch(8, 'cuda'), bf16)()
    assert all(p.is_cuda and p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_a_step_does_not_wait_for_the_gpu():
    step = step_of(online('MFEF', 'resnet20', 2, 'cuda'), *batch(8, 'cuda'), False)
    step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_images_are_those_of_the_cpu():
    data = InMemory(dict(type='Digits', pipeline=[]), padding=1)
    views = {}
    for device in ('cpu', 'cuda'):
        preprocessor = InMemoryDataPreprocessor(
            crop_size=8, flip_prob=0.5, num_views=2, mean=[70.0] * 3, std=[60.0] * 3
        ).to(device)
        preprocessor.seed_and_epoch = (0, 3)
        (item,) = data.__getitems__(list(range(200)))
        found = preprocessor(
            dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), True
        )
        views[device] = [view.cpu() for view in found['inputs']]
    for cpu, gpu in zip(*views.values(), strict=True):
        assert torch.equal(cpu, gpu)


@pytest.mark.parametrize(('options', 'expected'), [
    ({'val_cfg.fp16': True}, torch.float16),
    ({'val_cfg.fp16': True, 'val_cfg.dtype': 'bfloat16'}, torch.bfloat16),
])  # fmt: skip
def test_scoring_in_fp16_and_bf16(options, expected, tmp_path):
    runner = Runner.from_cfg(load_config(CONFIG, tmp_path, options))
    found = []
    conv = runner.model.architecture.backbone.conv1
    conv.register_forward_hook(lambda module, args, out: found.append(out.dtype))
    runner.val()
    assert set(found) == {expected}


def test_mixed_precision_and_resume(tmp_path):
    def run(folder, epochs):
        cfg = load_config(CONFIG, folder, {'train_cfg.max_epochs': epochs}, amp=True)
        return train(cfg, resume=True)

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = run(tmp_path / 'whole', 2)
        (tmp_path / 'resumed').mkdir()
        shutil.copy(tmp_path / 'whole/epoch_1.pth', tmp_path / 'resumed')
        resumed = run(tmp_path / 'resumed', 2)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
