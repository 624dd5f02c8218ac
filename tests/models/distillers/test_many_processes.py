"""Every method's gradients: several processes, really wrapped, against one on the joined batch."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from mmrazor.registry import HOOKS
from processes import in_processes
from test_all_distillers import METHODS, every_method, model_of, total
from torch import distributed
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates

pytestmark = pytest.mark.slow
CONTRASTS_IMAGES = ['MCLDistiller']  # with those of its own process: as one with parts of the batch
ACCUMULATED = ['MFEFDistiller', 'DMLDistiller']
IMAGES = 8
every_number = pytest.mark.parametrize('processes', [2, 4])


def joined_batch():
    inputs = torch.randn(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    return inputs, [DataSample().set_gt_label(i) for i in range(IMAGES)]


def parts(number):
    """Slices of the joined batch, one for each process."""
    size = IMAGES // number
    return [slice(i * size, (i + 1) * size) for i in range(number)]


def frozen_model(method):
    """With frozen normalisation: batch norm goes by the images of its own process."""
    model = model_of(method).double()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


def wrapped(model):
    # a parameter without a gradient is an error at the next step
    return MMDistributedDataParallel(model, find_unused_parameters=False)


def steps(method, slices, wrap=lambda model: model):
    """Gradients by name of three steps; mmrazor's StopDistillHook comes before the last."""
    model = frozen_model(method)
    whole = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    announce_updates(model, optimizer)
    stop = HOOKS.build(dict(type='StopDistillHook', stop_epoch=2))
    inputs, samples = joined_batch()
    found = []
    for step in range(3):
        stop.before_train_epoch(SimpleNamespace(model=whole, epoch=step, logger=logging))
        optimizer.zero_grad()
        for part in slices:
            losses = whole(inputs[part], samples[part], mode='loss')
            (total(losses) / len(slices)).backward()
        optimizer.step()
        found.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})
    assert model.distillation_stopped
    return found


def weights_after_accumulating(method, slices, wrap=lambda model: model):
    """Weights after one step of the optimizer, whose gradients are gathered over the slices."""
    model = frozen_model(method)
    whole = wrap(model)
    optimizer = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.01), accumulative_counts=len(slices)
    )
    inputs, samples = joined_batch()
    for part in slices:
        with optimizer.optim_context(whole):
            losses = whole(inputs[part], samples[part], mode='loss')
        optimizer.update_params(total(losses))
    return model.state_dict()


def train_all(folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    own = parts(distributed.get_world_size())[rank]
    found = {method: steps(method, [own], wrapped) for method in METHODS}
    torch.save(found, f'{folder}/{rank}.pth')
    middle = (own.start + own.stop) // 2
    halves = [slice(own.start, middle), slice(middle, own.stop)]
    found = {m: weights_after_accumulating(m, halves, wrapped) for m in ACCUMULATED}
    torch.save(found, f'{folder}/accumulated{rank}.pth')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """What the processes found, by their number: gradients, and weights after accumulating."""
    folders = {number: tmp_path_factory.mktemp(f'of{number}') for number in (2, 4)}
    for number, folder in folders.items():
        in_processes(number, train_all, folder)
    return {number: read(folder, number) for number, folder in folders.items()}


def read(folder, processes):
    return [
        [torch.load(f'{folder}/{name}{rank}.pth', weights_only=True) for rank in range(processes)]
        for name in ('', 'accumulated')
    ]


@every_number
@every_method
def test_several_processes_have_the_gradients_of_one(method, processes, trained):
    expected = steps(method, parts(processes) if method in CONTRASTS_IMAGES else [slice(None)])
    for own in trained[processes][0]:
        for step, gradients in enumerate(own[method]):
            assert gradients.keys() == expected[step].keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(
                    gradient, expected[step][name], rtol=1e-5, atol=1e-12, msg=f'{step}: {name}'
                )


@every_number
@pytest.mark.parametrize('method', ACCUMULATED)
def test_so_they_have_where_gradients_are_accumulated(method, processes, trained):
    expected = weights_after_accumulating(method, [slice(None)])
    start = frozen_model(method).state_dict()
    assert any(not torch.equal(start[name], weight) for name, weight in expected.items())
    for own in trained[processes][1]:
        for name, weight in expected.items():
            torch.testing.assert_close(own[method][name], weight, rtol=1e-9, atol=1e-12)


def test_sync_bn_is_converted_to_and_the_maps_are_still_recorded():
    """It runs on GPUs only; with its normalisation frozen it is like batch norm, here too."""
    expected = steps('MFEFDistiller', [slice(None)])
    converted = []

    def convert(model):
        convert_sync_batchnorm(model, implementation='torch')
        converted.extend(m.eval() for m in model.modules() if isinstance(m, SyncBatchNorm))
        return model

    model_steps = steps('MFEFDistiller', [slice(None)], convert)
    assert converted
    for step, gradients in enumerate(model_steps):
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[step][name])
