"""Train configs over several seeds and compare them, or report on stored runs."""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mfef_mmrazor.apis import Slurm, Sweep, compare, report, user_errors


def seed_range(text: str) -> list[int]:
    """``0-4`` or ``0,2,5``."""
    first, dash, last = text.partition('-')
    if not dash:
        return [int(s) for s in text.split(',')]
    if int(first) > int(last):
        raise argparse.ArgumentTypeError(f'{text} is not a range: expected {last}-{first}')
    return list(range(int(first), int(last) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='*', help='config files, <method>_<network>_<recipe>_<data>.py'
    )
    parser.add_argument('--seeds', type=seed_range, default=seed_range('0-4'), help='0-4 or 0,2,5')
    parser.add_argument('--work-dir', help='folder for the runs and the report; needed to train')
    parser.add_argument('--baseline', help='method the others are compared with (the first)')
    parser.add_argument(
        '--jobs', '--runs-at-once', type=int, metavar='N',
        help='runs at a time (1; on Slurm: as many as it has room for)',
    )  # fmt: skip
    parser.add_argument(
        '--launcher', choices=['local', 'slurm'], default='local',
        help='run them on this machine, or as jobs of a Slurm cluster',
    )  # fmt: skip
    parser.add_argument('--partition', help="Slurm's partition (the cluster's default)")
    parser.add_argument('--gpus-per-run', type=int, metavar='N', help='on Slurm (1); 0: on the CPU')
    parser.add_argument(
        '--sbatch', nargs='+', action=DictAction, default={}, metavar='OPTION=VALUE',
        help="more of sbatch's options: time=600 cpus-per-task=8",
    )  # fmt: skip
    parser.add_argument(
        '--allow', nargs='+', default=[], metavar='CONDITION',
        help='conditions, or parts of them, in which the configs may differ: model.students ...',
    )  # fmt: skip
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override values of every config',
    )  # fmt: skip
    parser.add_argument(
        '--sweep', nargs='+', action=DictAction, metavar='KEY=VALUE,VALUE',
        help='try all combinations first, and compare the best of each method; METHOD:KEY=... is '
        'of one method alone',
    )  # fmt: skip
    parser.add_argument(
        '--select-on', choices=['held-out'],
        help='what the best setting is chosen on: a fifth of the training images. Without --sweep, '
        'among the config files of each method, <method>-<setting>_...',
    )  # fmt: skip
    parser.add_argument('--sweep-seeds', type=seed_range, help='seeds of the sweep (0)')
    parser.add_argument(
        '--untuned', nargs='+', default=[], metavar='METHOD',
        help='methods without anything to sweep, such as independent',
    )  # fmt: skip
    parser.add_argument(
        '--dry-run', action='store_true', help='only say what would run, and for about how long'
    )
    parser.add_argument('--report', metavar='DIR', help='only rebuild the report of stored runs')
    args = parser.parse_args()
    if bool(args.report) == bool(args.configs):
        parser.error('give configs and --work-dir, or --report DIR alone')
    if args.report and args.dry_run:
        parser.error('--report runs nothing: leave out --dry-run')
    of_slurm = args.partition or args.gpus_per_run is not None or args.sbatch
    if args.launcher == 'local' and of_slurm:
        parser.error(
            '--partition, --gpus-per-run and --sbatch go with --launcher slurm; here each run has '
            'one GPU, if there is any (CUDA_VISIBLE_DEVICES)'
        )
    if (args.untuned or args.sweep_seeds) and not (args.sweep or args.select_on):
        parser.error('--untuned and --sweep-seeds go with --sweep or --select-on')
    if not (args.report or args.work_dir):
        parser.error('--work-dir is missing')
    with user_errors():
        if args.report:
            report(args.report, args.baseline)
        else:
            swept = args.sweep or args.select_on
            sweep = (
                Sweep(args.sweep or {}, args.sweep_seeds or [0], args.untuned) if swept else None
            )
            gpus = Slurm.gpus_per_run if args.gpus_per_run is None else args.gpus_per_run
            slurm = Slurm(args.partition, gpus, args.sbatch)
            compare(
                args.configs, args.seeds, args.work_dir, args.baseline, args.jobs, args.allow,
                args.cfg_options, sweep, args.dry_run, slurm if args.launcher == 'slurm' else None,
            )  # fmt: skip
    if not args.dry_run:
        for name in ('table.md', 'report.html'):
            print(Path(args.report or args.work_dir, name))


if __name__ == '__main__':
    main()
