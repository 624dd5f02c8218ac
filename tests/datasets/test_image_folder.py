"""Class folders, broken pictures, and the walk-through of configs/_base_/datasets/README.md."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from pictures import picture, truncate, write_tree
from processes import run_script
from sklearn.metrics import balanced_accuracy_score

from mfef_mmrazor.apis import load_config, train, user_errors
from mfef_mmrazor.datasets import ImageFolder

ROOT = Path(__file__).parents[2]
LEAF = 'mfef/mfef_resnet18-x2_1xb32-100e_folder.py'
DIGITS = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


def paths(dataset):
    return [Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))]


@pytest.fixture
def tree(tmp_path):
    """Three classes; of 4 + 6 + 3 pictures the two of 'b' and the one of 'c' are broken."""
    write_tree(tmp_path / 'tree', dict(a=4, b=6, c=3))
    truncate(tmp_path / 'tree/b/001.jpg')
    (tmp_path / 'tree/b/004.jpg').write_bytes(b'')
    truncate(tmp_path / 'tree/c/002.jpg')
    return tmp_path / 'tree'


def test_broken_pictures_are_left_out_and_the_others_keep_their_labels(tree):
    everything = ImageFolder(data_root=str(tree))
    assert everything.get_gt_labels().tolist() == [0] * 4 + [1] * 6 + [2] * 3
    whole = ImageFolder(data_root=str(tree), skip_corrupt=True)
    assert whole.get_gt_labels().tolist() == [0] * 4 + [1] * 4 + [2] * 2
    numbers = [0, 1, 2, 3, 0, 2, 3, 5, 0, 1]
    assert paths(whole) == [f'{n:03}.jpg' for n in numbers]
    assert whole.metainfo['classes'] == ('a', 'b', 'c')


def test_hidden_folders_are_neither_classes_nor_searched(tree):
    (tree / 'a/.ipynb_checkpoints').mkdir()
    (tree / 'a/more').mkdir()
    for folder in ('.ipynb_checkpoints', 'more'):
        (tree / 'a/000.jpg').rename(tree / 'a' / folder / '000.jpg')
        shutil.copy(tree / 'a' / folder / '000.jpg', tree / 'a/000.jpg')
    assert len(ImageFolder(data_root=str(tree))) == 13 + 1
    assert len(ImageFolder(data_root=str(tree), with_label=False)) == 13 + 1
    (tree / '.ipynb_checkpoints').mkdir()
    with pytest.raises(ValueError, match='hidden folder .ipynb_checkpoints, which would be a cl'):
        ImageFolder(data_root=str(tree))


def test_a_class_without_a_whole_picture_is_still_a_class(tree):
    for path in (tree / 'b').iterdir():
        path.write_bytes(b'')
    dataset = ImageFolder(data_root=str(tree), skip_corrupt=True, num_classes=3)
    assert dataset.get_gt_labels().tolist() == [0] * 4 + [2] * 2
    for path in tree.rglob('*.jpg'):
        path.write_bytes(b'')
    with pytest.raises(ValueError, match='13 of 13 pictures are broken\n.*a/000.jpg'):
        ImageFolder(data_root=str(tree), skip_corrupt=True)


def test_another_number_of_classes(tree):
    assert len(ImageFolder(data_root=str(tree), num_classes=3)) == 13
    with pytest.raises(
        ValueError, match=r'has 3 class folders \(a, b, c\), expected num_classes=4'
    ):
        ImageFolder(data_root=str(tree), num_classes=4)
    with pytest.raises(ValueError, match=r'has 0 class folders \(\), expected .*/a/<class>/<pict'):
        ImageFolder(data_root=str(tree), data_prefix='a', num_classes=3)


def test_a_label_of_a_list_that_is_no_class(tree, tmp_path):
    (tmp_path / 'labels.txt').write_text('a/000.jpg 0\nb/000.jpg 2\n')
    folder = dict(data_root=str(tmp_path), data_prefix='tree', ann_file='labels.txt')
    assert ImageFolder(**folder, num_classes=3).get_gt_labels().tolist() == [0, 2]
    with pytest.raises(
        ValueError, match=r'labels.txt: .*tree/b/000.jpg has the label 2, expected 0 to 1 \(num_cl'
    ):
        ImageFolder(**folder, num_classes=2)


def test_pictures_of_all_kinds_are_found(tree):
    for suffix, kind in (('tiff', 'TIFF'), ('WEBP', 'WEBP')):
        (tree / f'a/picture.{suffix}').write_bytes(picture(8, 8, kind=kind))
    (tree / 'a/notes.txt').touch()
    dataset = ImageFolder(
        data_root=str(tree), skip_corrupt=True, pipeline=[dict(type='LoadIntactImage')]
    )
    assert paths(dataset)[4:6] == ['picture.WEBP', 'picture.tiff']
    assert dataset[4]['img'].shape == dataset[5]['img'].shape == (8, 8, 3)


@pytest.mark.parametrize(('backend', 'left'), [('pillow', 5), ('cv2', 4)])
def test_what_the_pipeline_cannot_read_is_left_out(backend, left, tree):
    (tree / 'a/900.png').write_bytes(picture(8, 8, kind='PCX'))  # OpenCV does not know it
    dataset = ImageFolder(
        data_root=str(tree),
        skip_corrupt=True,
        pipeline=[dict(type='LoadImageFromFile', imdecode_backend=backend)],
    )
    assert dataset.get_gt_labels().tolist() == [0] * left + [1] * 4 + [2] * 2
    assert all(dataset[i]['img'].shape[2] == 3 for i in range(len(dataset)))


@pytest.fixture
def data(tmp_path):
    """Imbalanced and not square; no class is broken."""
    write_tree(tmp_path / 'data/train', dict(a=30, b=6, c=2), height=24, width=40)
    write_tree(tmp_path / 'data/val', dict(a=4, b=4, c=2), height=50, width=20)
    return tmp_path / 'data'


def config(data, work_dir, workers=0, skip_corrupt=False, epochs=1):
    """The digits' config on a tree."""
    options = {'train_cfg.max_epochs': epochs}
    for split in ('train', 'val'):
        options[f'{split}_dataloader.num_workers'] = workers
        options[f'{split}_dataloader.batch_size'] = 10
        options[f'{split}_dataloader.dataset'] = dict(
            _delete_=True,
            type='ImageFolder',
            data_root=str(data),
            data_prefix=split,
            num_classes=3,
            skip_corrupt=skip_corrupt,
            pipeline=[
                dict(type='LoadIntactImage'),
                dict(type='Resize', scale=(16, 16)),
                dict(type='PackInputs'),
            ],
        )
    return load_config(DIGITS, work_dir, options)


def says_that_it_is_broken(error, path):
    last = error.strip().splitlines()[-1]
    assert last.startswith(f'error: {path} cannot be read as a picture (')
    assert last.endswith('ImageFolder(skip_corrupt=True)')
    return True


@pytest.mark.parametrize(('split', 'workers'), [('train', 0), ('val', 2)])
def test_a_broken_picture_stops_the_run_with_its_path(split, workers, data, tmp_path, capsys):
    broken = data / split / 'b/002.jpg'
    truncate(broken) if workers else broken.write_bytes(b'')
    with pytest.raises(SystemExit) as stopped, user_errors():
        train(config(data, tmp_path / 'run', workers))
    assert stopped.value.code == 2
    assert says_that_it_is_broken(capsys.readouterr().err, broken)


def test_the_tool_shows_no_traceback(data, tmp_path):
    truncate(data / 'train/b/002.jpg')
    config(data, tmp_path / 'run', workers=2).dump(tmp_path / 'config.py')
    done = run_script(tmp_path, ROOT / 'tools/train.py', tmp_path / 'config.py')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert says_that_it_is_broken(done.stderr, data / 'train/b/002.jpg')


def test_skipped_in_training_and_validation_with_workers_and_after_resume(data, tmp_path):
    truncate(data / 'train/a/003.jpg')
    (data / 'train/b/000.jpg').write_bytes(b'')
    truncate(data / 'val/c/001.jpg')
    run = tmp_path / 'run'
    cfg = config(data, run, workers=2, skip_corrupt=True, epochs=2)
    train(cfg)
    (log,) = run.rglob('*.log')
    said = log.read_text()
    assert f'{data}/train: 2 of 38 pictures are broken and left out:\n  {data}/train/a/003' in said
    assert f'{data}/val: 1 of 10 pictures are broken and left out:\n  {data}/val/c/001.jpg' in said
    history = json.loads((run / 'results.json').read_text())['history']
    shares = [100 * n / 9 for n in range(10)]  # nine pictures are scored, each once
    for name in ('student0', 'student1', 'ensemble', 'fused'):
        assert min(abs(history[-1][name] - share) for share in shares) < 1e-3

    (run / 'epoch_2.pth').unlink()
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    train(cfg, resume=True)
    assert json.loads((run / 'results.json').read_text())['history'] == history
    assert sum('train: 2 of 38' in log.read_text() for log in run.rglob('*.log')) == 2


MISTAKES = {
    'no class folders': (
        lambda data: [shutil.rmtree(path) for path in data.glob('train/*')]
        + [(data / 'train/0.jpg').touch()],
        'train has 0 class folders (), expected num_classes=3: ',
    ),
    'a class is missing in one split': (
        lambda data: shutil.rmtree(data / 'val/b'),
        'data/train: missing: b; unexpected: none',
    ),
    'no pictures': (
        lambda data: [path.unlink() for path in data.rglob('train/*/*')],
        'Found 0 files in subfolders of',
    ),
    'no split': (
        lambda data: shutil.rmtree(data / 'val'),
        'val_dataloader: data folder not found: ',
    ),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_in_the_tree_is_one_line(mistake, data, tmp_path, capsys):
    change, message = MISTAKES[mistake]
    change(data)
    with pytest.raises(SystemExit) as stopped, user_errors():
        train(config(data, tmp_path / 'run'))
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ') and message in last


def test_own_pictures_by_changing_three_lines(data, tmp_path):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    file = tmp_path / 'configs/_base_/datasets/image_folder.py'
    content = file.read_text()
    for before, after in (
        ("data_root = 'data/image_folder'", f'data_root = {str(data)!r}'),
        ('num_classes = 10', 'num_classes = 3'),
        ('size = 224', 'size = 32'),
    ):
        assert content.count(f'\n{before}\n') == 1
        content = content.replace(f'\n{before}\n', f'\n{after}\n')
    file.write_text(content)

    truncate(data / 'train/a/000.jpg')
    options = {
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.dataset.skip_corrupt': True,
        'val_dataloader.dataset.skip_corrupt': True,
    }
    cfg = load_config(tmp_path / 'configs' / LEAF, tmp_path / 'run', options)
    runner = train(cfg)
    # b and c have 6 and 2 of 37 pictures; less than a sixth is repeated, by a whole number
    times = {n: math.ceil(max(1, math.sqrt(1 / 6 / (n / 37)))) for n in (29, 6, 2)}
    assert times == {29: 1, 6: 2, 2: 2}
    seen = runner.train_dataloader.dataset
    assert len(seen) == 29 + 2 * 6 + 2 * 2
    assert seen[0]['inputs'].shape == (3, 32, 32)
    assert runner.val_dataloader.dataset[0]['inputs'].shape == (3, 32, 32)
    # batches of 32, and the recipe's 0.1 is for 256
    assert runner.optim_wrapper.optimizer.param_groups[0]['initial_lr'] == pytest.approx(0.1 / 8)
    head = runner.model.architecture.head
    assert head.num_classes == runner.model.distiller.num_classes == 3
    (scalars,) = (tmp_path / 'run').rglob('scalars.json')
    scored = json.loads(scalars.read_text().splitlines()[-1])
    for name in ('student0', 'student1', 'ensemble', 'fused'):
        assert 0 <= scored[f'{name}.single-label/recall'] <= 100


def test_the_second_metric_is_balanced_accuracy():
    cfg = load_config(ROOT / 'configs' / LEAF)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=generator).clamp(max=1) * 2
    labels[:5] = 1
    scores = torch.rand(60, 3, generator=generator)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        evaluator = Evaluator(cfg.val_evaluator)
    evaluator.process(
        [
            DataSample().set_gt_label(int(y)).set_pred_score(s)
            for y, s in zip(labels, scores, strict=True)
        ]
    )
    found = evaluator.evaluate(60)
    expected = balanced_accuracy_score(labels, scores.argmax(dim=1))
    assert found['single-label/recall'] == pytest.approx(100 * expected, abs=1e-3)
    assert found['accuracy/top1'] != pytest.approx(100 * expected, abs=1e-1)
