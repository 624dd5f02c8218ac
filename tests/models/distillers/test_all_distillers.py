"""What holds for every registered method, so that a new one cannot be forgotten."""

import functools
import inspect
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS
from reference import W40

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates
from mfef_mmrazor.models import MutualKLDivergence, OnlineDistiller
from mfef_mmrazor.models.distillers.online_distiller import Progress

CONFIGS = Path(__file__).parents[3] / 'configs'
METHODS = sorted(
    name
    for name, kind in MODELS.module_dict.items()
    if isinstance(kind, type)
    and issubclass(kind, OnlineDistiller)
    and kind.__module__.startswith('mfef_mmrazor.')
)
TEACHES_WITH_GRADIENT = ['OKDDipDistiller']  # on purpose: see its docstring
LEARNT_FROM_LABELS = ['fused', 'enhanced', 'vcl', 'icl', 'hidden', 'hybrid']

every_method = pytest.mark.parametrize('method', METHODS)


@functools.cache
def config_of(method):
    """The method's digits config."""
    found = [
        path
        for path in CONFIGS.glob('*/*_digits.py')
        if path.name.startswith(f'{path.parent.name}_')  # not a variant of it
        and Config.fromfile(path).model.distiller.type == method
    ]
    assert found, f'{method} has no digits config under configs/'
    return found[0]


def model_of(method, **options):
    torch.manual_seed(0)
    cfg = Config.fromfile(config_of(method))
    cfg.model.distiller.update(options)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def batch():
    inputs = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return inputs, [DataSample().set_gt_label(i) for i in range(6)]


def total(losses):
    """What is minimised; what else a method tells is only written to the log."""
    return sum(value for name, value in losses.items() if 'loss' in name)


def calls_of_losses(model):
    """What goes into and comes out of the modules of distillation losses in one step."""
    calls = []
    hooks = [
        module.register_forward_hook(lambda *call, name=name: calls.append((name, call)))
        for name, module in model.distiller.named_children()
        if name.startswith('loss_') and name != 'loss_ce'
    ]
    losses = model.loss(*batch())
    for hook in hooks:
        hook.remove()
    # but not of terms that are switched off at this point of the training
    return losses, [call for name, call in calls if losses.get(f'distill.{name}') != 0]


def test_all_methods_are_found():
    assert {'IndependentDistiller', 'MFEFDistiller', 'OKDDipDistiller'} <= set(METHODS)


@every_method
def test_it_has_a_card_and_configs_of_three_sizes(method):
    folder = config_of(method).parent
    assert method in (folder / 'README.md').read_text()
    for data in ('digits', 'cifar10-folder', 'cifar100'):
        assert list(folder.glob(f'{folder.name}_*_{data}.py'))


@every_method
def test_one_step_gives_every_parameter_a_finite_gradient(method):
    model = model_of(method)
    losses = model.loss(*batch())
    assert all(x.shape == () and x.isfinite() for x in losses.values())
    assert all(x.requires_grad == ('loss' in name) for name, x in losses.items())
    total(losses).backward()
    for name, parameter in model.named_parameters():
        if '.mean_teachers.' in name:
            assert not parameter.requires_grad and parameter.grad is None, name
            continue
        assert parameter.requires_grad and parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    'method',
    # what carries a gradient there is said in the config, and tested beside the class
    [method for method in METHODS if method != 'ConfigurableOnlineDistiller'],
)
def test_no_target_carries_a_gradient(method, epoch):
    epoch(80)
    model = model_of(method)
    losses, calls = calls_of_losses(model)

    # nothing is taught outside of these modules, so that all of it is looked at
    own = [f'distill.loss_{name}' for name in LEARNT_FROM_LABELS]
    taught = sum(
        x.item()
        for name, x in losses.items()
        if name.startswith('distill.loss_') and name not in own
    )
    expected = model.distiller.ramp_up() * sum(output.item() for *_, output in calls)
    assert taught == pytest.approx(expected, rel=1e-5)

    carried = False
    for module, args, output in calls:
        if isinstance(module, MutualKLDivergence):
            (logits,) = args
            gradients = torch.autograd.grad(output, logits, retain_graph=True)
            p = [(z / module.tau).softmax(dim=1) for z in logits]
            for own, gradient in zip(p, gradients, strict=True):
                constant_peers = sum(own - peer for peer in p) / (len(p) - 1)
                constant_peers = constant_peers * module.tau * module.loss_weight / len(own)
                assert torch.allclose(gradient, constant_peers, rtol=0, atol=1e-6)
            continue
        _, teachers = args
        teachers = [teachers] if isinstance(teachers, torch.Tensor) else teachers
        for teacher in [x for x in teachers if x.requires_grad]:
            (gradient,) = torch.autograd.grad(output, teacher, retain_graph=True, allow_unused=True)
            carried |= gradient is not None and bool((gradient != 0).any())
    assert carried == (method in TEACHES_WITH_GRADIENT)


@pytest.mark.parametrize(
    'method',
    # the terms of a method that is written in a config are said there
    [name for name in METHODS if name not in ('IndependentDistiller', 'ConfigurableOnlineDistiller')
     and 'ramp_up_iters' in inspect.signature(MODELS.get(name)).parameters],
)  # fmt: skip
def test_a_ramp_up_in_iterations_weighs_a_term_wholly_or_not_at_all(method):
    losses = []
    for iteration in (5, 10):
        model = model_of(method, ramp_up_iters=10)
        model.distiller.progress = Progress(epoch=0, iteration=iteration)
        losses.append(model.loss(*batch()))
    before, after = losses
    weighed = [name for name in after if before[name] != after[name]]
    assert weighed and all(name.startswith('distill.loss_') for name in weighed)
    for name in weighed:
        assert before[name].item() == pytest.approx(W40 * after[name].item(), rel=1e-5)


def tensors_in(values):
    """All tensors in lists of lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


@every_method
def test_under_autocast_losses_get_and_predictors_give_full_precision(method, epoch):
    epoch(1)
    model, seen = model_of(method), []

    def keep(module, args, kwargs):
        seen.extend(tensors_in([*args, *kwargs.values()]))

    for name, module in model.distiller.named_modules():
        if name.rpartition('.')[2].startswith('loss_'):
            module.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.autocast('cpu', torch.bfloat16):
        model.loss(*batch())
        predicted = model.eval().predict_logits(*batch())
    assert seen or method == 'IndependentDistiller'
    assert {x.dtype for x in seen if x.is_floating_point()} <= {torch.float32}
    assert {x.dtype for x in predicted.values()} == {torch.float32}


@every_method
def test_after_a_validation_it_trains_as_if_there_had_been_none(method):
    model, untouched = model_of(method), model_of(method)
    model.eval()
    predictions = model.predict_all(*batch())
    students = [f'student{i}' for i in range(len(model.students))]
    assert list(predictions)[: len(students) + 1] == [*students, 'ensemble']
    model.train()
    assert all(module.training for module in model.modules())
    losses, expected = model.loss(*batch()), untouched.loss(*batch())
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], expected[name]) for name in losses)


@every_method
def test_it_learns_a_batch_by_heart(method):
    model = model_of(method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    announce_updates(model, optimizer)
    values = []
    for _ in range(8):
        losses = model.loss(*batch())
        values.append(sum(x for name, x in losses.items() if name.startswith('student')).item())
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
    assert values[-1] < 0.7 * values[0]
