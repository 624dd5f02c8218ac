"""Checkpoints that try to run code, through everything that reads one: none of it may run."""

import http.server
import importlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mfef_mmrazor.apis import export, load_config, train, user_errors
from mfef_mmrazor.apis import test as score

CONFIGS = Path(__file__).parents[2] / 'configs'
DIGITS = 'mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
SMALL = {
    'train_dataloader.dataset.train_per_class': 2,
    'val_dataloader.dataset.indices': 20,
    'test_dataloader.dataset.indices': 20,
    'train_cfg.max_epochs': 1,
}
TOUCH = "__import__('pathlib').Path('canary').touch()"


class Call:
    """Pickled as a call, which reading the pickle makes."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """Never called; pickle wants what is called to be callable."""


SYSTEM = Call(os.system, 'touch canary')
CHAIN = Call(Call(getattr, Call(importlib.import_module, 'os'), 'system'), 'touch canary')
POPEN = Call(subprocess.check_call, ['touch', 'canary'])


def saved(change, **options):
    """A kind of file: the checkpoint of a run after a change."""

    def write(stored, path):
        change(stored)
        torch.save(stored, path, **options)

    return write


def objects(stored, path):
    array = np.empty(1, object)
    array[0] = SYSTEM
    stored['message_hub']['runtime_info']['loss'] = array
    torch.save(stored, path)


def archive(stored, path):
    with tarfile.open(path, 'w') as file:
        for name in ('sys_info', 'storages', 'tensors', 'pickle'):
            content = pickle.dumps(SYSTEM)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


PICKLES = {
    'os.system in the optimizer': saved(lambda s: s['optimizer'].update(state=SYSTEM)),
    'eval in the message hub': saved(lambda s: s['message_hub'].update(x=Call(eval, TOUCH))),
    'exec in meta': saved(lambda s: s['meta'].update(epoch=Call(exec, TOUCH))),
    'a chain of getattr': saved(lambda s: s.update(results=CHAIN)),
    'subprocess in the weights': saved(lambda s: s['state_dict'].update(weight=POPEN)),
    'a class behind HistoryBuffer': saved(
        lambda s: s.update(x=Call(Call(getattr, HistoryBuffer, '__class__'), HistoryBuffer))
    ),
    'an array of objects': objects,
    'the legacy format': saved(
        lambda s: s.update(x=SYSTEM), _use_new_zipfile_serialization=False
    ),
    'the legacy format, a chain': saved(
        lambda s: s.update(x=CHAIN), _use_new_zipfile_serialization=False
    ),
    'the oldest format': archive,
    'a bare pickle': lambda stored, path: path.write_bytes(pickle.dumps(dict(x=SYSTEM))),
    'nothing but a call': lambda stored, path: torch.save(Call(eval, TOUCH), path),
    'a whole module': lambda stored, path: torch.save(torch.nn.ReLU(), path),
}  # fmt: skip


def configured(change):
    """A kind of file: the training config in it is another."""

    def write(stored, path):
        cfg = Config.fromstring(stored['meta']['cfg'], '.py').to_dict()
        change(cfg)
        stored['meta']['cfg'] = '\n'.join(f'{key} = {value!r}' for key, value in cfg.items())
        torch.save(stored, path)

    return write


def student(cfg):
    return cfg['model']['students'][0]


def append(**transform):
    def change(cfg):
        for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
            cfg[loader]['dataset']['pipeline'].insert(0, transform)

    return configured(change)


CALL = dict(type='os.system', command='touch canary')
CFGS = {
    'backbone': configured(lambda c: student(c).update(backbone=CALL)),
    'an imported backbone': configured(
        lambda c: student(c).update(backbone=dict(type='canary_module.Backbone'))
    ),
    'data preprocessor': configured(lambda c: c['model'].update(data_preprocessor=CALL)),
    'pipeline': append(**CALL),
    'evaluated dtype': append(
        type='torchvision/ConvertImageDtype', dtype=f'float32 if {TOUCH} else float32'
    ),
    'custom imports': configured(
        lambda c: c.update(custom_imports=dict(imports=['canary_module']))
    ),
    'model type': configured(lambda c: c['model'].update(type='builtins.exec')),
    'scope': configured(lambda c: student(c).update(_scope_='canary_module')),
    'default scope': configured(lambda c: c.update(default_scope='canary_module')),
    'scope before a type': configured(lambda c: student(c).update(type='canary_module.ReLU')),
    'imported config': configured(lambda c: student(c).update(cfg_path='canary_module::x.py')),
    'recorder': configured(
        lambda c: c['model']['distiller'].update(
            recorders=dict(x=dict(type='FunctionOutputs', source='canary_module.function'))
        )
    ),
    'a key that is an expression': configured(
        lambda c: student(c)['head'].update({f"x': {TOUCH}, 'y": 1})
    ),
    'a template': configured(
        lambda c: student(c)['head'].update(topk='{{ $NOTHING:' + TOUCH + ' }}')
    ),
    'an expression': saved(lambda s: s['meta'].update(cfg=f'model = {TOUCH}')),
    'a statement': saved(lambda s: s['meta'].update(cfg=f'import canary_module\n{TOUCH}')),
    'old config text': saved(lambda s: s['meta'].update(config=f'model = {TOUCH}')),
}  # fmt: skip


def digits(folder, **options):
    return load_config(CONFIGS / DIGITS, folder / 'run', {**SMALL, **options}, seed=0)


def resume(path, folder):
    work_dir = folder / 'run'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(path))
    train(digits(folder, **{'train_cfg.max_epochs': 2}), resume=True)


def start(path, folder):
    train(digits(folder, load_from=str(path)))


def test_it(path, folder):
    score(digits(folder), path)


test_it.__test__ = False


def take_home(path, folder):
    export(path, folder / 'out')


def teach(path, folder):
    train(
        load_config(
            CONFIGS / 'mmrazor/kd_resnet8_1xb32-20e_digits.py',
            folder / 'run', {**SMALL, 'model.teacher_ckpt': str(path)},
        )
    )  # fmt: skip


def initialise(path, folder):
    cfg = digits(folder)
    cfg.model.students[1].init_cfg = dict(type='Pretrained', checkpoint=str(path))
    train(cfg)


def initialise_backbone(path, folder):
    cfg = digits(folder)
    cfg.model.students[0].backbone.init_cfg = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Pretrained', checkpoint=str(path), prefix='architecture.backbone'),
    ]
    train(cfg)


def pretrained(path, folder):
    cfg = digits(folder)
    cfg.model.students[0].pretrained = str(path)
    train(cfg)


READERS = dict(
    resume=resume, load_from=start, test=test_it, export=take_home, teacher=teach,
    init_cfg=initialise, backbone=initialise_backbone, pretrained=pretrained,
)  # fmt: skip


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Of a run of one epoch."""
    folder = tmp_path_factory.mktemp('checkpoint')
    train(digits(folder))
    return folder / 'run/epoch_1.pth'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a canary would appear, if a file or the module that it names were run."""
    monkeypatch.chdir(tmp_path)
    module = tmp_path / 'modules/canary_module'
    module.mkdir(parents=True)
    for name in ('__init__.py', 'registry.py'):
        (module / name).write_text(TOUCH)
    monkeypatch.syspath_prepend(str(module.parent))
    for name in ('canary_module', 'canary_module.registry'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def check(kind, reader, checkpoint, place, capsys):
    """Whether the reader refused the file, in one line; nothing may have been run."""
    path = place / 'hostile.pth'
    kind(torch.load(checkpoint, weights_only=True), path)
    assert not (place / 'canary').exists()
    try:
        with user_errors():
            reader(path, place)
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    assert not (place / 'canary').exists()
    if code:
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
        assert code == 2 and 'hostile.pth' in line and len(line.split()) < 80
        assert 'weights_only' not in line and 'allowlist' not in line
        assert not (place / 'out').exists()
    return code == 2


@pytest.mark.parametrize('kind', PICKLES)
@pytest.mark.parametrize('reader', READERS)
def test_a_file_that_calls_something_is_refused(kind, reader, checkpoint, place, capsys):
    assert check(PICKLES[kind], READERS[reader], checkpoint, place, capsys)
    assert not list(place.glob('run/*.log'))


@pytest.mark.parametrize('kind', CFGS)
def test_a_stored_config_that_calls_something_is_refused(kind, checkpoint, place, capsys):
    refused = check(CFGS[kind], take_home, checkpoint, place, capsys)
    # what is not read of it does no harm
    assert refused == (kind not in ('custom imports', 'old config text'))


def test_old_config_text_is_not_resumed_from(checkpoint, place, capsys):
    assert check(CFGS['old config text'], resume, checkpoint, place, capsys)


@pytest.mark.slow
@pytest.mark.parametrize('kind', CFGS)
@pytest.mark.parametrize('reader', [name for name in READERS if name != 'export'])
def test_a_stored_config_is_of_no_use_to_others(kind, reader, checkpoint, place, capsys):
    check(CFGS[kind], READERS[reader], checkpoint, place, capsys)


def test_a_file_from_a_url(checkpoint, place, capsys, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(place / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=place)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/hostile.pth'
    for reader in (start, initialise):
        assert check(
            PICKLES['a chain of getattr'], lambda _, place, r=reader: r(url, place),
            checkpoint, place, capsys,
        )  # fmt: skip
    server.shutdown()


def test_a_plugin_that_the_user_allows(checkpoint, place, capsys):
    """A student's own backbone, from a package that the run's config imports."""
    (place / 'modules/plugin.py').write_text(
        'from mmpretrain.registry import MODELS\n'
        'from mfef_mmrazor.models import CifarResNet\n'
        '@MODELS.register_module()\n'
        'class PluginNet(CifarResNet):\n'
        '    pass\n'
    )

    def change(cfg):
        student(cfg)['backbone']['type'] = 'PluginNet'
        cfg['custom_imports'] = dict(imports=['plugin'])

    kind = configured(change)
    assert check(kind, take_home, checkpoint, place, capsys)
    paths = export(place / 'hostile.pth', place / 'out', allow_imports=['plugin'])
    assert Config.fromfile(paths[0]).custom_imports.imports == ['plugin']
    with pytest.raises(ImportError, match='--allow-import: .*no_such_plugin'):
        export(place / 'hostile.pth', place / 'out', allow_imports=['no_such_plugin'])


def test_what_a_run_writes_needs_no_list_of_allowed_classes(checkpoint):
    with torch.serialization.safe_globals([]):
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            stored = torch.load(checkpoint, weights_only=True)
        finally:
            torch.serialization.add_safe_globals(allowed)
    assert 'train/loss' in stored['log_history'] and not stored['message_hub']['log_scalars']
