"""Trains several configs over several seeds, under one set of conditions."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..engine.results import write_json
from .checkpoints import check_model, check_teacher
from .checks import check_folder, check_scored
from .comparison import (
    SWEEP,
    Comparison,
    Entry,
    config_file,
    name_entries,
    read_comparison,
    read_config,
    read_sweep,
    run_folder,
    stored_config,
    write_comparison,
    write_config,
)
from .conditions import NOT_SET, check_conditions, differences, warn_of_long_ramp_up
from .data_checks import check_data
from .lock import locked
from .plan import show_plan
from .report import report
from .run_all import run_all
from .slurm import Run, Slurm, log_of
from .sweep import Setting, Sweep, all_settings, choose, one_of_each

Configs = dict[Entry, Config]

FROM_STUDENTS = ('model.distiller.in_channels', 'model.distiller.num_classes')
"""What a config may say or leave to the students' heads, which is the same."""


def compare(
    configs: Sequence[str | Path],
    seeds: Sequence[int],
    work_dir: str | Path,
    baseline: str | None = None,
    jobs: int | None = None,
    allow: Sequence[str] = (),
    cfg_options: dict[str, Any] | None = None,
    sweep: Sweep | None = None,
    dry_run: bool = False,
    slurm: Slurm | None = None,
) -> None:
    """Train every config with every seed, and write a report.

    A seed means the same initial weights of the students, the same order of the data and the same
    augmentation for every config. (mmrazor's own algorithms start from other weights.)
    Runs that are finished are not run again, and a run that was cut off goes on. A run that fails
    is reported, the others go on. Configs that are compared in the same work dir later join those
    that are there.

    Args:
        configs: Config files, called ``<method>_<network>_<recipe>_<data>.py``. Those of one
            network and data set are a block, whose conditions have to be the same. A second config
            of a method in a block gets a name of its own.
        seeds: Random seeds.
        work_dir: Folder for the runs and the report, see :func:`mfef_mmrazor.apis.report`.
        baseline: Method that the others are compared with; by default the first of the work dir.
        jobs: Runs at a time. On this machine one by default, and the processors are shared out
            among them; on Slurm as many as it has room for.
        allow: Conditions in which the configs may differ, such as ``model.students``, or parts of
            them, such as ``train_dataloader.dataset.pipeline``.
        cfg_options: Values to override in every config, by dotted key.
        sweep: Settings to try on held-out training images first; only the best one of each method
            goes on to the seeds. The trials are a comparison of their own, in the folder ``sweep``
            of the work dir. Those that fail are not chosen. A later sweep in the same work dir
            tries further methods, with as many settings and the same seeds, or other networks and
            data sets, with its own.
        dry_run: Only check everything, and say what would run and for about how long.
        slurm: Run them as jobs of a cluster, not on this machine.

    Raises:
        ValueError: There is no seed or no job; or two configs are called alike; or they differ in a
            condition; or a config is not one to train; or the work dir has runs of
            another version of a config; or there is no such baseline, or no such condition to
            allow; or a sweep is not fair, also with an earlier one of the work dir, or a method
            does not take a setting of it.
        RuntimeError: Another comparison is at work in the work dir; or a run failed: raised when
            the others have ended and the report is written; or all settings of a method failed.
        FileNotFoundError: A config, its data or its trained teacher is not there.
        NotADirectoryError: The work dir, or a folder above it, is a file.
    """
    work_dir = Path(work_dir).resolve()
    check_folder(work_dir)
    paths, methods = [Path(path) for path in configs], None
    options, record = [cfg_options or {}] * len(paths), None
    if sweep is not None:
        chosen, record = tune(
            paths, cfg_options or {}, sweep, work_dir, baseline, jobs, allow, dry_run, slurm
        )
        paths, methods = [each.path for each in chosen], [each.method for each in chosen]
        options = [each.options for each in chosen]
    stored = read_comparison(work_dir)
    earlier, entries = name_entries([path.name for path in paths], entries_of(stored), methods)
    cfgs = [read_config(path, own) for path, own in zip(paths, options, strict=True)]
    baseline = baseline or (stored.baseline if stored else None)
    found = dict(zip(entries, cfgs, strict=True))
    if sweep is None or not dry_run:
        check_unchanged(found, work_dir)
    failed = compare_all(
        found, earlier, seeds, work_dir, baseline, jobs, allow, dry_run, slurm, record
    )
    if failed:
        raise RuntimeError(
            f'{len(failed)} of {len(found) * len({*seeds})} runs failed: '
            + ', '.join(str(log_of(work_dir, run)) for run in failed)
        )


def tune(
    paths: Sequence[Path],
    cfg_options: dict[str, Any],
    sweep: Sweep,
    work_dir: Path,
    baseline: str | None,
    jobs: int | None,
    allow: Sequence[str],
    dry_run: bool,
    slurm: Slurm | None,
) -> tuple[list[Setting], dict[str, Any] | None]:
    """Train every setting on four fifths of the training images; args as of :func:`compare`.

    Returns:
        The best setting of every method, and the record of all, see :func:`~.sweep.choose`. In a
        dry run any setting stands for the best one, and there is no record.
    """
    trials_dir = work_dir / 'sweep'
    stored, tried = read_sweep(work_dir), entries_of(read_comparison(trials_dir))
    settings = all_settings(paths, cfg_options, sweep, stored, tried)
    known = [entry.method for entry in entries_of(read_comparison(work_dir))]
    _check_baseline(baseline, [*known, *(setting.method for setting in settings)])
    trials = {setting.entry: setting.trial for setting in settings}
    check_unchanged(trials, trials_dir)
    earlier, first = [], None
    if stored and tried:
        earlier = tried
        # the first trial may have failed, a chosen one has not
        first = next(each['setting'] for each in stored['settings'] if each['chosen'])
    # a trial that fails, as settings may, is not chosen
    compare_all(trials, earlier, sweep.seeds, trials_dir, first, jobs, allow, dry_run, slurm)
    return (one_of_each(settings), None) if dry_run else choose(settings, sweep, work_dir)


def compare_all(
    configs: Configs,
    earlier: Sequence[Entry],
    seeds: Sequence[int],
    work_dir: Path,
    baseline: str | None,
    jobs: int | None,
    allow: Sequence[str],
    dry_run: bool,
    slurm: Slurm | None,
    record: dict[str, Any] | None = None,
) -> list[Run]:
    """Check the configs, train them with every seed, and write the report.

    Args as of :func:`compare`; ``record`` is the sweep's, see :func:`~.sweep.choose`.

    Returns:
        The runs that failed.
    """
    seeds = list(dict.fromkeys(seeds))
    if not seeds or (jobs is not None and jobs < 1):
        raise ValueError(f'found seeds={seeds} and jobs={jobs}, expected at least one of each')
    new = {entry.name: entry for entry in [*earlier, *configs]}
    everything = Comparison(list(new.values()), baseline or next(iter(new.values())).method)
    _check_baseline(baseline, [entry.method for entry in everything.entries])
    for entry, cfg in configs.items():
        check_config(entry, cfg)
        warn_of_long_ramp_up(entry.name, cfg)
    for entries in everything.blocks.values():
        check_conditions(
            {
                e.name: configs[e] if e in configs else stored_config(work_dir, e.name)
                for e in entries
            },
            allow,
        )
    if dry_run:
        show_plan(configs, seeds, work_dir, jobs, slurm)
        return []
    runs = [(entry.name, seed) for seed in seeds for entry in configs]
    with locked(work_dir):
        if record is not None:
            write_json(work_dir / SWEEP, record)
        for entry, cfg in configs.items():
            write_config(work_dir, entry.name, cfg)
        write_comparison(work_dir, everything)
        failed = run_all(runs, work_dir, jobs, slurm)
        try:
            report(work_dir)
        except (ValueError, FileNotFoundError) as error:
            if not failed:
                raise
            print(f'the report was not renewed: {error}', flush=True)  # no run of the baseline, say
    return failed


def entries_of(stored: Comparison | None) -> list[Entry]:
    """What there is in a work dir already."""
    return stored.entries if stored else []


def check_config(entry: Entry, cfg: Config) -> None:
    """Raise if a config cannot be built, trained and scored, or its data or teacher is missing."""
    check_scored(cfg, entry.name)
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    check_teacher(cfg)
    check_model(copy.deepcopy(cfg))


def _check_baseline(baseline: str | None, methods: Sequence[str]) -> None:
    if baseline is not None and baseline not in methods:
        known = ', '.join(dict.fromkeys(methods))
        raise ValueError(f'baseline={baseline!r}, expected one of {known}')


def check_unchanged(configs: Configs, work_dir: Path) -> None:
    """Raise a ``ValueError`` if the work dir's runs were made with other configs than these."""
    for entry, cfg in configs.items():
        if config_file(work_dir, entry.name).is_file():
            stored = stored_config(work_dir, entry.name).to_dict()
            keys = [
                (key, a, b)
                for key, a, b in differences(stored, cfg.to_dict())
                if not (key in FROM_STUDENTS and NOT_SET in (a, b))
            ]
            if keys:
                runs = run_folder(work_dir, entry.name, 0).parent
                raise ValueError(
                    f'{work_dir} has runs of another {entry.name}: '
                    + ', '.join(f'{key} was {a!r}, is {b!r}' for key, a, b in keys[:4])
                    + '. Choose another work dir; or, to train this one anew, delete '
                    f'{config_file(work_dir, entry.name)} and {runs}'
                )
