"""Tables, statistics and a picture of the runs of a comparison."""

import json
from pathlib import Path

import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ..engine.results import METRIC, UNITS, metric_label, unit_of, write_json

COMPARISON = 'comparison.json'
MIN_SEEDS = 5
STUDENTS = 'mean of students'
CAPTION = """\
{metric} at the last epoch, mean ± standard deviation over n seeds; "best epoch" is
the mean of the students, each at the epoch where it scored best. "student0" is what a method with a
leader (OKDDip, FFSD) is for; the others' students are alike. "cost" is the training time relative
to {baseline}, and says little where the machine had other work to do; parameters and MACs
(convolutions and linear layers, one image) are those of student0 as deployed.
"""


def run_folder(work_dir: Path, method: str, seed: int) -> Path:
    """Where a run's results are."""
    return work_dir / 'runs' / method / f'seed{seed}'


def report(work_dir: str | Path, baseline: str | None = None) -> None:
    """Write ``runs.csv``, ``table.md``, ``stats.json`` and ``accuracy.png`` from the stored runs.

    The same runs give the same bytes.

    Args:
        work_dir: Folder of :func:`mfef_mmrazor.apis.compare`.
        baseline: Method to compare the others with; by default that of the comparison.

    Raises:
        FileNotFoundError: There is no comparison, or no finished run in it.
        ValueError: The baseline has no finished run, or a run was not scored at its last epoch, or
            runs were scored by different metrics.
    """
    work_dir = Path(work_dir)
    if not (work_dir / COMPARISON).is_file():
        raise FileNotFoundError(f'{work_dir} is no folder of a comparison: no {COMPARISON} in it')
    comparison = json.loads((work_dir / COMPARISON).read_text())
    baseline = baseline or comparison['baseline']
    runs, metric = read_runs(work_dir, comparison['methods'])
    if baseline not in set(runs['method']):
        raise ValueError(
            f'the baseline {baseline!r} has no finished run; finished: '
            + ', '.join(runs['method'].unique())
        )
    runs.to_csv(work_dir / 'runs.csv', index=False)
    (work_dir / 'table.md').write_text(table(runs, baseline, metric))
    write_json(work_dir / 'stats.json', statistics(runs, baseline, metric))
    draw(runs, work_dir / 'accuracy.png', metric)


def read_runs(work_dir: Path, methods: list[str]) -> tuple[pd.DataFrame, str]:
    """One row a run and predictor: accuracies in percent, seconds, size of what is deployed.

    And the name of the metric, where it is another than accuracy.
    """
    rows, metrics = [], {}
    for method in methods:
        for path in sorted(run_folder(work_dir, method, 0).parent.glob('seed*/results.json')):
            results = json.loads(path.read_text())
            check_last_epoch(path, results)
            metrics[results.get('metric', METRIC)] = path
            common = dict(method=method, seed=results['seed'], revision=results['git_revision'])
            cost = dict(train_seconds=results['train_seconds'], **results['deployed'])
            for name, accuracy in _predictors(results['predictors']).items():
                rows.append({**common, 'predictor': name, **accuracy, **cost})
    if not rows:
        raise FileNotFoundError(f'no finished run in {work_dir / "runs"}')
    if len(metrics) > 1:
        found = ', '.join(f'{metric}: {path}' for metric, path in metrics.items())
        raise ValueError(f'runs were scored by different metrics ({found})')
    frame = pd.DataFrame(rows)
    order = {method: i for i, method in enumerate(methods)}
    frame = frame.sort_values(
        ['method', 'seed'], key=lambda c: c.map(order) if c.name == 'method' else c, kind='stable'
    ).reset_index(drop=True)
    return frame, next(iter(metrics))


def check_last_epoch(path: Path, results: dict) -> None:
    """Raise a ``ValueError`` if a run's last accuracies are not those of its last epoch."""
    unit = unit_of(results['history'])
    scored, trained = max(entry[unit] for entry in results['history']), results[f'{unit}s']
    if scored != trained:
        raise ValueError(
            f'{path}: the last {UNITS[unit]} that was scored is {scored} of {trained}. '
            'Remove the folder and compare again'
        )


def _predictors(predictors: dict) -> dict[str, dict[str, float]]:
    """Accuracy at the last and the best epoch: of each predictor, and over the students."""
    found = {
        name: dict(last=p['last']['accuracy'], best=p['best']['accuracy'])
        for name, p in predictors.items()
    }
    students = pd.DataFrame([v for k, v in found.items() if k.startswith(('student', 'model'))])
    over = {STUDENTS: students.mean().to_dict(), 'best student': students.max().to_dict()}
    return {**over, **found}


def table(runs: pd.DataFrame, baseline: str, metric: str = METRIC) -> str:
    """A row a method, in Markdown: mean and standard deviation over the seeds."""
    of_each = runs.drop_duplicates(['method', 'seed']).set_index(['method', 'seed'])
    seconds = of_each['train_seconds']
    rows = []
    for method, of_method in runs.groupby('method', sort=False):
        cells = {'method': method, 'n': str(of_method['seed'].nunique())}
        for predictor in (STUDENTS, 'best student', 'student0', 'ensemble', 'fused'):
            cells[predictor] = _mean_std(of_method[of_method['predictor'] == predictor]['last'])
        students = of_method[of_method['predictor'] == STUDENTS]
        cells['best epoch'] = _mean_std(students['best'])
        cost = (seconds[method] / seconds[baseline]).dropna()
        cells['cost'] = f'{cost.mean():.2f}' if len(cost) else ''
        cells['parameters'] = f'{students["parameters"].iloc[0]:,}'
        cells['MACs'] = f'{students["macs"].iloc[0] / 1e6:.2f} M'
        rows.append(cells)
    header = list(rows[0])
    lines = [header, ['---', *('---:' for _ in header[1:])], *(list(row.values()) for row in rows)]
    rows_text = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    shown = 'Top-1 accuracy in percent' if metric == METRIC else metric
    caption = CAPTION.format(metric=shown, baseline=baseline)
    revisions = runs['revision'].dropna().unique()
    if len(revisions) > 1:
        caption += f'The runs are of different revisions: {", ".join(revisions)}.\n'
    return f'{rows_text}\n\n{caption}'


def _mean_std(values: pd.Series) -> str:
    if values.empty:
        return ''
    return f'{values.mean():.2f}' + (f' ± {values.std():.2f}' if len(values) > 1 else '')


def statistics(runs: pd.DataFrame, baseline: str, metric: str = METRIC) -> dict:
    """Each method against the baseline: differences by seed, interval, tests, Holm-corrected."""
    by_seed = runs[runs['predictor'] == STUDENTS].pivot(
        index='seed', columns='method', values='last'
    )
    comparisons = []
    for method in (m for m in runs['method'].unique() if m != baseline):
        pairs = (by_seed[method] - by_seed[baseline]).dropna()
        comparisons.append(dict(method=method, **compare_pairs(pairs)))
    for test in ('t_test', 'wilcoxon'):
        tested = [c for c in comparisons if isinstance(c[test], dict)]
        if tested:
            corrected = multipletests([c[test]['p'] for c in tested], method='holm')[1]
            for each, p in zip(tested, corrected, strict=True):
                each[test]['p_holm'] = float(p)
    shown = f'{metric}, {STUDENTS}, last epoch'
    if metric == METRIC:
        shown = f'top-1 accuracy, {STUDENTS}, last epoch, percent'
    return dict(metric=shown, baseline=baseline, comparisons=comparisons)


def compare_pairs(differences: pd.Series) -> dict:
    """Statistics of paired differences (index: seeds)."""
    n = len(differences)
    found: dict = dict(
        n=n, seeds=[int(s) for s in differences.index], differences=differences.round(6).tolist()
    )
    if n:
        found['mean'] = float(differences.mean())
    if n > 1:
        half = stats.t.ppf(0.975, n - 1) * differences.sem()
        found['interval_95'] = [found['mean'] - half, found['mean'] + half]
    if n < MIN_SEEDS:
        return dict(found, t_test='too few seeds', wilcoxon='too few seeds')
    if (differences == 0).all():
        return dict(found, t_test=dict(p=1.0), wilcoxon=dict(p=1.0))
    return dict(
        found,
        t_test=dict(p=float(stats.ttest_1samp(differences, 0).pvalue)),
        wilcoxon=dict(p=float(stats.wilcoxon(differences).pvalue)),
    )


def draw(runs: pd.DataFrame, path: Path, metric: str = METRIC) -> None:
    """A dot a seed, the mean and its 95 % interval a method."""
    from matplotlib.figure import Figure

    students = runs[runs['predictor'] == STUDENTS]
    methods = list(students['method'].unique())
    figure = Figure(figsize=(6.5, 1.2 + 0.45 * len(methods)), layout='constrained')
    axes = figure.subplots()
    for row, method in enumerate(methods):
        values = students[students['method'] == method]['last']
        axes.plot(values, [row] * len(values), 'o', color='0.6', markersize=4, zorder=1)
        half = stats.t.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else 0
        axes.errorbar(values.mean(), row, xerr=half, fmt='D', color='C0', capsize=3, zorder=2)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
    axes.set_xlabel(
        f'{metric_label(metric)}, {STUDENTS}, last epoch\n'
        'dots: seeds, bars: 95 % interval of the mean'
    )
    figure.savefig(path, dpi=200, metadata={'Software': None})
