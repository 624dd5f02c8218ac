"""What the tables show."""

import json

import numpy as np
import pandas as pd
from accuracies import A, B, runs

from mfef_mmrazor.apis.report.significance import statistics
from mfef_mmrazor.apis.report.tables import markdown, summary


def table(frame, baseline, tmp_path, metric='accuracy/top1'):
    blocks = frame.groupby('block', sort=False)
    summaries = {block: summary(of_block, baseline) for block, of_block in blocks}
    stats = statistics(frame, baseline, metric)
    return markdown(frame, summaries, stats, baseline, metric, tmp_path)


def test_table_has_mean_deviation_and_cost(tmp_path):
    text = table(runs(a=A, b=B), 'a', tmp_path)
    row = next(line for line in text.splitlines() if line.startswith('| b |'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[1] == '5' and cells[2] == f'{np.mean(B):.2f} ± {np.std(B, ddof=1):.2f}'
    assert cells[-4] == f'{np.mean(B) + 6:.2f} ± {np.std(B, ddof=1):.2f}'  # best epoch
    assert cells[-3:] == ['1.50', '1,000', '2.00 M']


def test_the_cost_is_a_mean_of_ratios_over_the_seeds_that_both_have():
    frame = runs(a=A[:2], b=B[:3]).assign(train_seconds=[10.0, 30.0, 20.0, 30.0, 99.0])
    assert summary(frame, 'a')['cost'].tolist() == [1.0, (20 / 10 + 30 / 30) / 2]


def test_the_leader_has_a_column_of_its_own(tmp_path):
    frame = runs(a=A)
    frame = pd.concat([frame, frame.assign(predictor='student0', last=frame['last'] + 3)])
    header, _, row = (line.split(' | ') for line in table(frame, 'a', tmp_path).splitlines()[:3])
    assert row[header.index('student0')].startswith(f'{np.mean(A) + 3:.2f} ± ')
    assert row[header.index('mean of students')].startswith(f'{np.mean(A):.2f} ± ')


def test_runs_of_different_revisions_are_told(tmp_path):
    frame = runs(a=A, b=B)
    assert 'revisions' not in table(frame, 'a', tmp_path)
    frame.loc[0, 'revision'] = None  # outside git
    assert 'revisions' not in table(frame, 'a', tmp_path)
    frame.loc[0, 'revision'] = 'q'
    assert 'The runs are of different revisions: q, r.\n' in table(frame, 'a', tmp_path)


def test_another_metric_than_accuracy_is_named(tmp_path):
    frame = runs(a=A, b=B)
    assert 'Top-1 accuracy in percent at the last epoch' in table(frame, 'a', tmp_path)
    assert '\nmulti-label/mAP at the last epoch' in table(frame, 'a', tmp_path, 'multi-label/mAP')
    assert statistics(frame, 'a', 'multi-label/mAP')['metric'].startswith('multi-label/mAP, mean')


def test_a_grid_has_a_table_per_block(tmp_path):
    grid = pd.concat([runs('resnet8_digits', a=A, b=B), runs('vgg_digits', b=A)])
    first, second = table(grid, 'a', tmp_path).split('## ')[1:]
    assert first.startswith('resnet8_digits\n') and '| a | 5 |' in first and '| b | 5 |' in first
    assert second.startswith('vgg_digits\n') and '| a |' not in second
    row = next(line for line in second.splitlines() if line.startswith('| b |'))
    assert row.split(' | ')[-3] == ''  # no baseline to give the cost by


def test_methods_that_are_not_in_every_block_are_told(tmp_path):
    both = [runs('resnet8_digits', a=A, b=B), runs('vgg_digits', a=A, b=B)]
    assert 'not ranked' not in table(pd.concat(both), 'a', tmp_path)
    text = table(pd.concat([*both, runs('vgg_digits', c=A, d=B)]), 'a', tmp_path)
    assert 'Not in every block, so not ranked: c, d.\n' in text


def test_the_settings_that_were_tried_are_told(tmp_path):
    tried = dict(block='x', method='dml', setting='dml-tau=2', config='dml_x.py', chosen=False)
    settings = [
        dict(tried, options={'model.distiller.tau': tau}, accuracy=70 + tau, chosen=tau == 3)
        for tau in (2, 3)
    ]
    settings.append(dict(tried, options={}, accuracy=None))
    settings.append(dict(tried, method='kd', config='kd_x.py', options={}, accuracy=7, chosen=True))
    sweep = dict(held_out='1/5', seeds=[0, 1], untuned=['kd'], settings=settings)
    (tmp_path / 'sweep.json').write_text(json.dumps(sweep))
    text = table(runs(dml=A, kdcl=B), 'dml', tmp_path)
    lines = text.split('## Settings')[1].splitlines()
    assert lines[4] == '| dml | dml_x.py | model.distiller.tau=2 | 72.00 |  |'
    assert lines[5] == '| dml | dml_x.py | model.distiller.tau=3 | 73.00 | yes |'
    assert lines[6] == '| dml | dml_x.py |  | failed |  |'
    assert lines[-2:] == [
        'Not tuned: kd.', 'Compared without a sweep, as configured: kdcl.'
    ]  # fmt: skip


def test_of_two_configs_of_a_method_the_one_without_a_sweep_is_named(tmp_path):
    """The second one to be compared is called otherwise, and is the one that was swept."""
    dml = dict(block='x', method='dml', setting='dml-half', config='dml-half_x.py', options={},
               accuracy=70, chosen=True)  # fmt: skip
    sweep = dict(held_out='1/5', seeds=[0], untuned=[], settings=[dml])
    (tmp_path / 'sweep.json').write_text(json.dumps(sweep))
    frame = runs(dml=A, second=B).replace({'second_x.py': 'dml-half_x.py', 'second': 'dml-half_x'})
    assert table(frame, 'dml', tmp_path).endswith('without a sweep, as configured: dml.\n')


def test_calibration_has_a_table_where_it_was_measured(tmp_path):
    frame = runs(a=A, b=B)
    assert 'NLL' not in table(frame, 'a', tmp_path)
    frame = frame.assign(nll=frame['last'] / 100, ece=3.0, disagreement=5.0, kl=0.125)
    text = table(frame, 'a', tmp_path)
    header, _, row = (line.split(' | ') for line in text.split('\n\n')[1].splitlines()[:3])
    assert row[header.index('NLL mean of students')] == (
        f'{np.mean(A) / 100:.3f} ± {np.std(A, ddof=1) / 100:.3f}'
    )
    assert row[header.index('ECE mean of students')] == '3.00 ± 0.00'
    assert row[header.index('disagreement')] == '5.00 ± 0.00'
    assert row[-1].startswith('0.125 ± 0.000')  # KL
    assert 'negative log-likelihood in nats' in text


def test_cells_of_fewer_runs_say_so(tmp_path):
    frame = runs(a=A, b=B)
    assert '(n = ' not in table(frame, 'a', tmp_path)
    frame.loc[frame['seed'].eq(4) & frame['method'].eq('b'), 'last'] = np.nan
    row = next(r for r in table(frame, 'a', tmp_path).splitlines() if r.startswith('| b |'))
    assert f'| b | 5 | {np.mean(B[:4]):.2f} ± {np.std(B[:4], ddof=1):.2f} (n = 4) |' in row


def test_different_seeds_are_told(tmp_path):
    assert 'different seeds' not in table(runs(a=A, b=B), 'a', tmp_path)
    assert 'different seeds' in table(runs(a=A, b=B[:3]), 'a', tmp_path)
    grid = pd.concat([runs('x', a=A, b=B), runs('y', a=A[:3], b=B[:3])])
    assert 'different seeds' not in table(grid, 'a', tmp_path)


def test_captions_speak_of_the_tests_that_there_are(tmp_path):
    assert 'corrected by Holm' in table(runs(a=A, b=B), 'a', tmp_path)
    few = table(runs(a=A, b=B[:4]), 'a', tmp_path)
    assert 'corrected by Holm' not in few and 'no p-value for fewer than five seeds' in few
    assert 'p-value' not in table(runs(a=A), 'a', tmp_path)
    grid = pd.concat([runs('x', a=A, b=B), runs('y', b=B)])
    assert 'Nothing is compared in y: a is not there.' in table(grid, 'a', tmp_path)


def test_different_devices_are_told_where_they_are_known(tmp_path):
    frame = runs(a=A, b=B)
    frame.loc[frame['method'] == 'b', 'device'] = 'A100, 1 thread'
    assert 'different devices' not in table(frame, 'a', tmp_path)  # what the others had is unknown
    frame.loc[frame['method'] == 'a', 'device'] = 'EPYC, 2 threads'
    assert 'does not tell apart: EPYC, 2 threads; A100, 1 thread.' in table(frame, 'a', tmp_path)


def test_different_numbers_of_processes_are_told_where_they_are_known(tmp_path):
    frame = runs(a=A, b=B)
    frame.loc[frame['method'] == 'b', 'processes'] = 4
    assert 'numbers of processes' not in table(frame, 'a', tmp_path)
    frame.loc[frame['method'] == 'a', 'processes'] = 1
    assert 'numbers of processes (1, 4)' in table(frame, 'a', tmp_path)
