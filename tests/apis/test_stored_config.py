"""A config in a checkpoint is data; files that try more are in test_hostile_files.py."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mfef_mmrazor.apis.data_checks import inner_datasets
from mfef_mmrazor.apis.stored_config import read_stored_config

CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = dict(
    model=dict(type='OnlineDistill', students=[dict(type='mmpretrain.ImageClassifier')]),
    test_dataloader=dict(dataset=dict(type='x.y', pipeline=[dict(type='PackInputs')])),
)

CALL = dict(type='os.system', command='x')


def read(**changes):
    text = '\n'.join(f'{key} = {value!r}' for key, value in {**SMALL, **changes}.items())
    return read_stored_config(text, Path('epoch_1.pth'))


@pytest.mark.parametrize(
    'path',
    [*sorted(CONFIGS.rglob('*_digits.py')), *sorted(CONFIGS.glob('mfef/*_cifar100.py'))],
    ids=lambda path: path.stem,
)
def test_shipped_configs_are_read(path):
    cfg = Config.fromfile(path)
    if 'students' not in cfg.model:
        pytest.skip('not exported')
    found = read_stored_config(cfg.pretty_text, path)
    assert len(found['model']['students']) == len(cfg.model.students)
    pipeline = cfg.test_dataloader.dataset.pipeline
    found_pipeline = next(inner_datasets(found['test_dataloader']))['pipeline']
    assert found_pipeline == [dict(step) for step in pipeline]
    assert found['custom_imports'] == dict(imports=[]) and found['default_scope'] == 'mmpretrain'


def test_what_exporting_does_not_read_is_dropped():
    found = read(train_cfg=dict(type='os.system'), default_hooks=dict(x=dict(type='os.system')))
    assert set(found) == {
        'model', 'test_dataloader', 'test_evaluator', 'val_evaluator', 'default_scope',
        'custom_imports',
    }  # fmt: skip
    # a data set that is not registered is not what the networks are built of
    pipeline = [dict(type='PackInputs')]
    assert found['test_dataloader'] == dict(dataset=dict(pipeline=pipeline, to_rgb=False))
    in_memory = dict(type='InMemory', dataset=SMALL['test_dataloader']['dataset'], to_rgb=True)
    found = read(test_dataloader=dict(dataset=in_memory))
    assert found['test_dataloader']['dataset']['to_rgb']  # else the colours would be swapped
    found = read(test_dataloader=dict(dataset=dict(type='KFoldDataset', dataset=in_memory)))
    assert found['test_dataloader']['dataset']['to_rgb']
    unprepared = dict(type='InMemory', dataset=dict(type='Digits'))  # which needs no pipeline
    assert (
        read(test_dataloader=dict(dataset=unprepared))['test_dataloader']['dataset'] == unprepared
    )
    found = read(val_evaluator=[CALL], test_evaluator=dict(type='Accuracy'))
    assert found['val_evaluator'] is None and found['test_evaluator'] == dict(type='Accuracy')
    found = read(test_dataloader=dict(dataset=dict(SMALL['test_dataloader']['dataset']), x=CALL))
    assert set(found['test_dataloader']) == {'dataset'}


def test_a_student_of_a_package_is_named_by_its_config():
    student = dict(cfg_path='mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    found = read(model=dict(type='OnlineDistill', students=[student, student]))
    assert found['model']['students'] == [student] * 2


def test_initial_weights_are_dropped():
    student = dict(
        type='mmpretrain.ImageClassifier', pretrained='x.pth', init_cfg=dict(type='Kaiming'),
        teacher_ckpt='x.pth', float_checkpoint='x.pth',
    )  # fmt: skip
    found = read(model=dict(type='OnlineDistill', students=[student]))
    assert found['model']['students'] == [dict(type='mmpretrain.ImageClassifier')]


def test_classes_by_their_paths_are_those_that_are_registered():
    """As mmengine stores the classes of a pure-Python config."""
    for module in ('mmpretrain.models', 'mmpretrain.models.classifiers.image'):
        student = dict(type=f'{module}.ImageClassifier')
        found = read(model=dict(type='OnlineDistill', students=[student]))
        assert found['model']['students'] == [dict(type='mmpretrain.ImageClassifier')]


REFUSED = {
    'a function': dict(type='os.system'),
    'a class that is not registered': dict(type='subprocess.Popen'),
    'a registered function': dict(type='mmengine.get_dist_info'),
    'a module': dict(type='mmpretrain.apis'),
    'a number': dict(type=3),
    'an unknown scope': dict(type='ReLU', _scope_='somewhere'),
    'an unknown scope in the type': dict(type='somewhere.ReLU'),
    'a config elsewhere': dict(cfg_path='somewhere::x.py'),
    'a config of a package, elsewhere': dict(cfg_path='mmpretrain::../x.py'),
    'a config in a file': dict(cfg_path='/x.py'),
    'a config of a package, in a file': dict(cfg_path='mmpretrain::/proc/self/cwd/x.py'),
    'a call': dict(type='ReLU', dtype='x()'),
    'an item': dict(type='ReLU', dtype='x[0]'),
    'a template': dict(type='ReLU', dtype='{{ fileDirname }}'),
    'a key': {'type': 'ReLU', "x'": 1},
    'a recorder of functions': dict(type='FunctionOutputs', source='os.system'),
    'a pickle that a class loads': dict(type='ReLU', answer_list_path='http://x/a.PKL'),
    'a pickle of another name': dict(type='ReLU', split_file='http://x/refs.p'),
    'a YAML file that a class loads': dict(type='ReLU', units='/x/units.yml'),
    'code of a stranger': dict(type='ReLU', trust_remote_code=True),
    'bytes': dict(type='ReLU', x=b'1'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_refused_and_how_to_go_on(case):
    for value in (REFUSED[case], [dict(inner=(REFUSED[case],))]):
        model = dict(type='OnlineDistill', students=[dict(type='ReLU', x=value)])
        with pytest.raises(ValueError, match='^epoch_1.pth is refused.*--config.*--allow-import'):
            read(model=model)


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'model = f()',
        'model = dict(students=[1])',
        'x = 1 +',
        'model = 3',
        'x.y = 1',
        '\0',
    ],
)
def test_text_that_mmengine_does_not_write(text):
    with pytest.raises(ValueError, match='(give it|Give your own) with --config'):
        read_stored_config(text, Path('epoch_1.pth'))
