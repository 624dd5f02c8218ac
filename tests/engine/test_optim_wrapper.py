import torch
from torch import nn

from mfef_mmrazor.engine import BFloat16OptimWrapper
from mfef_mmrazor.engine.optim_wrapper import has_bf16


def test_forward_is_bf16_and_weights_stay_float32():
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    before = model.weight.clone()
    wrapper = BFloat16OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        out = model(torch.randn(4, 8))
    assert out.dtype is torch.bfloat16
    wrapper.update_params(out.float().pow(2).mean())
    assert model.weight.dtype is torch.float32 and not torch.equal(model.weight, before)


def test_a_gpu_does_not_speak_for_the_cpu(monkeypatch):
    here = has_bf16()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for capability in ((7, 5), (8, 0)):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda it=capability: it)
        assert has_bf16('cpu') == here and has_bf16() == (capability == (8, 0))
