"""Trains several configs over several seeds, under one set of conditions."""

import json
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..engine.results import write_json
from ..models.builder import nearest
from .checkpoints import check_teacher
from .checks import check_folder, check_training
from .completion import is_scored
from .config import load_config, value_at
from .data_checks import check_data
from .lock import locked
from .report import COMPARISON, report, run_folder
from .run_all import run_all
from .slurm import Slurm

# What has to be the same in all configs: data, its order and augmentation, networks, optimization.
CONDITIONS = (
    'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'param_scheduler',
    'train_cfg', 'randomness', 'load_from', 'auto_scale_lr', 'custom_hooks',
    'model.data_preprocessor', 'model.students', 'model.shared_stages',
)  # fmt: skip


def compare(
    configs: Sequence[str | Path],
    seeds: Sequence[int],
    work_dir: str | Path,
    baseline: str | None = None,
    jobs: int | None = None,
    allow: Sequence[str] = (),
    cfg_options: dict | None = None,
    slurm: Slurm | None = None,
) -> None:
    """Train every config with every seed, and write what came of it.

    A seed means the same initial weights of the students, the same order of the data and the same
    augmentation for every config. (mmrazor's own algorithms start from other weights.)
    Runs that are finished are not run again, and a run that was cut off goes on. A run that fails
    is reported, the others go on. Configs that are compared in the same work dir later join those
    that are there.

    Args:
        configs: Config files. A method is called what comes before the first ``_`` of the name.
        seeds: Random seeds.
        work_dir: Folder for the runs and the report, see :func:`mfef_mmrazor.apis.report`.
        baseline: Method that the others are compared with; by default the first of the work dir.
        jobs: Runs at a time. On this machine one by default, and the processors are shared out
            among them; on Slurm as many as it has room for.
        allow: Conditions in which the configs may differ, such as ``model.students``, or parts of
            them, such as ``train_dataloader.dataset.pipeline``.
        cfg_options: Values to override in every config, by dotted key.
        slurm: Run them as jobs of a cluster, not on this machine.

    Raises:
        ValueError: There is no seed or no job; or two configs are called alike; or they differ in a
            condition; or a config is not one to train; or the work dir has runs of
            another version of a config; or there is no such baseline, or no such condition to
            allow.
        RuntimeError: Another comparison is at work in the work dir; or a run failed: raised when
            the others have ended and the report is written.
        FileNotFoundError: A config, its data or its trained teacher is not there.
        NotADirectoryError: The work dir, or a folder above it, is a file.
    """
    seeds = list(dict.fromkeys(seeds))
    if not seeds or (jobs is not None and jobs < 1):
        raise ValueError(f'found seeds={seeds} and jobs={jobs}, expected at least one of each')
    work_dir = Path(work_dir).resolve()
    check_folder(work_dir)
    methods = read_configs(configs, cfg_options)
    check_unchanged(methods, work_dir)
    earlier, earlier_baseline = read_earlier(work_dir)
    everything = earlier | methods
    baseline = baseline or earlier_baseline or next(iter(methods))
    if baseline not in everything:
        raise ValueError(f'baseline={baseline!r}, expected one of {", ".join(everything)}')
    check_conditions(everything, allow)
    for name, cfg in methods.items():
        check_training(cfg)
        if not is_scored(cfg):
            raise ValueError(
                f'{name}: nothing to compare by; expected val_dataloader, val_cfg and val_evaluator'
            )
        check_data(cfg, 'train_dataloader', 'val_dataloader')
        check_teacher(cfg)
    runs = [(method, seed) for seed in seeds for method in methods]
    with locked(work_dir):
        (work_dir / 'configs').mkdir(exist_ok=True)
        for name, cfg in methods.items():
            cfg.dump(work_dir / 'configs' / f'{name}.py')
        write_json(work_dir / COMPARISON, dict(methods=list(everything), baseline=baseline))
        failed = run_all(runs, work_dir, jobs, slurm)
        try:
            report(work_dir)
        except (ValueError, FileNotFoundError):  # those of the baseline may be what failed
            if not failed:
                raise
    if failed:
        raise RuntimeError(
            f'{len(failed)} of {len(runs)} runs failed: '
            + ', '.join(str(run_folder(work_dir, *run) / 'run.log') for run in failed)
        )


def read_configs(configs: Sequence[str | Path], cfg_options: dict | None) -> dict[str, Config]:
    """Configs by the name of their method."""
    methods: dict[str, Config] = {}
    for path in configs:
        name = Path(path).stem.split('_')[0]
        if name in methods:
            raise ValueError(
                f'{path}: there is a config called {name!r} already; a method is called what comes '
                "before the first '_' of the file's name"
            )
        methods[name] = load_config(path, cfg_options=cfg_options)
        methods[name].pop('work_dir')
    return methods


def read_earlier(work_dir: Path) -> tuple[dict[str, Config], str | None]:
    """Configs by the name of their method, and the baseline, of what the work dir has already."""
    if not (work_dir / COMPARISON).is_file():
        return {}, None
    stored = json.loads((work_dir / COMPARISON).read_text())
    paths = {name: work_dir / 'configs' / f'{name}.py' for name in stored['methods']}
    return {name: Config.fromfile(path) for name, path in paths.items()}, stored['baseline']


def check_conditions(methods: dict[str, Config], allow: Sequence[str]) -> None:
    """Raise a ``ValueError`` that names the conditions in which the configs differ."""
    for name in allow:
        if not any(_is_part(name, condition) for condition in CONDITIONS):
            raise ValueError(
                f'allow: {name!r} is none of the conditions {", ".join(CONDITIONS)}'
                f'{nearest(name, CONDITIONS)}'
            )
    (first, reference), *others = methods.items()
    for name, cfg in others:
        unlike = {
            key: (a, b)
            for condition in CONDITIONS
            for key, a, b in differences(
                _condition(reference, condition), _condition(cfg, condition), condition
            )
            if not any(_is_part(key, allowed) for allowed in allow)
        }
        if unlike:
            raise ValueError(
                f'{first} and {name} differ in '
                + ', '.join(
                    f'{key} ({reprlib.repr(a)} and {reprlib.repr(b)})'
                    for key, (a, b) in unlike.items()
                )
                + '. Make them equal, or allow it with --allow '
                + ' '.join(key.removesuffix('.length') for key in unlike)
            )


def _is_part(key: str, whole: str) -> bool:
    return f'{key}.'.startswith(f'{whole}.')


def _condition(cfg: Config, name: str) -> Any:
    if name == 'model.students' and 'students' not in cfg.model:
        network = cfg.model.get('architecture', cfg.model)  # one, alone or in mmrazor's way
        return [{k: v for k, v in network.items() if k not in ('data_preprocessor', '_scope_')}]
    return value_at(cfg, name) or None


def differences(a: Any, b: Any, key: str = '') -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys in which two parts of a config differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            yield from differences(a.get(name), b.get(name), f'{key}.{name}'.lstrip('.'))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f'{key}.{i}'.lstrip('.'))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        yield f'{key}.length'.lstrip('.'), len(a), len(b)
    elif a != b:
        yield key, a, b


def check_unchanged(methods: dict[str, Config], work_dir: Path) -> None:
    """Raise a ``ValueError`` if the work dir's runs were made with other configs than these."""
    for name, cfg in methods.items():
        stored = work_dir / 'configs' / f'{name}.py'
        if stored.is_file():
            keys = list(differences(Config.fromfile(stored).to_dict(), cfg.to_dict()))
            if keys:
                raise ValueError(
                    f'{work_dir} has runs of another {name}: '
                    + ', '.join(f'{key} was {a!r}, is {b!r}' for key, a, b in keys[:4])
                    + '. Choose another work dir'
                )
