"""What is drawn of real, short runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_script

from mfef_mmrazor.apis import load_config, show_maps, train, user_errors
from mfef_mmrazor.apis.checkpoints import build_trained, read_checkpoint
from mfef_mmrazor.apis.show_maps import Panel, View, draw, look, prepare

CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 50,
    'train_cfg.max_epochs': 1,
}


def trained(work_dir, method, **options):
    path = CONFIGS / f'{method}/{method}_resnet8-x2_1xb32-20e_digits.py'
    train(load_config(path, work_dir, {**SMALL, **options}, seed=0))
    return work_dir / 'epoch_1.pth'


@pytest.fixture(scope='module')
def mfef(tmp_path_factory):
    attention = {'model.distiller.attention': dict(type='DualAttentionConnector')}
    return trained(tmp_path_factory.mktemp('mfef'), 'mfef', **attention)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    return tmp_path / 'a.png'


def test_what_is_drawn_is_what_the_gates_and_maps_are(mfef, image):
    stored, cfg = read_checkpoint(mfef, None)
    algorithm = build_trained(stored, cfg)
    inputs, picture = prepare(cfg, image)
    view = look(algorithm, inputs, picture, [0, 1])
    figure = draw(view, 'a.png')
    titles = {axes.get_title() for axes in figure.axes}
    assert {'map before', 'channel gate', 'spatial gate', 'fused map'} <= titles

    with torch.no_grad():
        feature = algorithm.students[1].extract_feat(inputs, stage='backbone')[-1]
        extracted = algorithm.distiller.multi_scale[1](feature)
        channel_gate, spatial_gate = algorithm.distiller.attention[1].gates
        weights = channel_gate(extracted)
        region = spatial_gate(extracted * weights)
    drawn = {panel.title.split('\n')[0]: panel for panel in view.rows['student1']}
    np.testing.assert_allclose(drawn['map before'].values, feature[0].mean(0), atol=1e-5)
    shares = algorithm.predict_logits(inputs)['student1'][0].softmax(dim=0)
    assert view.predictions[1] == f'student1: {shares.argmax()} ({100 * shares.max():.0f} %)'
    colours = np.array(Image.open(image)).mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), colours, atol=0.02)
    np.testing.assert_allclose(drawn['after: group 1'].values, extracted[0, :16].mean(0), atol=1e-5)
    np.testing.assert_allclose(drawn['channel gate'].values, weights.flatten(), atol=1e-5)
    np.testing.assert_allclose(drawn['spatial gate'].over, region[0, 0], atol=1e-5)


def test_a_picture_per_image_and_a_page(mfef, image, tmp_path):
    *pictures, page = show_maps(mfef, [image], out=tmp_path / 'maps')
    assert [path.name for path in pictures] == ['a.png']
    assert Image.open(pictures[0]).width > 500
    assert 'src="a.png"' in page.read_text()


def test_names_of_pictures_are_addresses_on_the_page(mfef, image, tmp_path):
    image = image.rename(tmp_path / 'a #1 100%.png')
    page = show_maps(mfef, [image], 0, tmp_path / 'maps')[-1].read_text()
    assert 'src="a%20%231%20100%25.png"' in page and '<h2>a #1 100%</h2>' in page


def test_a_module_is_imported_on_request(mfef, image, tmp_path):
    with pytest.raises(ImportError, match='no_such_module'):
        show_maps(mfef, [image], 0, tmp_path / 'maps', allow_imports=['no_such_module'])


def test_a_method_without_maps_is_shown_without_them(image, tmp_path):
    checkpoint = trained(tmp_path / 'dml', 'dml')
    stored, cfg = read_checkpoint(checkpoint, None)
    view = look(build_trained(stored, cfg), *prepare(cfg, image), [0])
    assert list(view.rows) == ['student0']
    assert {panel.title for panel in view.rows['student0']} <= {'image', 'Grad-CAM'}
    assert [text.split(':')[0] for text in view.predictions] == ['student0', 'student1', 'ensemble']


def test_a_file_that_is_no_picture_is_named_and_nothing_drawn(mfef, image, tmp_path, capsys):
    (tmp_path / 'notes.png').write_text('no picture')
    with pytest.raises(SystemExit), user_errors():
        show_maps(mfef, [image, tmp_path / 'notes.png'], out=tmp_path / 'maps')
    assert f'error: {tmp_path}/notes.png cannot be read as a picture' in capsys.readouterr().err
    assert not (tmp_path / 'maps').exists()


def test_the_tool_prints_what_it_has_written(mfef, image, tmp_path):
    tool = CONFIGS.parent / 'tools/show_maps.py'
    done = run_script(tmp_path, tool, mfef, '--images', image, '--student', '0')
    assert done.stdout.splitlines()[-2:] == ['maps/a.png', 'maps/index.html']


def test_an_unknown_student_is_named(mfef, image, tmp_path):
    with pytest.raises(ValueError, match="student '7'"):
        show_maps(mfef, [image], student='7', out=tmp_path / 'maps')


def test_long_lines_and_names_that_look_like_formulas_are_drawn_whole():
    panel = Panel('map', np.zeros((4, 4)))
    says = [f'student{i}: automobile (98 %)' for i in range(4)]
    figure = draw(View({'student0': [panel]}, says), 'a$b_{$.png')
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_an_image_is_not_replaced_by_its_picture(mfef, image):
    before = image.read_bytes()
    with pytest.raises(ValueError, match=r'a.png would be replaced .* choose another out'):
        show_maps(mfef, [image], out=image.parent)
    assert image.read_bytes() == before and not (image.parent / 'index.html').exists()
