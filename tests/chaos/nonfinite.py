"""Whether trainings notice each number that is not finite, and end as they should.

    python tests/chaos/nonfinite.py --methods mfef dml

Puts NaN or inf into each loss term of a method, into a pixel, a gradient, a student's weight and
the distiller's, sets the learning rate to 1e30 and inf, and breaks the last step of all. A row per
method: how many of these runs ended in that very step, with a status that is not 0 and a line that
names the term or the student, the iteration, the learning rate and the images, with the batch saved
and with a last checkpoint that is finite; then those that did not, and why.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from _runs import EPOCHS, STEPS, cheap, finish, methods, start, tiny

from mfef_mmrazor.apis import train, user_errors
from mfef_mmrazor.engine.checkpoint_files import newest_checkpoint
from mfef_mmrazor.engine.hooks.finite_hook import non_finite

sys.path.insert(0, str(Path(__file__).parents[1] / 'engine'))
import test_finite_hook  # noqa: F401  registers what breaks the runs

AT, LAST = STEPS + 2, EPOCHS * STEPS


def run(path: Path, work_dir: Path, broken: dict | None = None) -> None:
    """A tiny training, broken somewhere."""
    cfg = tiny(path, work_dir)
    if broken:
        cfg.custom_hooks.append(dict(type='mmrazor.BreakHook', **broken))
    with user_errors():
        train(cfg)


def injections(path: Path) -> list[tuple[dict, str]]:
    """What is broken, when, by which number; and what the message must name."""
    work_dir = Path(tempfile.mkdtemp())
    if finish(start(run, path, work_dir, log=work_dir / 'log')):
        sys.exit((work_dir / 'log').read_text()[-2000:])
    stored = torch.load(work_dir / f'epoch_{EPOCHS}.pth', weights_only=True)
    shutil.rmtree(work_dir)
    names = [name.removeprefix('train/') for name in stored['log_history']]
    terms = [name for name in names if '.' in name and 'loss' in name]
    places = {term: f'{term} is' for term in terms}
    places |= dict(pixel='the pixels of image', gradient='the gradient is')
    places |= dict(weight='student1')
    if any(re.fullmatch(r'distiller\..*weight', name) for name in stored['state_dict']):
        places |= dict(distiller='distill')
    table = [
        (dict(where=where, at=AT, value=value), named)
        for where, named in places.items()
        for value in ('nan', 'inf')
    ]
    table += [(dict(where='lr', at=AT, value=value), 'the weights') for value in ('1e30', 'inf')]
    table += [(dict(where=terms[0], at=LAST, value='nan'), f'{terms[0]} is nan')]
    return table


def missed(path: Path, broken: dict, named: str) -> list[str]:
    """What is not as it should be after a run that was broken."""
    work_dir = Path(tempfile.mkdtemp())
    status = finish(start(run, path, work_dir, broken, log=work_dir / 'log'))
    errors = re.findall(r'^error: .*', (work_dir / 'log').read_text(), re.MULTILINE)
    line = errors[-1] if errors else ''
    last = newest_checkpoint(work_dir)
    stored = torch.load(last, weights_only=True) if last else {'state_dict': {}, 'meta': {}}
    expected = {
        f'exit status {status}': status != 0,
        'another number of lines': len(errors) == 1,
        f'{named!r} is not in the line': named in line,
        'the iteration is not named': f'at iteration {broken["at"]} ' in line,
        'the lr is not named': '(lr ' in line,
        'the images are not named': re.search(r'batch of image \d+', line),
        'the batch is not saved': (work_dir / f'nonfinite_iter_{broken["at"]}.pth').is_file(),
        'the last checkpoint is not finite': not non_finite(stored['state_dict']),
        f'the last checkpoint is {last}': stored['meta'].get('iter')
        == (broken['at'] - 1) // STEPS * STEPS,
    }
    shutil.rmtree(work_dir)
    return [problem for problem, well in expected.items() if not well]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--methods', nargs='+', help='all of them by default')
    args = parser.parse_args()
    torch.set_num_threads(1)
    known, total, well = methods(), 0, 0
    with cheap():
        for name in args.methods or known:
            table = injections(known[name])
            problems = [(broken, missed(known[name], broken, named)) for broken, named in table]
            bad = [(broken, found) for broken, found in problems if found]
            total, well = total + len(table), well + len(table) - len(bad)
            print(f'{name:14} {len(table) - len(bad)}/{len(table)}', flush=True)
            for broken, found in bad:
                print(f'  {broken}: {"; ".join(found)}', flush=True)
    print(f'{well} of {total} ({100 * well / total:.0f} %)')
    sys.exit(well < total)


if __name__ == '__main__':
    main()
