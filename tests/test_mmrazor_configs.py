"""mmrazor's own distillers under the recipe and in the tables of ours: wiring and real runs."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from torch.nn import functional as F

from mfef_mmrazor.apis import compare, load_config, train, user_errors
from mfef_mmrazor.models.builder import build

CONFIGS = Path(__file__).parents[1] / 'configs'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 100,
    'train_cfg.max_epochs': 1,
}


def path(method, net='resnet8'):
    folder = {'alone': 'baseline', 'mfef': 'mfef'}.get(method, 'mmrazor')
    return CONFIGS / folder / f'{method}_{net}_1xb32-20e_digits.py'


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Checkpoint of a teacher that the baseline has trained, for an epoch."""
    work_dir = tmp_path_factory.mktemp('teacher')
    train(load_config(path('alone', 'resnet20'), work_dir, SMALL))
    return str(work_dir / 'epoch_1.pth')


def options(method, teacher):
    return SMALL if method == 'byot' else {**SMALL, 'model.teacher_ckpt': teacher}


@pytest.mark.parametrize('method', ['kd', 'fitnet', 'byot'])
def test_it_trains_and_leaves_the_teacher_as_it_is(method, teacher, tmp_path):
    train(load_config(path(method), tmp_path, options(method, teacher)))
    results = json.loads((tmp_path / 'results.json').read_text())
    assert list(results['predictors']) == ['model']
    student = build(Config.fromfile(path(method)).model.architecture)
    assert results['deployed']['parameters'] == sum(p.numel() for p in student.parameters())
    weights = torch.load(tmp_path / 'epoch_1.pth')['state_dict']
    before = torch.load(teacher)['state_dict'] if method != 'byot' else {}
    after = {k.removeprefix('teacher.'): v for k, v in weights.items() if k.startswith('teacher.')}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def model_and_losses(method, teacher):
    torch.manual_seed(0)
    cfg = load_config(path(method), cfg_options=options(method, teacher))
    model = build(cfg.model).double()
    model.train()  # as the runner does; a teacher's batch norms stay as they are
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    inputs = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    losses = model.loss(inputs, samples)
    return model, inputs, {name: loss.detach() for name, loss in losses.items()}


def run(network, x):
    """Maps of the first two stages, pooled last map and logits."""
    b = network.backbone
    low = b.layer1(torch.relu(b.bn1(b.conv1(x))))
    middle = b.layer2(low)
    pooled = b.layer3(middle).mean(dim=(2, 3))
    return low, middle, pooled, network.head.fc(pooled)


def kl(student, teacher, tau=3):
    p, q = (teacher / tau).softmax(dim=1), (student / tau).softmax(dim=1)
    return tau**2 * (p * (p / q).log()).sum(dim=1).mean()


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)


@torch.no_grad()
def test_losses_of_a_trained_teacher(teacher):
    for method in ('kd', 'fitnet'):
        model, x, losses = model_and_losses(method, teacher)
        _, middle, _, logits = run(model.student, x)
        _, hint, _, targets = run(model.teacher, x)
        expected = {'student.loss': F.cross_entropy(logits, torch.arange(4))}
        if method == 'kd':
            expected['distill.loss_kl'] = kl(logits, targets)
        else:
            regressed = model.distiller.connectors['regressor'](middle)
            expected['distill.loss_hint'] = (regressed - hint).square().mean()
        close(losses, expected)


@torch.no_grad()
def test_losses_of_ones_own_teacher():
    model, x, losses = model_and_losses('byot', None)
    *maps, pooled, logits = run(model.student, x)
    labels = torch.arange(4)
    expected = {'student.loss': F.cross_entropy(logits, labels)}
    for i, feature in enumerate(maps, start=1):
        vector, early = model.distiller.connectors[f'branch{i}'](feature)
        expected[f'distill.loss_label{i}'] = 0.7 * F.cross_entropy(early, labels)
        expected[f'distill.loss_kl{i}'] = 0.3 * kl(early, logits)
        expected[f'distill.loss_map{i}'] = 0.03 * (vector - pooled).square().sum().sqrt()
    close(losses, expected)


def test_a_missing_or_another_teacher_is_named_before_anything_is_written(tmp_path, capsys):
    other = tmp_path / 'other.pth'
    torch.save(build(Config.fromfile(path('kd')).model.architecture).state_dict(), other)
    for ckpt, message in (
        (str(tmp_path / 'none.pth'), 'none.pth; give a trained network'),
        (str(other), 'other.pth is not a checkpoint of model.teacher'),
    ):
        cfg = load_config(path('kd'), tmp_path / 'run', {'model.teacher_ckpt': ckpt})
        with pytest.raises(SystemExit), user_errors():
            train(cfg)
        assert message in capsys.readouterr().err
        with pytest.raises((FileNotFoundError, ValueError), match=Path(ckpt).name):
            compare([path('kd')], [0], tmp_path / 'run', cfg_options=options('kd', ckpt))
    with pytest.raises(ValueError, match='has no weights.*give a trained network'):
        train(load_config(path('kd'), tmp_path / 'run', {'model.teacher_ckpt': None}))
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_they_stand_in_one_table_with_ours(tmp_path):
    configs = [path('mfef', 'resnet8-x2'), path('byot')]
    with pytest.raises(ValueError, match=r'students.length \(2 and 1\).*--allow model.students$'):
        compare(configs, [0], tmp_path, cfg_options=SMALL)
    compare(configs, [0], tmp_path, allow=['model.students'], cfg_options=SMALL)
    table = (tmp_path / 'table.md').read_text()
    assert '| mfef | 1 |' in table and '| byot | 1 |' in table
    assert table.count('| 78,042 |') == 2
