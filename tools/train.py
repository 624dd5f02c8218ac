"""Train what a config file says."""

import argparse

from mmengine.config import DictAction

from mfef_mmrazor.apis import load_config, train, user_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for checkpoints, log and results')
    parser.add_argument(
        '--resume', action='store_true', help='go on from the latest checkpoint in the work dir'
    )
    parser.add_argument(
        '--schedule', choices=['keep', 'config', 'stretch', 'restart'],
        help='schedules of a run that is resumed with another max_epochs (keep: as started)',
    )  # fmt: skip
    parser.add_argument('--amp', action='store_true', help='mixed precision, on the CPU as well')
    parser.add_argument('--seed', type=int, help='random seed')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override values of the config',
    )  # fmt: skip
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
        help='pytorch when started with torchrun',
    )  # fmt: skip
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with user_errors():
        cfg = load_config(
            args.config, args.work_dir, args.cfg_options, args.seed, args.amp, args.launcher
        )
        train(cfg, resume=args.resume, schedule=args.schedule)


if __name__ == '__main__':
    main()
