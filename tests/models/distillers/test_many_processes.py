"""Every method's gradients: two processes, really wrapped, against one on the joined batch."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmrazor.registry import HOOKS
from test_all_distillers import METHODS, batch, every_method, model_of, total
from torch import distributed, multiprocessing
from torch.nn.modules.batchnorm import _BatchNorm

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates

pytestmark = pytest.mark.slow
CONTRASTS_IMAGES = ['MCLDistiller']  # with those of its own process: as one with two half batches
HALVES = slice(0, 3), slice(3, 6)


def steps(method, halves, wrap=lambda model: model):
    """Gradients by name of three steps; mmrazor's StopDistillHook comes before the last.

    Normalisation is frozen: batch norm goes by the images of its own process.
    """
    model = model_of(method).double()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    announce_updates(model, optimizer)
    stop = HOOKS.build(dict(type='StopDistillHook', stop_epoch=2))
    inputs, samples = batch()
    found = []
    for step in range(3):
        stop.before_train_epoch(SimpleNamespace(model=wrapped, epoch=step, logger=logging))
        optimizer.zero_grad()
        for half in halves:
            losses = wrapped(inputs[half].double(), samples[half], mode='loss')
            (total(losses) / len(halves)).backward()
        optimizer.step()
        found.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})
    assert model.distillation_stopped
    return found


def train_all(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)

    def wrap(model):  # a parameter without a gradient is an error at the next step
        return MMDistributedDataParallel(model, find_unused_parameters=False)

    found = {method: steps(method, HALVES[rank : rank + 1], wrap) for method in METHODS}
    torch.save(found, f'{folder}/{rank}.pth')


@pytest.fixture(scope='module')
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    multiprocessing.spawn(train_all, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(2)]


@every_method
def test_two_processes_have_the_gradients_of_one(method, of_two_processes):
    expected = steps(method, HALVES if method in CONTRASTS_IMAGES else [slice(None)])
    for own in of_two_processes:
        for step, gradients in enumerate(own[method]):
            assert gradients.keys() == expected[step].keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(
                    gradient, expected[step][name], rtol=1e-5, atol=1e-12, msg=f'{step}: {name}'
                )
