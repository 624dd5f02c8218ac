"""What a work dir compares: a config per method, network and data set, told by the files' names."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import dump, load
from yaml import YAMLError

from ..engine.checkpoint_files import write_atomically
from ..engine.results import read_json, write_json
from .config import load_config

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader

COMPARISON = 'comparison.json'
RESULTS = 'results.json'  # of a run, written at its end
SWEEP = 'sweep.json'
VERSION = 2


@dataclass(frozen=True)
class Entry:
    """One config of a comparison.

    Attributes:
        name: Of its folder of runs and its config in the work dir: the method, or in a comparison
            over several networks and data sets ``<block>/<method>``.
        method: What it is called in the tables of its block.
        block: Network and data set, ``<network>_<data>``; empty if the file's name has none.
        config: The name of the config file.
    """

    name: str
    method: str
    block: str
    config: str


@dataclass(frozen=True)
class Comparison:
    """What is compared, and with which method the others are."""

    entries: list[Entry]
    baseline: str

    @property
    def blocks(self) -> dict[str, list[Entry]]:
        """The entries of each network and data set."""
        names = dict.fromkeys(entry.block for entry in self.entries)
        return {name: [e for e in self.entries if e.block == name] for name in names}


def run_folder(work_dir: Path, name: str, seed: int) -> Path:
    """Where the results of an entry's run with a seed are."""
    return work_dir / 'runs' / name / f'seed{seed}'


def is_finished(work_dir: Path, name: str, seed: int) -> bool:
    """Whether an entry's run with a seed has come to its end."""
    return (run_folder(work_dir, name, seed) / RESULTS).is_file()


def config_file(work_dir: Path, name: str) -> Path:
    """The config that an entry's runs were made with; in work dirs of earlier versions Python."""
    earlier = work_dir / 'configs' / f'{name}.py'
    return earlier if earlier.is_file() else earlier.with_suffix('.yaml')


class PlainLoader(SafeLoader):
    """Reads plain values and tuples; mmengine's usual one would call what a file names."""


PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


def stored_config(work_dir: Path, name: str) -> Config:
    """The config that an entry's runs were made with, which is data.

    Raises:
        ValueError: The file has more than plain values.
    """
    path = config_file(work_dir, name)
    if path.suffix == '.py':  # of an earlier version
        return Config.fromfile(path)
    try:
        return Config(load(path, Loader=PlainLoader))
    except YAMLError as error:
        raise ValueError(
            f'{path} was not written by a comparison: {" ".join(str(error).split())}'
        ) from None


def write_config(work_dir: Path, name: str, cfg: Config) -> None:
    """Keep an entry's config in the work dir.

    It is YAML and not JSON, in which tuples would become lists.
    """
    text = dump(cfg.to_dict(), file_format='yaml', sort_keys=False, default_flow_style=None)
    path = work_dir / 'configs' / f'{name}.yaml'
    write_atomically(path, text.encode())
    path.with_suffix('.py').unlink(missing_ok=True)


def read_config(path: Path, options: dict[str, Any]) -> Config:
    """A config to compare, with its values overridden by dotted key; it has no work dir yet."""
    cfg = load_config(path, cfg_options=options)
    cfg.pop('work_dir')
    return cfg


def read_comparison(work_dir: Path) -> Comparison | None:
    """What a work dir compares; None if it is of no comparison yet."""
    if not (work_dir / COMPARISON).is_file():
        return None
    stored = read_json(work_dir / COMPARISON)
    try:
        if 'methods' in stored:  # version 1 had one network and data set
            entries = [Entry(name, name, '', '') for name in stored['methods']]
        else:
            entries = [Entry(**entry) for entry in stored['entries']]
        return Comparison(entries, stored['baseline'])
    except (KeyError, TypeError) as error:
        raise _not_of_a_comparison(work_dir / COMPARISON, error) from None


def read_sweep(work_dir: Path) -> dict[str, Any] | None:
    """The settings that were tried before the comparison, see :func:`~.sweep.choose`.

    In files of earlier versions all settings have the same seeds, and methods are untuned in all
    blocks.
    """
    if not (work_dir / SWEEP).is_file():
        return None
    stored = read_json(work_dir / SWEEP)
    try:
        for tried in stored['settings']:
            tried.setdefault('seeds', stored.get('seeds'))
            tried.setdefault('untuned', tried['method'] in stored.get('untuned', ()))
    except (AttributeError, KeyError, TypeError) as error:
        raise _not_of_a_comparison(work_dir / SWEEP, error) from None
    return stored


def _not_of_a_comparison(path: Path, error: Exception) -> ValueError:
    return ValueError(f'{path} was not written by a comparison ({error}). Remove it and run again')


def write_comparison(work_dir: Path, comparison: Comparison) -> None:
    """Keep what is compared in the work dir."""
    entries = [asdict(entry) for entry in comparison.entries]
    content = dict(version=VERSION, baseline=comparison.baseline, entries=entries)
    write_json(work_dir / COMPARISON, content)


def block_of(config: str) -> str:
    """Network and data set of a config file's name, without the number of students.

    Example:
        >>> block_of('mfef_resnet8-x3-shared2_1xb32-20e_digits.py')
        'resnet8_digits'
    """
    parts = Path(config).stem.split('_')
    if len(parts) < 4:
        return ''
    return re.sub(r'-x\d+(-shared\d+)?$', '', parts[1]) + f'_{parts[-1]}'


def method_of(config: str) -> str:
    """Method of a config file's name.

    Example:
        >>> method_of('mfef-kept_resnet8-x2_1xb32-20e_digits.py')
        'mfef-kept'
    """
    return Path(config).stem.split('_')[0]


def name_entries(
    configs: Sequence[str], earlier: Sequence[Entry] = (), methods: Sequence[str] | None = None
) -> tuple[list[Entry], list[Entry]]:
    """Entries for config files, with names that differ from each other and from earlier ones.

    The name of a method's second config gets the parts of its file name that the first one's lacks:
    ``mfef``, ``mfef-resnet8-x3``. If there are no such parts, it gets all parts. A file name
    without network and data set belongs to the block of the others; these must share one block.

    Args:
        configs: Names of the config files.
        earlier: Entries that exist already. A file that has one of them keeps it.
        methods: What the methods are called; by default what comes before the first ``_``.

    Returns:
        The earlier entries, and those of the configs.

    Raises:
        ValueError: Two files have one name; or there are several blocks, and none in a file's name.
    """
    methods = methods or [method_of(config) for config in configs]
    asked = [Entry('', m, block_of(c), c) for c, m in zip(configs, methods, strict=True)]
    placed = _in_blocks([*earlier, *asked])
    there, asked = placed[: len(earlier)], placed[len(earlier) :]
    grid = len({entry.block for entry in placed}) > 1
    found: list[Entry] = []
    for entry in asked:
        if entry.config in [other.config for other in found]:
            raise ValueError(
                f'{entry.config}: there is another config of this name; configs are told apart by '
                'their file names, so rename one of them'
            )
        known = [other for other in there if _is_same(other, entry)]
        name = known[0].method if known else _own_name(entry, [*there, *found])
        path = known[0].name if known else f'{entry.block}/{name}' if grid else name
        found.append(replace(entry, name=path, method=name))
    return there, found


def _in_blocks(entries: list[Entry]) -> list[Entry]:
    """The entries, in the only block there is where a name tells none."""
    blocks = list(dict.fromkeys(entry.block for entry in entries if entry.block))
    homeless = [entry.config or entry.name for entry in entries if not entry.block]
    if homeless and len(blocks) > 1:
        raise ValueError(
            f'{homeless[0]}: is it of {" or ".join(blocks)}? Expected a file name '
            '<method>_<network>_<recipe>_<data>.py'
        )
    return [replace(e, block=e.block or ''.join(blocks)) for e in entries]


def _is_same(stored: Entry, asked: Entry) -> bool:
    """Whether a config is one that is there already; version 1 kept no names of files."""
    if stored.config:
        return (stored.config, stored.block) == (asked.config, asked.block)
    return (stored.method, stored.block) == (asked.method, asked.block)


def _own_name(entry: Entry, others: list[Entry]) -> str:
    """A method's name in its block, with what tells its file from another one of that method."""
    name, parts = entry.method, Path(entry.config).stem.split('_')
    taken = {other.method: other.config for other in others if other.block == entry.block}
    whole = '-'.join([entry.method, *parts[1:]])
    while name in taken:
        if name == whole:
            raise ValueError(
                f'{entry.config} and {taken[name]} would both be called {name}: rename one of them'
            )
        known = Path(taken[name]).stem.split('_')
        added = [part for part in parts if part not in known]
        name = '-'.join([name, *added]) if added else whole
    return name
