"""Says whether this environment can train, and how to repair it: ``python -m mfef_mmrazor.doctor``.

It needs nothing but Python: whatever may be broken is looked at from outside, or imported in a
process of its own. At the end a real training step is made. The exit code is 0 only if that works.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PARTS = ('numpy', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmrazor')
WANTED = dict(
    numpy='numpy',
    torch='torch torchvision',
    torchvision='torchvision',
    mmengine='"mmengine>=0.10.4,<1"',
    mmcv='"mmcv-lite==2.1.0"',
    mmpretrain='"mmpretrain>=1.2,<2"',
    mmrazor='--no-deps mmrazor==1.0.0',
)
"""What pip is to install for each part. :mod:`mfef_mmrazor.compat` names it as well."""
DISTRIBUTIONS = dict(
    cv2='opencv-python', yaml='pyyaml', PIL='pillow', sklearn='scikit-learn',
    pkg_resources='"setuptools<82"',
)  # fmt: skip
"""What pip is to install for modules of other names."""
PACKAGE = Path(__file__).parent
# of a wheel or a clone; of a clone where the first is no symbolic link
FOLDERS = (PACKAGE / '.mim/configs', PACKAGE.parent / 'configs')
CONFIGS = next((folder.resolve() for folder in FOLDERS if folder.is_dir()), None)
STEP_CONFIG = 'mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
SECONDS = 600
"""How long a process may take, the first import of torch on a slow disk included."""

# imports one part; its last line of output is what it found, as JSON
PROBE = """
import importlib, json, platform, sys, warnings
warnings.simplefilter('ignore')
name, found = sys.argv[1], {}
module = importlib.import_module(name)
found['version'] = getattr(module, '__version__', None)
found['path'] = str(getattr(module, '__file__', None))
if name == 'torch':
    found['cuda'] = module.version.cuda
    found['gpus'] = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]
    if found['gpus']:
        found['bf16'] = module.cuda.get_device_capability() >= (8, 0)
    else:
        supported = bool(getattr(module.cpu, '_is_avx512_bf16_supported', bool)())
        found['bf16'] = supported or platform.machine() not in ('x86_64', 'AMD64')
    module.from_numpy(importlib.import_module('numpy').zeros(1)).numpy()
if name == 'torchvision':
    torch = importlib.import_module('torch')
    module.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
print()
print(json.dumps(found))
"""
STEP = """
import json, sys, time
from tempfile import TemporaryDirectory
started = time.perf_counter()
from mfef_mmrazor import compat
from mfef_mmrazor.apis import load_config, train
print(json.dumps(dict(compat=compat.changes)))
options = {
    'train_dataloader.dataset.train_per_class': 1, 'train_dataloader.num_workers': 0,
    'val_dataloader.dataset.indices': 10, 'val_dataloader.num_workers': 0,
    'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.interval': 2,
}
with TemporaryDirectory() as folder:
    runner = train(load_config(sys.argv[1], folder, options))
    assert runner.iter == 1
print()
print(json.dumps(dict(compat=compat.changes, seconds=round(time.perf_counter() - started, 1))))
"""


def run_apart(code: str, *args: str) -> tuple[dict[str, Any], str]:
    """Run code in a process of its own: what it found, and its error in one line or ``''``."""
    try:
        done = subprocess.run(
            [sys.executable, '-c', code, *args], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return {}, f'no answer within {SECONDS} seconds'
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith('{'):
            found = json.loads(line)
    if done.returncode == 0:
        return found, ''
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if re.match(r'\w[\w.]*: ', line)]
    return found, (errors or said or [f'exit code {done.returncode}'])[-1]


def owners(part: str, folder: str) -> list[metadata.Distribution]:
    """Distributions that have installed files into a part's folder."""
    return [
        distribution
        for distribution in metadata.distributions()
        if Path(str(distribution.locate_file(part))) == Path(folder)
        and any(file.parts[0] == part for file in distribution.files or [])
    ]


def lost_files(owner: metadata.Distribution) -> list[str]:
    """Source files that a distribution has installed and that are gone."""
    files = owner.files or []
    return [str(f) for f in files if f.suffix == '.py' and not Path(str(f.locate())).is_file()]


def look_at(part: str) -> dict[str, str]:
    """What there is of a part, as far as it can be seen without importing it."""
    spec = find_spec(part)
    if spec is None:
        return dict(trouble='not installed', repair=f'pip install {WANTED[part]}')
    folder = next(iter(spec.submodule_search_locations or []), '')
    by = owners(part, folder)
    names = sorted(owner.metadata['Name'] for owner in by)
    if len(by) > 1:
        return dict(
            trouble=f'{" and ".join(names)} own the same folder {folder}',
            repair=f'pip uninstall -y {" ".join(names)} && pip install {WANTED[part]}',
        )
    if spec.origin is None:
        return dict(trouble=f'{folder} is a folder without an __init__.py', repair=again(part, by))
    lost = [file for owner in by for file in lost_files(owner)]
    if lost:
        return dict(
            trouble=f'{len(lost)} files are gone, such as {lost[0]}', repair=again(part, by)
        )
    return {}


def again(part: str, by: list[metadata.Distribution]) -> str:
    """The command that installs a part once more: the distribution and version that is there."""
    wanted = WANTED[part].removeprefix('--no-deps ')
    if len(by) == 1:
        wanted = f'"{by[0].metadata["Name"]}=={by[0].version}"'
    return f'pip install --force-reinstall --no-deps {wanted}'


def repair_of(part: str, error: str, versions: dict[str, str]) -> str:
    """The command for a part that is there but cannot be imported."""
    if part == 'torchvision':
        torch = versions.get('torch', '').split('+')[0]
        return f'pip install --upgrade "torch=={torch}" torchvision'
    missing = re.search(r"No module named '(\w+)", error)
    if missing and missing[1] != part:
        name = missing[1]
        return f'pip install {WANTED.get(name) or DISTRIBUTIONS.get(name, name)}'
    if re.search(r'lib(GL|gthread|glib)', error):  # of windows, which a container does not have
        return 'pip uninstall -y opencv-python && pip install opencv-python-headless'
    if 'umpy' in error and part != 'numpy':
        return 'pip install "numpy<2"'
    if part == 'torch':  # its libraries of CUDA are packages of their own
        return f'pip install --force-reinstall {WANTED[part]}'
    spec = find_spec(part)
    folders = spec.submodule_search_locations if spec else None
    return again(part, owners(part, next(iter(folders or []), '')))


def check_parts() -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """Each part's version and path, and the troubles.

    Without a torch that works, the parts after it are only looked at from outside.
    """
    found: dict[str, dict[str, Any]] = {}
    troubles: list[dict[str, str]] = []
    versions: dict[str, str] = {}
    for part in PARTS:
        trouble = look_at(part)
        if not trouble and part == 'mmrazor':
            found[part] = unimported(part)  # imports only after compat: in the last step
            versions[part] = found[part]['version'] or ''
            continue
        if not trouble:
            found[part], error = run_apart(PROBE, part)
            versions[part] = found[part].get('version') or ''
            if error:
                trouble = dict(trouble=error, repair=repair_of(part, error, versions))
        if trouble:
            troubles.append(dict(part=part, **trouble))
            if part == 'torch':
                return found, troubles + [
                    dict(part=later, **look) for later in PARTS[2:] if (look := look_at(later))
                ]
    wanted = required_torch()
    if wanted and versions.get('torch') and wanted != versions['torch'].split('+')[0]:
        if not any(t['part'] == 'torchvision' for t in troubles):
            text = f'made for torch {wanted}, but torch is {versions["torch"]}'
            repair = repair_of('torchvision', '', versions)
            troubles.append(dict(part='torchvision', trouble=text, repair=repair))
    return found, troubles


def unimported(part: str) -> dict[str, str | None]:
    """Version and path of a part that is there, without importing it."""
    path = str(find_spec(part).origin)  # type: ignore
    try:
        return dict(version=metadata.version(part), path=path)
    except metadata.PackageNotFoundError:  # a folder of sources on PYTHONPATH
        file = Path(path).with_name('version.py')
        text = file.read_text(encoding='utf-8') if file.is_file() else ''
        said = re.search(r"""__version__ = ['"](.+)['"]""", text)
        return dict(version=said[1] if said else None, path=path)


def required_torch() -> str | None:
    """The torch that the installed torchvision was made for, as it says itself."""
    try:
        required = metadata.requires('torchvision') or []
    except metadata.PackageNotFoundError:
        return None
    exact = [re.match(r'torch\s*\(?==\s*([\d.]+)', line) for line in required]
    return next((match[1] for match in exact if match), None)


def check_data() -> list[dict[str, Any]]:
    """Whether the folders that the base configs read are there, looked for from here."""
    rows = []
    for path in sorted((CONFIGS / '_base_/datasets').glob('*.py')) if CONFIGS else []:
        texts: dict[str, str] = {}
        text = path.read_text(encoding='utf-8')
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword):
                name = node.arg
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            else:
                continue
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                texts[name or ''] = node.value.value
        if 'data_root' in texts:
            folder = Path(texts['data_root'])
            rows.append(
                dict(
                    config=path.name,
                    folder=str(folder),
                    there=folder.is_dir() and any(folder.iterdir()),
                    hint=texts.get('data_hint', text.splitlines()[0].lstrip('# ')),
                )
            )
    return rows


def examine() -> dict[str, Any]:
    """All that is asked, and the training step."""
    parts, troubles = check_parts()
    step: dict[str, Any] = dict(ok=False, error='not tried: see the troubles')
    changed: list[str] = []
    if not any(trouble['trouble'] == 'not installed' for trouble in troubles):
        if CONFIGS is None:
            step['error'] = f'no configs beside {PACKAGE}'
        else:
            found, error = run_apart(STEP, str(CONFIGS / STEP_CONFIG))
            changed = found.get('compat', [])
            step = dict(ok=not error, error=error, seconds=found.get('seconds'))
            told = re.search(r'Repair: (.+)', error)
            if told:
                troubles.append(dict(part='training step', trouble=error, repair=told[1]))
            elif error and not troubles:
                troubles.append(dict(part='training step', trouble=error))
    return dict(
        python=sys.version.split()[0],
        executable=sys.executable,
        parts=parts,
        compat=changed,
        troubles=troubles,
        data=check_data(),
        training_step=step,
    )


def show(report: dict[str, Any]) -> None:
    """Print a report for people. A trouble without a known repair has none."""
    print(f'python {report["python"]} ({report["executable"]})')
    for part, found in report['parts'].items():
        print(f'{part} {found.get("version") or "?"} ({found.get("path") or "?"})')
    torch = report['parts'].get('torch', {})
    if 'gpus' in torch:
        bf16 = 'yes' if torch['bf16'] else 'no'
        print(f'GPUs: {", ".join(torch["gpus"]) or "none"}; bf16: {bf16}')
    for change in report['compat']:
        print(f'compat: {change}')
    for row in report['data']:
        there = 'found' if row['there'] else f'not here. {row["hint"]}'
        print(f'data of {row["config"]}: {row["folder"]} {there}')
    for trouble in report['troubles']:
        print(f'TROUBLE {trouble["part"]}: {trouble["trouble"]}')
        if 'repair' in trouble:
            print(f'  repair: {trouble["repair"]}')
        elif CONFIGS is not None:
            script, config = CONFIGS.parent / 'tools/train.py', CONFIGS / STEP_CONFIG
            print(f'  no repair is known; the whole error: python {script} {config}')
    step = report['training_step']
    outcome = f'works ({step["seconds"]} s)' if step['ok'] else f'FAILED: {step["error"]}'
    print(f'training step: {outcome}')


def main() -> None:
    """Examine, print, and leave with 0 if the training step works."""
    parser = argparse.ArgumentParser(prog='python -m mfef_mmrazor.doctor', description=__doc__)
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    args = parser.parse_args()
    report = examine()
    print(json.dumps(report, indent=2)) if args.json else show(report)
    sys.exit(0 if report['training_step']['ok'] else 1)


if __name__ == '__main__':
    main()
