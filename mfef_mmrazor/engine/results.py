"""What a run leaves behind: accuracies of every predictor, by epoch, and how they came about."""

import io
import itertools
import json
import logging
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .checkpoint_files import POINTER, write_atomically
from .loss_terms import Shares

if TYPE_CHECKING:  # slow to import, and few need it
    from matplotlib.figure import Figure

PACKAGES = (
    'mfef_mmrazor', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain',
    'mmrazor', 'numpy',
)  # fmt: skip
SCHEMA = 2
"""Version of ``results.json``, as ``docs/results.md`` describes it; the first had no number."""
CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')
METRIC = 'accuracy/top1'
# what stands for a predictor where there is no top-1 accuracy; else the first number there is
PREFERRED = (METRIC, 'multi-label/mAP', 'single-label/f1-score', 'multi-label/f1-score')

History = list[dict[str, Any]]
"""One entry a validation: ``{'epoch': 3, 'student0': 61.2, 'student1': ...}``, in percent.

A training by iterations has ``'iter'`` in the place of ``'epoch'``.
"""
UNITS = dict(epoch='epoch', iter='iteration')
"""What a run goes by: name in its history and in words."""


def primary_metric(metrics: dict[str, Any]) -> str | None:
    """Name of the metric that stands for a predictor in tables and curves; higher is better.

    Example:
        >>> primary_metric({'accuracy/top5': 90.0, 'accuracy/top1': 70.0})
        'accuracy/top1'
    """
    plain = [key for key in metrics if f'student0.{key}' in metrics] or list(metrics)
    numbers = [
        key
        for key in plain
        if key not in ('time', 'data_time') and isinstance(metrics[key], (int, float))
    ]
    return next((key for key in PREFERRED if key in plain), next(iter(numbers), None))


def metric_label(metric: str) -> str:
    """How a metric is called in tables and pictures."""
    return 'top-1 accuracy (%)' if metric == METRIC else metric


def accuracies(metrics: dict[str, Any]) -> dict[str, float]:
    """Primary metric by predictor, from the metrics of :class:`OnlineDistillValLoop`.

    A model that is trained alone has one predictor; it is called ``model``.
    """
    metric = primary_metric(metrics)
    named = {
        key.removesuffix(f'.{metric}'): round(float(value), 4)  # float32 until here
        for key, value in metrics.items()
        if key.endswith(f'.{metric}')
    }
    return named or ({'model': round(float(metrics[metric]), 4)} if metric in metrics else {})


def calibration(metrics: dict[str, Any], predictors: Iterable[str]) -> dict[str, dict[str, float]]:
    """NLL and ECE by predictor, and under ``students`` how far these differ, where measured.

    Example:
        >>> calibration({'fused.nll': 0.5, 'fused.ece': 2.0, 'students.kl': 0.1}, ['fused'])
        {'fused': {'nll': 0.5, 'ece': 2.0}, 'students': {'kl': 0.1}}
    """
    found = {
        name: {
            key: round(float(metrics[source]), 4)
            for key in ('nll', 'ece', 'disagreement', 'kl')
            for source in (key if name == 'model' else f'{name}.{key}',)
            if source in metrics
        }
        for name in (*predictors, 'students')
    }
    return {name: measured for name, measured in found.items() if measured}


def unit_of(history: History) -> str:
    """What the run goes by, one of ``UNITS``."""
    return next(unit for unit in UNITS if unit in history[-1])


def summarize(
    history: History, calibration: Sequence[dict[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """Last and best epoch of every predictor, with NLL and ECE where they were measured."""
    unit = unit_of(history)
    measured = {entry[unit]: entry for entry in calibration}

    def of(entry: dict[str, Any], name: str) -> dict[str, Any]:
        known = measured.get(entry[unit], {}).get(name, {})
        return {unit: entry[unit], 'accuracy': entry[name], **known}

    summary = {}
    for name in (name for name in history[-1] if name != unit):
        best = max((entry for entry in history if name in entry), key=lambda entry: entry[name])
        summary[name] = dict(last=of(history[-1], name), best=of(best, name))
    return summary


def summarize_students(calibration: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the students differ at the last epoch; empty where it was not measured."""
    if not calibration or 'students' not in calibration[-1]:
        return {}
    last = calibration[-1]
    unit = unit_of([last])
    return dict(last={unit: last[unit], **last['students']})


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that this package wrote.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError) as error:
        raise ValueError(f'{path} is damaged: {error}. Remove it and run again') from None


def read_results(path: Path) -> dict[str, Any]:
    """The content of a ``results.json`` of this or an older version of this package.

    Raises:
        ValueError: It is of a newer version, or damaged.
    """
    results = read_json(path)
    if results.get('schema', 1) > SCHEMA:
        raise ValueError(
            f'{path} has schema {results["schema"]}, this version of mfef_mmrazor reads {SCHEMA} '
            'and older; install a newer one'
        )
    return {'metric': METRIC, 'students': {}, **results}


def package_versions() -> dict[str, str]:
    """Versions of what the numbers depend on, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """What a run's time depends on: the GPU, or else the processor, and torch's threads.

    Example: ``'AMD EPYC 7B13, 2 threads'``.
    """
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" * (threads > 1)}'


def processor_name() -> str:
    """The processor's model as Linux names it; the platform module has its architecture there."""
    path = Path('/proc/cpuinfo')
    found = re.search(r'^model name\s*: (.+)$', path.read_text(), re.M) if path.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def git_revision() -> str | None:
    """Commit of this package's source, with ``-dirty`` where it was changed; None outside git."""
    folder = Path(__file__).parent

    def git(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(['git', *args], cwd=folder, capture_output=True, text=True)

    try:
        # a virtual environment may lie inside somebody else's repository
        if git('ls-files', '--error-unmatch', Path(__file__).name).returncode:
            return None
        return git('describe', '--always', '--dirty', '--abbrev=12', '--exclude=*').stdout.strip()
    except OSError:
        return None


def peak_memory_mb() -> int | None:
    """Memory that torch has reserved on the GPU, in MiB, or else the most that the process had.

    Windows does not tell it, without a GPU: there it is None.
    """
    if torch.cuda.is_available():
        # mmengine resets the peaks with every line that it logs, but what is reserved stays so
        return torch.cuda.max_memory_reserved() >> 20
    try:
        import resource
    except ImportError:
        return None
    in_bytes = sys.platform == 'darwin'  # elsewhere in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if in_bytes else 10)


def deployed_size(network: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Parameters of a network, and multiply-adds of its convolutions and linear layers.

    Args:
        network: What is deployed.
        inputs: One preprocessed image, (1, 3, H, W).
    """
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(inputs)
    network.train(training)
    counts = counter.get_flop_counts().get('Global', {})
    layers = torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm
    return dict(
        parameters=sum(p.numel() for p in network.parameters()),
        macs=sum(counts.get(layer, 0) for layer in layers) // 2,  # one is two operations
    )


def put_aside(work_dir: Path) -> None:
    """Move what an earlier run has left in a work dir into a folder ``earlier_<n>`` there."""
    names = ('results.json', 'curves.png', POINTER, *CHECKPOINTS)
    found = [path for name in names for path in work_dir.glob(name)]
    if not found:
        return
    folder = next(
        folder for n in itertools.count(1) if not (folder := work_dir / f'earlier_{n}').exists()
    )
    folder.mkdir()
    for path in found:
        path.rename(folder / path.name)
    print_log(
        f'{work_dir} had results or checkpoints of an earlier run, which are now in {folder}. To '
        'go on with a run: --resume',
        logger='current',
        level=logging.WARNING,
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write all of a file or nothing."""
    write_atomically(path, f'{json.dumps(content, indent=2)}\n'.encode())


def write_figure(path: Path, figure: 'Figure', dpi: int = 150) -> None:
    """Write all of a picture or nothing."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=dpi)
    write_atomically(path, buffer.getbuffer())


def draw_curves(
    path: Path,
    history: History,
    title: str,
    metric: str = METRIC,
    calibration: Sequence[dict[str, Any]] = (),
    shares: Shares | None = None,
) -> 'Figure':
    """Primary metric of every predictor over the epochs or iterations, as the picture written.

    Below it, as far as they were measured, how often two students predict the same class, and the
    share of each term in the training loss.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    unit, names, shares = unit_of(history), list(summarize(history)), shares or {}
    agreement = {
        entry[unit]: 100 - entry['students']['disagreement']
        for entry in calibration
        if 'students' in entry
    }
    heights = [max(4.5, 1 + 0.2 * len(names)), *[1.5] * bool(agreement), *[1.5] * bool(shares)]
    figure = Figure(figsize=(9, sum(heights)), layout='constrained')
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    axes, *below = panels[:, 0]
    beside = dict(loc='upper left', bbox_to_anchor=(1, 1), fontsize='small')  # not over the curves
    if agreement:
        below[0].plot([*agreement], [*agreement.values()], color='black', linewidth=1.5)
        below[0].set(ylabel="students'\nagreement (%)")
    for term in next(iter(shares.values()), ()):
        label = "students' own" if term == 'own' else term.removeprefix('distill.')
        below[-1].plot([*shares], [share[term] for share in shares.values()], label=label)
    if shares:
        below[-1].set(ylabel='share of the\nloss (%)', ylim=(0, None))
        below[-1].legend(**beside)
    for i, name in enumerate(names):
        entries = [entry for entry in history if name in entry]
        together = not name.startswith(('student', 'model'))
        axes.plot(
            [entry[unit] for entry in entries],
            [entry[name] for entry in entries],
            color=colormaps['tab10' if len(names) <= 10 else 'turbo'](
                i if len(names) <= 10 else i / (len(names) - 1)
            ),
            linestyle='--' if together else '-',
            linewidth=1.5 if len(names) <= 10 else 0.9,
            marker='o' if len(entries) <= 30 else None,
            markersize=3,
            label=f'{name}: {entries[-1][name]:.2f}' + ' %' * (metric == METRIC),
        )
    axes.set(title=title, ylabel=metric_label(metric))
    figure.axes[-1].set_xlabel(UNITS[unit])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for panel in figure.axes:
        panel.grid(alpha=0.3)
    axes.legend(title=f'last {UNITS[unit]}', **beside)
    write_figure(path, figure)
    return figure
