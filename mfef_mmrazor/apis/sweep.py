"""Settings of every method, tried on held-out training images; the best of each is kept."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..engine.hooks.held_out_hook import held_out
from .checkpoints import check_model
from .checks import check_scored
from .comparison import (
    Entry,
    is_finished,
    method_of,
    name_entries,
    read_config,
    read_sweep,
)
from .completion import SCORED_BY, is_called
from .slurm import log_of

SPLITS = 5


@dataclass
class Sweep:
    """What to try before a comparison, with as many settings for every method.

    Args:
        values: Values to try, by dotted key: all their combinations. A key of one method alone is
            ``<method>:<key>``. Several config files of a method, ``<method>-<setting>_...py``,
            are settings as well.
        seeds: Seeds of the trials.
        untuned: Methods that have no setting to try, such as ``independent``. They are trained as
            they are, and the report says so.

    Example:
        >>> sweep = Sweep({'model.distiller.tau': [2, 3], 'mfef:model.distiller.attention': [None]})
        >>> sweep.combinations('mfef')[1]
        {'model.distiller.tau': 3, 'model.distiller.attention': None}
        >>> sweep.combinations('dml')
        [{'model.distiller.tau': 2}, {'model.distiller.tau': 3}]
    """

    values: dict[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    untuned: Sequence[str] = ()

    def combinations(self, method: str) -> list[dict[str, Any]]:
        """Every combination of the values for a method, by dotted key."""
        own = {
            key.rpartition(':')[2]: values if isinstance(values, (list, tuple)) else [values]
            for key, values in self.values.items()
            if ':' not in key or key.partition(':')[0] == method
        }
        if method in self.untuned:
            return [{}]
        return [dict(zip(own, each, strict=True)) for each in itertools.product(*own.values())]


@dataclass
class Setting:
    """One trial of a method.

    Attributes:
        method: What is tuned: the config's method up to its first ``-``.
        path: The config file.
        options: Values to override in it, by dotted key.
        swept: Those of them that the sweep says.
        entry: Name and block of the trial.
        trial: The config with a fifth of the training images held out and scored.
    """

    method: str
    path: Path
    options: dict[str, Any]
    swept: dict[str, Any]
    entry: Entry
    trial: Config


def all_settings(
    paths: Sequence[Path],
    cfg_options: dict[str, Any],
    sweep: Sweep,
    stored: dict[str, Any] | None = None,
    earlier: Sequence[Entry] = (),
) -> list[Setting]:
    """Every setting of every method, checked.

    Args:
        paths: Config files.
        cfg_options: Values to override in all of them, by dotted key.
        sweep: What to try.
        stored: An earlier sweep of the work dir, see :func:`choose`, which this one joins.
        earlier: Its trials, which keep their names.

    Raises:
        ValueError: Methods have different numbers of settings; or one is there twice; or a method
            of the sweep is not among the configs; or a model cannot be built with a setting; or
            training images cannot be held out; or the earlier sweep does not go with this one.
    """
    _, entries = name_entries([path.name for path in paths])
    methods = [method_of(path.name).partition('-')[0] for path in paths]
    named = {key.partition(':')[0] for key in sweep.values if ':' in key} | {*sweep.untuned}
    if named - {*methods}:
        raise ValueError(
            f'sweep: no config of {", ".join(sorted(named - {*methods}))}; there are those of '
            f'{", ".join(dict.fromkeys(methods))}'
        )
    grid = len({entry.block for entry in [*earlier, *entries]}) > 1
    found = []
    for path, entry, method in zip(paths, entries, methods, strict=True):
        for swept in sweep.combinations(method):
            called = '-'.join([entry.method, *_words(swept)])
            name = f'{entry.block}/{called}' if grid else called
            own = Entry(name, called, entry.block, path.name)
            own = next((tried for tried in earlier if replace(tried, name=name) == own), own)
            options = {**cfg_options, **swept}
            trial = read_config(path, options)
            hold_out(trial, own.name)
            found.append(Setting(method, path, options, swept, own, trial))
    check_budget(found, sweep, stored)
    for setting in found:
        try:
            check_model(setting.trial)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{setting.entry.name}: {error}. A key of one method alone is METHOD:KEY'
            ) from None
    return found


def _words(swept: dict[str, Any]) -> list[str]:
    """``tau=2`` for each key, in characters that a file's name can have."""
    short = {key: key.rpartition('.')[2] for key in swept}
    uses = Counter(short.values())
    names = {key: word if uses[word] == 1 else key for key, word in short.items()}
    return [re.sub(r'[^\w.=+-]+', '_', f'{names[key]}={value}') for key, value in swept.items()]


def check_budget(
    settings: Sequence[Setting], sweep: Sweep, stored: dict[str, Any] | None = None
) -> None:
    """Raise a ``ValueError`` if a method has more settings than another one of its block."""
    named: dict[str, Setting] = {}
    for setting in settings:
        other = named.setdefault(setting.entry.name, setting)
        if other.swept != setting.swept:
            raise ValueError(
                f'sweep: {other.swept} and {setting.swept} would both be called {other.entry.name}'
            )
        if other is not setting:
            raise ValueError(f'sweep: {setting.entry.name} is there twice')
    check_joining(settings, sweep, stored)
    tried = [(each['block'], each['method'], each['untuned']) for each in rivals(settings, stored)]
    tried += [(s.entry.block, s.method, s.method in sweep.untuned) for s in settings]
    for block in dict.fromkeys(block for block, *_ in tried):
        counts = Counter(each for each in tried if each[0] == block)
        expected = {n for (*_, untuned), n in counts.items() if not untuned}
        if len(expected) > 1 or any(n > 1 for (*_, untuned), n in counts.items() if untuned):
            found = ', '.join(f'{block} {name}: {n}'.lstrip() for (_, name, _), n in counts.items())
            raise ValueError(
                f'sweep: found settings {found}; expected the same number for every method, and 1 '
                'for an untuned one. Add settings with METHOD:KEY=... or config files; name '
                'methods without any in --untuned'
            )


def check_joining(settings: Sequence[Setting], sweep: Sweep, stored: dict[str, Any] | None) -> None:
    """Raise a ``ValueError`` if an earlier sweep had settings that are left out, or other seeds."""
    if stored is None:
        return
    asked = {(s.entry.block, s.entry.method) for s in settings}
    methods = {(s.entry.block, s.method) for s in settings}
    left_out = [
        tried['setting']
        for tried in stored['settings']
        if (tried['block'], tried['method']) in methods
        and (tried['block'], tried['setting']) not in asked
    ]
    if left_out:
        raise ValueError(
            f'sweep: {", ".join(left_out)} was tried in this work dir before, and is not among the '
            'settings now. Give it as well, or choose another work dir'
        )
    for tried in rivals(settings, stored):
        if {*tried['seeds']} != {*sweep.seeds}:
            raise ValueError(
                f'sweep: {tried["setting"]} was tried in this work dir with seeds '
                f'{tried["seeds"]}, these would be with {[*sweep.seeds]}. Give the same seeds, or '
                'choose another work dir'
            )


def earlier_trials(
    settings: Sequence[Setting], stored: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The trials of an earlier sweep whose methods are not tried again."""
    again = {(s.entry.block, s.method) for s in settings}
    tried_before = stored['settings'] if stored else []
    return [tried for tried in tried_before if (tried['block'], tried['method']) not in again]


def rivals(settings: Sequence[Setting], stored: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Those of the earlier trials that are of the same networks and data sets as the settings."""
    blocks = {s.entry.block for s in settings}
    return [tried for tried in earlier_trials(settings, stored) if tried['block'] in blocks]


def hold_out(cfg: Config, name: str) -> None:
    """Train on four fifths of a config's training images, and score the rest in validation."""
    check_scored(cfg, name)
    holders = [cfg.train_dataloader, cfg.val_dataloader]
    if all(is_called(holder.dataset.get('type'), 'InMemory') for holder in holders):
        holders = [holder.dataset for holder in holders]
        for in_memory in holders:
            in_memory.cache = False  # what is stored is the whole data set
    train, val = (holder.dataset for holder in holders)
    folded = is_called(train.get('type'), 'KFoldDataset')
    if folded or 'pipeline' not in train or 'pipeline' not in val:
        raise ValueError(
            f'{name}: its training images cannot be held out; expected a plain data set with a '
            f'pipeline in train_dataloader and val_dataloader, found {train.type} and {val.type}'
        )
    fold = dict(type='mmpretrain.KFoldDataset', num_splits=SPLITS, seed=0, dataset=train)
    holders[0].dataset, holders[1].dataset = fold, held_out(fold, val)
    for part in SCORED_BY['test']:
        cfg.pop(part, None)


def one_of_each(settings: Sequence[Setting], scores: Mapping[str, float] = {}) -> list[Setting]:
    """The setting of the highest score, or else the first one, of every method and block."""
    groups: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting in settings:
        groups[setting.entry.block, setting.method].append(setting)
    return [max(own, key=lambda s: scores.get(s.entry.name, -math.inf)) for own in groups.values()]


def choose(
    settings: Sequence[Setting], sweep: Sweep, work_dir: Path
) -> tuple[list[Setting], dict[str, Any]]:
    """The best setting of every method and block; and all of them, the content of ``sweep.json``.

    The best is that of the highest accuracy on the held-out images at the last epoch, mean of the
    students and seeds; of equal ones the first. One with a trial that failed has no accuracy. What
    an earlier sweep of the work dir tried for other methods stays in it.

    Raises:
        RuntimeError: Every setting of a method failed.
    """
    from .report.runs import STUDENTS, numbers, stored_results  # pandas: see report

    trials = work_dir / 'sweep'
    finished = [
        setting.entry
        for setting in settings
        if all(is_finished(trials, setting.entry.name, seed) for seed in sweep.seeds)
    ]
    scores: dict[str, float] = {}
    if finished:
        runs = numbers(stored_results(trials, finished)[0])
        runs = runs[(runs['predictor'] == STUDENTS) & runs['seed'].isin(sweep.seeds)]
        means = runs.groupby('name')['last'].agg(lambda seeds: seeds.mean(skipna=False))
        scores = means.dropna().to_dict()
    best = one_of_each(settings, scores)
    failed = [setting for setting in best if setting.entry.name not in scores]
    if failed:
        raise RuntimeError(
            f'sweep: every setting of {", ".join(setting.method for setting in failed)} failed; '
            + ', '.join(
                str(log_of(trials, (setting.entry.name, sweep.seeds[0]))) for setting in failed
            )
        )
    rounded = {name: round(float(score), 4) for name, score in scores.items()}
    tried = [
        dict(
            block=setting.entry.block,
            method=setting.method,
            setting=setting.entry.method,
            config=setting.path.name,
            options=setting.swept,
            seeds=[*sweep.seeds],
            untuned=setting.method in sweep.untuned,
            accuracy=rounded.get(setting.entry.name),
            chosen=any(setting is each for each in best),
        )
        for setting in settings
    ]
    record = dict(
        held_out=f'1/{SPLITS} of the training images',
        settings=[*earlier_trials(settings, read_sweep(work_dir)), *tried],
    )
    return best, record
