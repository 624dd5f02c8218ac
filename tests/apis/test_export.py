"""Students of real, short runs, exported in every format and used without the algorithm."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.runner import Runner
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image
from processes import run_python, run_script
from safetensors import safe_open
from safetensors.torch import load_model
from sklearn.datasets import load_digits

from mfef_mmrazor.apis import export, load_config, student_config, train, user_errors
from mfef_mmrazor.apis.formats import Predictor, write

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
ALL = ['pth', 'safetensors', 'onnx', 'torchscript']
SUFFIXES = ['.pth', '.safetensors', '.onnx', '.pt']
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 50,
    'train_cfg.max_epochs': 1,
}


def config(work_dir, method='mfef', students='x2', **options):
    path = CONFIGS / f'{method}/{method}_resnet8-{students}_1xb32-20e_digits.py'
    return load_config(path, work_dir, {**SMALL, **options}, seed=0)


def classifier(channels=64, **backbone):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=channels),
    )


def saved(cfg):
    """A checkpoint of networks that have learnt nothing, and its runner."""
    runner = Runner.from_cfg(cfg)
    runner.save_checkpoint(
        cfg.work_dir, 'epoch_0.pth', save_optimizer=False, save_param_scheduler=False
    )
    return Path(cfg.work_dir, 'epoch_0.pth'), runner


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Work dir of a finished run of the digits config, two epochs."""
    work_dir = tmp_path_factory.mktemp('finished')
    train(config(work_dir, **{'train_cfg.max_epochs': 2}))
    return work_dir


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    """Three different networks after a run that lets them tell digits apart, and its runner.

    The last is made of mmpretrain's own parts; its map has other channels and another size.
    """
    work_dir = tmp_path_factory.mktemp('trio')
    cfg = config(
        work_dir, **{'train_dataloader.dataset.train_per_class': 30, 'train_cfg.max_epochs': 6}
    )
    cfg.model.students = [
        classifier(type='CifarResNet', depth=8),
        classifier(type='CifarResNet', depth=14),
        classifier(
            128, type='ResNet_CIFAR', depth=18, stem_channels=16, base_channels=16,
            init_cfg=dict(type='Kaiming', layer='Conv2d'),
        ),
    ]  # fmt: skip
    cfg.model.distiller.in_channels = [64, 64, 128]
    runner = train(cfg)
    runner.model.eval()
    return work_dir / 'epoch_6.pth', runner


@pytest.fixture(scope='module')
def exported(trio, tmp_path_factory):
    """Everything of the trio."""
    out = tmp_path_factory.mktemp('exported')
    export(trio[0], out, 'all', ALL, ensemble=True, fused=True)
    return out


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Digits, in colours that tell RGB from BGR, as arrays (RGB) and as PNG files."""
    folder = tmp_path_factory.mktemp('pictures')
    digits = (load_digits().images[-30:, ..., None] * (255 / 16)).astype(np.uint8)
    arrays = [(digit * (1.0, 0.8, 0.5)).astype(np.uint8) for digit in digits]
    paths = [folder / f'{i}.png' for i in range(len(arrays))]
    for array, path in zip(arrays, paths, strict=True):
        Image.fromarray(array).save(path)
    return arrays, [str(path) for path in paths]


@pytest.fixture(scope='module')
def predicted(trio, pictures):
    """What the algorithm itself predicts for the pictures, given as its own data set gives them."""
    _, runner = trio
    pipeline = Compose([TRANSFORMS.build(t) for t in runner.cfg.test_dataloader.dataset.pipeline])
    batch = pseudo_collate([pipeline(dict(img=array)) for array in pictures[0]])
    return runner.model.predict_all(**runner.model.data_preprocessor(batch, False))


@pytest.fixture
def images():
    return torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def logits(runner, images):
    with torch.no_grad():
        return runner.model.predict_logits(images)


def test_every_predictor_in_every_format_and_nothing_else(exported):
    students = [f'student{i}{suffix}' for i in range(3) for suffix in [*SUFFIXES, '.py']]
    modules = [f'{name}{suffix}' for name in ('ensemble', 'fused') for suffix in ('.onnx', '.pt')]
    assert sorted(p.name for p in exported.iterdir()) == sorted(students + modules)


def test_what_it_says_and_returns(trio, tmp_path, capsys):
    paths = export(trio[0], tmp_path / 'a/b', 1, ALL)
    assert paths == [tmp_path / 'a/b' / f'student1{s}' for s in ('.py', *SUFFIXES)]
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(': ')[0] for line in said] == [str(path) for path in paths]
    differences = [float(line.split()[-1]) for line in said[1:]]
    assert differences[:2] == [0, 0] and differences[3] == 0 and differences[2] <= 1e-4


@pytest.mark.parametrize('name', ['student0', 'student1', 'student2', 'ensemble', 'fused'])
@pytest.mark.parametrize('batch', [1, 7])
def test_onnx_and_torchscript_take_batches_of_any_size(trio, exported, images, name, batch):
    images = images[:batch]
    expected = logits(trio[1], images)[name]
    session = onnxruntime.InferenceSession(exported / f'{name}.onnx')
    (found,) = session.run(['logits'], dict(images=images.numpy()))
    assert np.abs(found - expected.numpy()).max() <= 1e-4
    found = torch.jit.load(exported / f'{name}.pt')(images)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('i', range(3))
def test_mmpretrain_loads_the_student(trio, exported, images, i):
    network = get_model(exported / f'student{i}.py', str(exported / f'student{i}.pth'))
    assert network._dataset_meta == dict(classes=tuple('0123456789'))
    other = get_model(exported / f'student{i}.py')
    load_model(other, exported / f'student{i}.safetensors')
    with torch.no_grad():
        assert torch.equal(network(images), other(images))
        assert torch.allclose(network(images), logits(trio[1], images)[f'student{i}'], atol=1e-5)


def test_students_of_a_shared_trunk_are_whole_networks(tmp_path, images):
    runner = train(config(tmp_path, 'ffl', 'x2-shared2'))
    # mmpretrain loads into plain memory format, the run was in channels_last
    algorithm = runner.model.eval().to(memory_format=torch.contiguous_format)
    assert algorithm.trunk
    export(tmp_path / 'epoch_1.pth', tmp_path, 'all', ALL, ensemble=True, fused=True)
    expected = logits(runner, images)
    for i in range(2):
        network = get_model(tmp_path / f'student{i}.py', str(tmp_path / f'student{i}.pth'))
        with torch.no_grad():
            assert torch.equal(network(images), expected[f'student{i}'])
        assert list(network.state_dict()) == list(algorithm.architecture.state_dict())
        assert 'shared_stages' not in (tmp_path / f'student{i}.py').read_text()
    for name in ('student1', 'ensemble', 'fused'):
        found = torch.jit.load(tmp_path / f'{name}.pt')(images)
        assert torch.allclose(found, expected[name], atol=1e-5)


@pytest.mark.parametrize('i', range(3))
def test_the_inferencer_sees_in_files_what_the_algorithm_saw(exported, pictures, predicted, i):
    infer = ImageClassificationInferencer(
        str(exported / f'student{i}.py'), str(exported / f'student{i}.pth')
    )
    expected = predicted[f'student{i}']
    found = infer(pictures[1], batch_size=len(expected))
    assert [f['pred_label'] for f in found] == [int(sample.pred_label) for sample in expected]
    assert len({f['pred_class'] for f in found}) > 2
    for f, sample in zip(found, expected, strict=True):
        assert f['pred_class'] == '0123456789'[f['pred_label']]
        assert np.allclose(f['pred_scores'], sample.pred_score.numpy(), atol=1e-5)


def test_the_configs_stand_alone(exported):
    for i in range(3):
        text = (exported / f'student{i}.py').read_text()
        for absent in ('mmrazor.', 'OnlineDistill', 'istiller', 'Digits', 'init_cfg'):
            assert absent not in text
        assert ('mfef_mmrazor' in text) == (i < 2)


def test_mmpretrain_alone_is_enough(exported, pictures, predicted):
    """In a new process; the third student without this package, the first imports it by itself."""
    script = """
import sys
from mmpretrain import ImageClassificationInferencer
config, checkpoint, *pictures = sys.argv[1:]
found = ImageClassificationInferencer(config, checkpoint)(pictures)
print([f['pred_label'] for f in found], 'mmrazor' in sys.modules)
"""
    for i, plugin in ((2, False), (0, True)):
        files = f'student{i}.py', f'student{i}.pth', *pictures[1]
        done = run_python(exported, '-c', script, *files)
        assert done.returncode == 0, done.stderr
        labels = [int(sample.pred_label) for sample in predicted[f'student{i}']]
        assert done.stdout.rstrip().endswith(f'{labels} {plugin}')


def test_metadata(exported):
    expected = dict(
        classes=list('0123456789'), mean=[78.0] * 3, std=[96.0] * 3, to_rgb=True,
        input_size=[16, 16], resize_edge=None, resize_to=[16, 16],
        interpolation='bilinear', backend='cv2',
    )  # fmt: skip
    with safe_open(exported / 'student0.safetensors', 'pt') as file:
        safetensors = file.metadata()
    model = onnx.load(exported / 'student0.onnx')
    extra = {'metadata.json': ''}
    torch.jit.load(exported / 'student0.pt', _extra_files=extra)
    for found in (
        safetensors,
        {prop.key: prop.value for prop in model.metadata_props},
        json.loads(extra['metadata.json']),
    ):
        assert {key: json.loads(value) for key, value in found.items()} == expected


def test_files_of_a_resnet20_are_its_weights_and_little_else(tmp_path):
    cfg = config(tmp_path)
    cfg.model.students = [classifier(type='CifarResNet', depth=20)] * 2
    checkpoint, runner = saved(cfg)
    weights = 4 * sum(p.numel() for p in runner.model.architecture.parameters())
    for path in export(checkpoint, tmp_path / 'out', formats=ALL)[1:]:
        assert weights < path.stat().st_size <= 1.05 * weights, path.name


def with_history(checkpoint, folder, own, results=None, seed=0):
    """The checkpoint, with another validation record in it and beside it."""
    stored = torch.load(checkpoint, weights_only=True)
    stored['meta'].update(epoch=2, seed=0)
    stored['results']['history'] = own
    torch.save(stored, folder / 'epoch_2.pth')
    if results is not None:
        (folder / 'results.json').write_text(json.dumps(dict(history=results, seed=seed)))
    return folder / 'epoch_2.pth'


def scores(*students):
    return [dict(epoch=i, student0=a, student1=b) for i, (a, b) in enumerate(students, start=1)]


def test_mmpretrain_finds_the_same_kinds_of_files(tmp_path):
    (tmp_path / 'test/cat').mkdir(parents=True)
    (tmp_path / 'test/cat/0.webp').touch()
    cfg = load_config(CONFIGS / 'mfef/mfef_resnet8-x2_1xb128-20e_cifar10-folder.py')
    dataset = student_config.test_part(cfg, None, [])['test_dataloader']['dataset']
    assert dataset['type'] == 'CustomDataset'
    assert len(DATASETS.build(dict(dataset, data_root=str(tmp_path)))) == 1


BEST = {
    'the full record says the second': (
        scores((60, 50)), scores((60, 50), (61, 62.5), (90, 10)), 1,
        'student1; validation accuracy at epoch 2 (checkpoint: epoch 2), from {}/results.json: '
        'student0 61.00 %, student1 62.50 %',
    ),
    'the record of another run is not asked': (
        scores((60, 50)), scores((60, 51), (61, 62)), 0,
        'student0; validation accuracy at epoch 1 (checkpoint: epoch 2), from {}/epoch_2.pth: '
        'student0 60.00 %, student1 50.00 %',
    ),
    'no record beside it': (
        scores((50, 60)), None, 1,
        'student1; validation accuracy at epoch 1 (checkpoint: epoch 2), from {0}/epoch_2.pth: '
        'student0 50.00 %, student1 60.00 %\n'
        'WARNING: {0}/epoch_2.pth has no scores of epoch 2, which may name another student: keep',
    ),
    'of equal ones the first': (scores((60, 60)), None, 0, 'student0; '),
}  # fmt: skip


@pytest.mark.parametrize('case', BEST)
def test_the_best_student_and_why(finished, tmp_path, capsys, case):
    own, results, best, said = BEST[case]
    checkpoint = with_history(finished / 'epoch_2.pth', tmp_path, own, results)
    paths = export(checkpoint, tmp_path / 'out', 'best')
    assert [path.name for path in paths] == [f'student{best}.py', f'student{best}.pth']
    assert capsys.readouterr().out.startswith(f'best: {said.format(tmp_path)}')


@pytest.mark.parametrize('beside', [None, scores((60, 50), (61, 62))])
def test_best_without_a_record(finished, tmp_path, beside):
    checkpoint = with_history(finished / 'epoch_2.pth', tmp_path, [], beside, seed=5)
    with pytest.raises(ValueError, match='no validation record up to its epoch 2'):
        export(checkpoint, tmp_path / 'out', 'best')
    assert not (tmp_path / 'out').exists()


MISTAKES = {
    'no file': (dict(checkpoint='nowhere.pth'), 'checkpoint not found: nowhere.pth'),
    'student': (
        dict(students='2'),
        "student '2', expected 0 to 1, 'best' or 'all': the checkpoint has 2 students",
    ),
    'word': (dict(students='worst'), "student 'worst', expected 0 to 1"),
    'format': (dict(formats=['onx']), "unknown format 'onx', expected any of pth, safetensors"),
    'ensemble as pth': (dict(ensemble=True), 'pth cannot hold them: add onnx or torchscript'),
    'out is a file': (dict(out=Path(__file__)), 'test_export.py is a file, expected a folder'),
    'config not there': (dict(config='nowhere.py'), 'config file not found: nowhere.py'),
    'other architecture': (
        dict(config=CONFIGS / 'dml/dml_resnet8-x2_1xb32-20e_digits.py'),
        'the checkpoint is of another architecture than the config; unexpected: distiller.',
    ),
    'config of one network': (
        dict(config=CONFIGS / 'baseline/alone_resnet8_1xb128-20e_cifar10-folder.py'),
        'is of a mmpretrain.ImageClassifier, expected an OnlineDistill',
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(finished, tmp_path, capsys, mistake):
    changes, message = MISTAKES[mistake]
    arguments = dict(checkpoint=finished / 'epoch_2.pth', out=tmp_path / 'out')
    with pytest.raises(SystemExit) as stopped, user_errors():
        export(**{**arguments, **changes})
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and message in line
    assert not (tmp_path / 'out').exists()


def test_files_that_are_no_checkpoint_of_an_online_distillation(exported, tmp_path, capsys):
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(dict(meta={}, weights={}), tmp_path / 'dict.pth')
    for checkpoint, message in (
        (tmp_path / 'text.pth', 'cannot be read as a checkpoint'),
        (tmp_path / 'list.pth', 'found list, expected a state_dict'),
        (tmp_path / 'dict.pth', "found ['meta', 'weights'], expected a state_dict"),
        (exported / 'student0.pth', 'has no training config in it: give it with --config'),
    ):
        with pytest.raises(SystemExit), user_errors():
            export(checkpoint, tmp_path / 'out')
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_method_without_a_fused_classifier(tmp_path):
    checkpoint, _ = saved(config(tmp_path, 'dml'))
    with pytest.raises(ValueError, match='DMLDistiller has no fused classifier to export'):
        export(checkpoint, tmp_path / 'out', formats=['onnx'], fused=True)
    assert not (tmp_path / 'out').exists()


def test_a_missing_package(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # what Python itself takes for missing
    with pytest.raises(SystemExit), user_errors():
        export(finished / 'epoch_2.pth', tmp_path / 'out', formats=['pth', 'onnx'])
    assert capsys.readouterr().err == (
        'error: onnxruntime is not installed, which the format onnx needs: '
        'pip install onnx onnxruntime\n'
    )
    assert not (tmp_path / 'out').exists()


def changed(finished, tmp_path, change):
    """A config file like that of the finished run, changed."""
    cfg = config(finished)
    change(cfg)
    cfg.dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def test_onnx_of_a_torch_with_one_exporter(finished, tmp_path, monkeypatch):
    exporter = torch.onnx.export

    def before_2_5(model, args, f, input_names, output_names, dynamic_axes):
        names = dict(input_names=input_names, output_names=output_names)
        exporter(model, args, f, **names, dynamic_axes=dynamic_axes, dynamo=False)

    monkeypatch.setattr(torch.onnx, 'export', before_2_5)
    export(finished / 'epoch_2.pth', tmp_path, formats=['onnx'])
    assert (tmp_path / 'student0.onnx').is_file()


def test_a_file_that_predicts_otherwise_is_not_left(finished, tmp_path):
    """A recorder that takes other logits than the student's output for its logits."""
    path = changed(
        finished, tmp_path,
        lambda cfg: cfg.model.distiller.update(
            recorders=dict(logits=dict(type='ModuleOutputs', source='neck'))
        ),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match='student0.pth: its logits differ by up to inf'):
        export(finished / 'epoch_2.pth', tmp_path / 'out', config=path)
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('kind, off', [('torchscript', 1e-5), ('onnx', 1e-3)])
def test_logits_that_are_a_little_off_are_refused(kind, off, tmp_path):
    network, images = torch.nn.Flatten().eval(), torch.rand(5, 3, 2, 2)
    predictor = Predictor(network, images, None, {})
    write(predictor, [kind], tmp_path / 'student0', network(images))
    with pytest.raises(RuntimeError, match='its logits differ by up to'):
        write(predictor, [kind], tmp_path / 'student0', network(images) + off)


def test_an_image_size_that_nothing_fixes(finished, tmp_path):
    def change(cfg):
        for dataloader in (cfg.train_dataloader, cfg.test_dataloader):
            dataloader.dataset.pipeline = [dict(type='PackInputs')]

    path = changed(finished, tmp_path, change)
    with pytest.raises(ValueError, match='give a config with a Resize or a crop'):
        export(finished / 'epoch_2.pth', tmp_path / 'out', config=path)


@pytest.mark.parametrize(
    'loader',
    [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='LoadIntactImage')],
)
def test_colours_of_a_loader_stay_as_they_are(finished, tmp_path, loader):
    """A pipeline that reads files has the channel order that the exported one reads."""

    def change(cfg):
        cfg.test_dataloader.dataset.pipeline.insert(0, loader)

    path = changed(finished, tmp_path, change)
    export(finished / 'epoch_2.pth', tmp_path, config=path)
    student = Config.fromfile(tmp_path / 'student0.py')
    assert 'to_rgb' not in student.model.data_preprocessor
    first, *others = student.test_dataloader.dataset.pipeline
    assert first == dict(type='LoadImageFromFile', imdecode_backend='pillow')
    assert [transform.type for transform in others] == ['Resize', 'PackInputs']


def test_a_stored_config_is_read_not_run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = torch.load(finished / 'epoch_2.pth', weights_only=True)
    stored['meta']['cfg'] += "\nx = __import__('pathlib').Path('harm').touch()\n"
    torch.save(stored, 'harmful.pth')
    with pytest.raises(ValueError, match='not one that mmengine writes'):
        export('harmful.pth', 'out')
    assert [path.name for path in tmp_path.iterdir()] == ['harmful.pth']


@pytest.mark.parametrize(
    'part',
    [
        "test_dataloader['dataset']['type'] = 'MyImages'",
        "test_dataloader['dataset']['data_root'] = '/home/me/photos (1)'",
        "test_evaluator['type'] = 'MyMetric'",
    ],
)
def test_data_and_metrics_of_ones_own_are_not_needed(finished, tmp_path, part):
    stored = torch.load(finished / 'epoch_2.pth', weights_only=True)
    cfg = Config.fromstring(stored['meta']['cfg'], '.py').to_dict()
    exec(part, cfg)
    stored['meta']['cfg'] = '\n'.join(f'{k} = {v!r}' for k, v in cfg.items() if k[0] != '_')
    torch.save(stored, tmp_path / 'epoch_2.pth')
    export(tmp_path / 'epoch_2.pth', tmp_path / 'out')
    assert (tmp_path / 'out/student0.pth').is_file()


def test_the_tool_from_another_folder(finished, tmp_path):
    tool, checkpoint = ROOT / 'tools/export_student.py', finished / 'epoch_2.pth'
    wanted = ['--student', 'all', '--format', 'pth, onnx', '--fused']
    done = run_script(tmp_path, tool, checkpoint, *wanted, '--out', 'out')
    assert done.returncode == 0, done.stderr
    lines = [line.partition(': ')[0] for line in done.stdout.splitlines()]
    assert lines == [f'out/student{i}{s}' for i in (0, 1) for s in ('.py', '.pth', '.onnx')] + [
        'out/fused.onnx'
    ]
    assert sorted(lines) == sorted(f'out/{path.name}' for path in (tmp_path / 'out').iterdir())

    done = run_script(tmp_path, tool, checkpoint, '--student', '7', '--out', 'none')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: student '7', expected 0 to 1")
    assert not (tmp_path / 'none').exists()


def test_a_student_that_keeps_its_extraction_is_exported_with_it(tmp_path):
    path = CONFIGS / 'mfef/mfef-kept_resnet8-x2_1xb32-20e_digits.py'
    checkpoint, _ = saved(load_config(path, tmp_path, SMALL, seed=0))
    export(checkpoint, tmp_path / 'out', 1, ALL)
    network = get_model(str(tmp_path / 'out/student1.py'), str(tmp_path / 'out/student1.pth'))
    assert type(network.neck[0]).__name__ == 'MultiScaleNeck'
    assert sum(p.numel() for p in network.parameters()) == 78_042 + 14_680
