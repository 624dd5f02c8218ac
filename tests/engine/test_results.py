import contextlib
import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from processes import in_processes

from mfef_mmrazor.engine import results

HISTORY = [
    dict(epoch=1, student0=50.0, fused=60.0),
    dict(epoch=2, student0=70.0, fused=65.0),
    dict(epoch=3, student0=68.0, fused=66.0),
]


def test_summary_has_last_and_best_epoch():
    assert results.summarize(HISTORY) == dict(
        student0=dict(last=dict(epoch=3, accuracy=68.0), best=dict(epoch=2, accuracy=70.0)),
        fused=dict(last=dict(epoch=3, accuracy=66.0), best=dict(epoch=3, accuracy=66.0)),
    )


def test_of_equally_good_epochs_the_first_is_the_best():
    history = [*HISTORY, dict(epoch=4, student0=70.0, fused=66.0)]
    best = {name: found['best']['epoch'] for name, found in results.summarize(history).items()}
    assert best == dict(student0=2, fused=3)


def test_summary_has_calibration_where_it_was_measured():
    calibration = [
        dict(epoch=epoch, student0=dict(nll=epoch / 10, ece=1.0), students=dict(kl=0.1 * epoch))
        for epoch in (2, 3)
    ]
    found = results.summarize(HISTORY, calibration)
    assert found['student0']['last'] == dict(epoch=3, accuracy=68.0, nll=0.3, ece=1.0)
    assert found['student0']['best']['nll'] == 0.2
    assert found['fused'] == results.summarize(HISTORY)['fused']
    assert results.summarize_students(calibration)['last']['kl'] == pytest.approx(0.3)
    assert results.summarize_students([]) == {}


def test_results_of_today_and_older_ones_are_read_and_newer_ones_refused(tmp_path):
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(dict(schema=results.SCHEMA)))
    assert results.read_results(path)['schema'] == results.SCHEMA
    path.write_text('{"seed": 1}')
    assert results.read_results(path) == dict(seed=1, metric='accuracy/top1', students={})
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match='results.json has schema 99'):
        results.read_results(path)


def test_damaged_results_are_named(tmp_path):
    path = tmp_path / 'results.json'
    path.write_text('{"seed": 1, "pred')
    with pytest.raises(ValueError, match='results.json is damaged: .*Remove it and run again'):
        results.read_results(path)


def test_accuracies_by_predictor():
    metrics = {'accuracy/top1': 1.0, 'student0.accuracy/top1': 1.0, 'fused.accuracy/top1': 2.0}
    assert results.accuracies({**metrics, 'fused.accuracy/top5': 9.0}) == dict(
        student0=1.0, fused=2.0
    )
    assert results.accuracies({'accuracy/top1': 3.0}) == dict(model=3.0)
    assert results.accuracies({'data_time': 0.1}) == {}


def test_another_metric_stands_in_where_there_is_no_accuracy():
    both = {'multi-label/f1-score': 1.0, 'multi-label/mAP': 2.0}
    online = {
        **both,
        **{f'student0.{k}': v for k, v in both.items()},
        'student1.multi-label/mAP': 3,
    }
    assert results.primary_metric(online) == results.primary_metric(both) == 'multi-label/mAP'
    assert results.accuracies(online) == dict(student0=2.0, student1=3.0)
    mine = {'confusion/result': [[1]], 'mine/score': 0.5, 'data_time': 0.1}
    assert results.accuracies(mine) == dict(model=0.5)
    assert results.primary_metric({'confusion/result': [[1]]}) is None


def test_versions_are_those_installed():
    versions = results.package_versions()
    assert torch.__version__.startswith(versions['torch'].split('+')[0])
    assert versions['mmrazor'] == '1.0.0' and {'mmcv', 'mmcv-lite'} & set(versions)


def test_the_device_is_named_with_its_threads():
    name, _, threads = results.device_name().rpartition(', ')
    number = torch.get_num_threads()
    assert threads == f'{number} thread{"s" * (number > 1)}'
    if not torch.cuda.is_available() and Path('/proc/cpuinfo').is_file():
        assert name in Path('/proc/cpuinfo').read_text() or name == platform.machine()


def test_git_revision_is_none_where_the_file_is_not_tracked(tmp_path, monkeypatch):
    copy = tmp_path / 'results.py'
    copy.write_text('')
    subprocess.run(['git', 'init', '-q'], cwd=tmp_path, check=True)
    monkeypatch.setattr(results, '__file__', str(copy))
    assert results.git_revision() is None
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    subprocess.run(['git', 'add', 'results.py'], cwd=tmp_path, check=True)
    subprocess.run(['git', *identity, 'commit', '-qm', 'x'], cwd=tmp_path, check=True)
    head = subprocess.run(
        ['git', 'rev-parse', 'HEAD'], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert head.startswith(results.git_revision())
    copy.write_text('changed')
    assert results.git_revision().endswith('-dirty')


def test_deployed_size_is_that_of_convolutions_and_linear_layers():
    from mfef_mmrazor.models.builder import build

    network = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CifarResNet', depth=20),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=100, in_channels=64),
        )
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    size = results.deployed_size(network.train(), torch.rand(1, 3, 32, 32))
    assert size['parameters'] == 278_324 and round(size['macs'] / 1e6, 2) == 40.82
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_attention_by_itself_is_not_counted():
    """Of a transformer what mmengine's analyzer, which traces, finds in convolutions and layers."""
    from mfef_mmrazor.models.builder import build

    network = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='VisionTransformer', arch='deit-t', img_size=32, patch_size=8),
            head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192),
        )
    ).eval()
    image = torch.rand(1, 3, 32, 32)
    traced = FlopAnalyzer(network, image).unsupported_ops_warnings(False).by_operator()
    expected = traced['conv'] + traced['linear']
    assert 0 < expected < sum(traced.values())
    assert results.deployed_size(network, image)['macs'] == expected


def test_json_is_never_half_written(tmp_path):
    path = tmp_path / 'results.json'
    results.write_json(path, dict(a=1))
    with contextlib.suppress(TypeError):
        results.write_json(path, dict(a=object()))
    assert json.loads(path.read_text()) == dict(a=1)


def test_peak_memory_sees_what_was_used():
    in_processes(1, use_a_gigabyte)


def use_a_gigabyte():
    before = results.peak_memory_mb()
    block = bytes([1]) * (1000 * 2**20)
    assert 950 < results.peak_memory_mb() - before < 1050 and len(block) == 1000 * 2**20


def test_curves_are_a_picture(tmp_path):
    results.draw_curves(tmp_path / 'curves.png', HISTORY, 'title')
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_the_students_agreement_is_drawn_below(tmp_path):
    differ = [dict(epoch=i, students=dict(disagreement=20.0 - i, kl=0.1)) for i in (1, 2, 3)]
    figure = results.draw_curves(tmp_path / 'curves.png', HISTORY, 'title', calibration=differ)
    above, below = figure.axes
    assert len(above.get_lines()) == 2
    assert below.get_lines()[0].get_ydata().tolist() == [81, 82, 83]
    assert below.get_xlabel() == 'epoch'


def test_the_shares_of_the_loss_are_drawn_at_the_bottom(tmp_path):
    shares = {i: {'own': 60.0 + i, 'distill.loss_map': 40.0 - i} for i in (1, 2, 3)}
    figure = results.draw_curves(tmp_path / 'curves.png', HISTORY, 'title', shares=shares)
    above, below = figure.axes
    assert {line.get_label(): line.get_ydata().tolist() for line in below.get_lines()} == {
        "students' own": [61, 62, 63],
        'loss_map': [39, 38, 37],
    }
    assert len(above.get_legend().get_texts()) == 2


def test_curves_of_few_epochs_have_whole_numbers_below(tmp_path):
    figure = results.draw_curves(tmp_path / 'curves.png', HISTORY, 'title')
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_curves_of_many_students_and_epochs_are_told_apart_and_not_covered(tmp_path):
    history = [
        {'epoch': epoch, **{f'student{i}': 50.0 + i for i in range(20)}} for epoch in range(1, 301)
    ]
    figure = results.draw_curves(tmp_path / 'curves.png', history, 'title')
    figure.draw_without_rendering()  # at the figure's own resolution
    (axes,) = figure.axes
    legend = axes.get_legend()
    lines = axes.get_lines()
    assert len({line.get_color() for line in lines}) == 20
    assert {line.get_marker() for line in lines} == {'None'}
    inside, outside = axes.get_window_extent(), legend.get_window_extent()
    assert outside.x0 >= inside.x1
    assert outside.y0 >= 0
