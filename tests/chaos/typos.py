"""How many one-letter typos in the keys of the shipped configs are found, and named.

    python tests/chaos/typos.py [FOLDER OR FILE OF CONFIGS ...]

One letter of each key is dropped, doubled or swapped with the next, in each place of each config,
as far as places differ. A typo is found if it raises or warns before training: mostly when the
config is checked, else when its parts are built. It is named if the nearest name is the right one.
"""

import contextlib
import copy
import io
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmrazor.registry import MODELS

from mfef_mmrazor.apis.config_keys import KNOWN_KEYS, check_custom_keys, check_keys, typos

CONFIGS = Path(__file__).parents[2] / 'configs'
Place = tuple[Any, ...]


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """The paths of all keys."""
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        if isinstance(value, dict):
            yield (*path, key)
        yield from places(item, (*path, key))


def kind_of(cfg: dict, place: Place) -> tuple:
    """What tells places apart: their keys and the types on the way."""
    kind, value = [], cfg
    for key in place:
        kind.append((key if isinstance(key, str) else '', str(getattr(value, 'get', str)('type'))))
        value = value[key]
    return tuple(kind)


def renamed(cfg: dict, place: Place, name: str) -> dict:
    """A copy in which one key has another name, in its old position."""
    changed = copy.deepcopy(cfg)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    items = [(name if key == place[-1] else key, value) for key, value in parent.items()]
    parent.clear()
    parent.update(items)
    return changed


def said(function, *arguments) -> str:
    """What is raised, printed or warned of."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            function(*arguments)
        except Exception as error:
            return str(error.args[0] if error.args else error)
    return out.getvalue()


def build(cfg: Config) -> None:
    """Build what the typo may be in, as training does."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.random.fork_rng():
        model = MODELS.build(copy.deepcopy(cfg.model))
    check_custom_keys(cfg, model)


def outcome(cfg: dict, place: Place, name: str) -> tuple[str, str]:
    """How a typo is found, and what is said."""
    changed = renamed(cfg, place, name)
    part = {key: changed[key] for key in changed if key not in cfg or key == place[0]}
    message = said(check_keys, Config(part))
    if message:
        return 'checked', message
    if place[0] not in changed:
        return ('required', '') if place[0] == 'model' else ('silent', '')
    message = said(build, Config(changed)) if place[0] in ('model', 'optim_wrapper') else ''
    if not message and place[-2:-1] == ('custom_keys',) and name in place[-1]:
        return 'harmless', ''  # a part of the pattern, which picks the same parameters
    return ('built', message) if message else ('silent', '')


def sweep(paths: list[Path]) -> Counter:
    """Counts of found and named typos; prints those that are not."""
    counts: Counter = Counter()
    seen = set()
    for path in paths:
        cfg = Config.fromfile(path).to_dict()
        cfg = {key: value for key, value in cfg.items() if key in KNOWN_KEYS}
        if 'model' not in cfg:
            continue
        for place in places(cfg):
            kind = kind_of(cfg, place)
            if kind in seen:
                continue
            seen.add(kind)
            for name in sorted(typos(place[-1])):
                how, message = outcome(cfg, place, name)
                nearest = message.rpartition('nearest: ')[2].split(',')[0].split('.')[0].strip()
                if how == 'harmless':
                    continue
                counts.update(['typos', how] + ['named'] * (nearest == place[-1]))
                if how == 'silent' or nearest != place[-1]:
                    print(f'{how}: {path.stem}: {".".join(map(str, place))} -> {name}: '
                          f'{message.strip()[:200]}')  # fmt: skip
    counts['keys'] = len(seen)
    return counts


def main() -> None:
    warnings.simplefilter('ignore')
    MMLogger.get_current_instance().handlers.clear()
    paths = []
    for given in map(Path, sys.argv[1:] or [CONFIGS]):
        paths += sorted(p for p in given.rglob('*.py') if '_base_' not in p.parts) or [given]
    counts = sweep(paths)
    typos_, silent = counts['typos'], counts['silent']
    print(
        f'{len(paths)} configs, {counts["keys"]} distinct keys, {typos_} typos: '
        f'{typos_ - silent} raise or warn ({100 - 100 * silent / typos_:.2f} %), '
        f'{counts["named"]} with the right name first ({100 * counts["named"] / typos_:.1f} %)'
    )
    sys.exit(silent > 0 or counts['named'] < 0.9 * typos_)


if __name__ == '__main__':
    main()
