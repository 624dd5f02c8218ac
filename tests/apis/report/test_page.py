"""The report's page, made of stored runs and opened in a real browser where there is one."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mfef_mmrazor.apis import report

STORED = Path(__file__).parents[3] / 'results/cifar10-10k_resnet8'
BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
METHODS = ('independent', 'mfef', 'one')
FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars')


class Cells(HTMLParser):
    """The text of a page's table cells, by table and row."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == 'table':
            self.tables.append([])
        if tag == 'tr':
            self.tables[-1].append([])
        if tag in ('td', 'th'):
            self.tables[-1][-1].append('')
        self.inside = tag in ('td', 'th', 'button')

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope='module')
def grid(tmp_path_factory):
    """A comparison over two networks, both of them stored runs of one."""
    work_dir = tmp_path_factory.mktemp('grid')
    entries = []
    for block, sources in (('resnet8_x', METHODS), ('vgg_x', ('independent', 'one', 'mfef'))):
        (work_dir / 'configs' / block).mkdir(parents=True)
        for method, source in zip(METHODS, sources, strict=True):
            name = f'{block}/{method}'
            shutil.copytree(STORED / 'runs' / source, work_dir / 'runs' / name)
            shutil.copy(STORED / f'configs/{source}.yaml', work_dir / f'configs/{name}.yaml')
            entries.append(dict(name=name, method=method, block=block, config=f'{method}.py'))
    content = dict(version=2, baseline='independent', entries=entries)
    (work_dir / 'comparison.json').write_text(json.dumps(content))
    report(work_dir)
    return work_dir


def test_every_table_is_on_the_page(grid):
    html = (grid / 'report.html').read_text()
    tables = Cells(html).tables
    first = [row for row in tables[0] if row[0] == 'one'][0]
    assert first[2].startswith('70.32 ± ') and tables[0][0][2] == 'mean of students'
    tests = json.loads((grid / 'stats.json').read_text())['blocks']['resnet8_x']
    shown = {row[0]: row for row in tables[1][1:]}
    assert shown['mfef'][2] == f'{tests[0]["mean"]:+.2f}' and shown['mfef'][4] != ''
    ranks = next(table for table in tables if table[0][1] == 'average rank')
    assert {row[0]: row[1] for row in ranks[1:]} == dict(
        mfef='1.50', one='1.50', independent='3.00'
    )
    keys = [row[1] for table in tables if table[0][1] == 'key' for row in table[1:]]
    assert 'model.distiller.type' in keys
    versions = {row[0]: row[1:] for row in tables[-1][1:]}
    assert versions['torch'] == ['2.14.1', '30'] and versions['revision'][1] == '30'


def test_what_is_said_of_the_tables_is_said_in_the_same_words_on_the_page(grid):
    on_the_page = ' '.join(unescape((grid / 'report.html').read_text()).split())
    lines = (grid / 'table.md').read_text().splitlines()
    text = ' '.join(line for line in lines if line and line[0] not in '#|')
    sentences = re.split(r'(?<=[.]) ', text)
    assert len(sentences) > 6 and [s for s in sentences if s not in on_the_page] == []


def test_a_folder_that_somebody_has_changed(grid, tmp_path):
    work_dir = tmp_path / 'changed'
    shutil.copytree(grid, work_dir)
    seeds = work_dir / 'runs/vgg_x/mfef'
    shutil.copytree(seeds / 'seed0', seeds / 'seed0_backup')
    report(work_dir)  # a copy is not a run
    assert (work_dir / 'table.md').read_bytes() == (grid / 'table.md').read_bytes()

    def files():
        return {path: path.read_bytes() for path in work_dir.glob('*.*')}

    before = files()
    kept = (seeds / 'seed0/results.json').read_text()
    without = json.loads(kept)
    del without['deployed']
    (seeds / 'seed0/results.json').write_text(json.dumps(without))
    with pytest.raises(ValueError, match='results.json has no deployed. Remove the folder'):
        report(work_dir)
    (seeds / 'seed0/results.json').write_text(kept)
    (work_dir / 'configs/vgg_x/mfef.yaml').unlink()
    with pytest.raises(FileNotFoundError, match='mfef.yaml'):
        report(work_dir)
    assert files() == before


def test_what_cannot_be_written_is_named(grid, tmp_path):
    work_dir = tmp_path / 'blocked'
    shutil.copytree(grid, work_dir)
    (work_dir / 'runs.csv').unlink()
    (work_dir / 'runs.csv').mkdir()
    with pytest.raises(OSError, match=r'runs.csv could not be written \(Is a directory\)'):
        report(work_dir)


def test_runs_without_any_accuracy_are_reported(grid, tmp_path):
    work_dir = tmp_path / 'none'
    shutil.copytree(grid, work_dir)
    for path in work_dir.glob('runs/*/*/*/results.json'):
        results = json.loads(path.read_text())
        for predictor in results['predictors'].values():
            predictor['last']['accuracy'] = predictor['best']['accuracy'] = float('nan')
        results.update(device='EPYC, 1 thread', metric='multi-label/mAP')
        path.write_text(json.dumps(results))
    report(work_dir)
    assert '| one | 5 |  |' in (work_dir / 'table.md').read_text()

    html = (work_dir / 'report.html').read_text()
    assert 'The metric is multi-label/mAP, mean of students' in html

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((work_dir / 'stats.json').read_text(), parse_constant=refuse)
    assert ['device', 'EPYC, 1 thread', '30'] in Cells(html).tables[-1]


def test_what_is_missing_and_untested_is_on_the_page(grid, tmp_path):
    work_dir = tmp_path / 'missing'
    shutil.copytree(grid, work_dir)
    (work_dir / 'runs/vgg_x/one/seed3/results.json').unlink()
    sweep = dict(held_out='1/5', seeds=[7], untuned=['one'], settings=[
        dict(block='resnet8_x', method='one', setting='one', config='one.py', options={},
             accuracy=None, chosen=False),
    ])  # fmt: skip
    (work_dir / 'sweep.json').write_text(json.dumps(sweep))
    report(work_dir)
    html, table = (work_dir / 'report.html').read_text(), (work_dir / 'table.md').read_text()
    for text in (
        'Without a finished run: vgg_x/one (seed 3).', 'The methods have different seeds',
        'held-out training images (1/5; seeds 7)', 'Not tuned: resnet8_x one.',
        'resnet8_x mfef',  # without a sweep
    ):  # fmt: skip
        assert text in html and text in table
    assert 'Not tested: too few blocks.' in html and 'A bar joins' not in html


def test_the_page_needs_no_other_file(grid):
    html = (grid / 'report.html').read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html) and 'http' not in html
    assert html.count('<img src="data:image/svg+xml') == 2 + 1 + 2  # curves, diagram, pictures
    assert len(html) < 1_000_000


def test_the_grid_has_files_of_its_own(grid):
    assert (grid / 'critical_difference.png').read_bytes().startswith(b'\x89PNG')
    lines = (grid / 'table.csv').read_text().splitlines()
    assert lines[0].startswith('block,method,n,mean of students,mean of students std')
    assert [line.split(',')[:2] for line in lines[1:3]] == [
        ['resnet8_x', 'independent'], ['resnet8_x', 'mfef']
    ]  # fmt: skip
    table = (grid / 'table.md').read_text()
    assert '## Over all blocks' in table and '| mfef | 1.50 |' in table


def test_the_same_runs_give_the_same_bytes(grid):
    files = [path for path in grid.iterdir() if path.is_file() and path.name != 'comparison.json']
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    report(grid)
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.skipif(not BROWSER, reason='no chromium')
def test_a_click_sorts(grid, tmp_path):
    html = (grid / 'report.html').read_text()
    click = "<script>document.querySelectorAll('th button')[2].click()</script></body>"
    (tmp_path / 'clicked.html').write_text(html.replace('</body>', click))
    page = subprocess.run(
        [BROWSER, *FLAGS, '--dump-dom', f'file://{tmp_path}/clicked.html'],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    accuracies = [float(row[2].split()[0]) for row in Cells(page).tables[0][1:]]
    assert accuracies == sorted(accuracies) and accuracies[0] < accuracies[-1]


@pytest.mark.skipif(not BROWSER, reason='no chromium')
@pytest.mark.parametrize('width', [1280, 500])
def test_it_looks_like_something(grid, tmp_path, width):
    from matplotlib.image import imread

    picture = tmp_path / 'page.png'
    subprocess.run(
        [BROWSER, *FLAGS, f'--window-size={width},2400', f'--screenshot={picture}',
         f'file://{grid}/report.html'],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (2400, width)
    assert 0.02 < (pixels.min(axis=-1) < 0.8).mean() < 0.5  # neither empty nor black
    colours = pixels[(pixels.max(axis=-1) - pixels.min(axis=-1)) > 0.3]
    assert len(colours) > 500  # the pictures are there
    assert (pixels[:, -4:] > 0.8).all()  # nothing is cut off at the edge
