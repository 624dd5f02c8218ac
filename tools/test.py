"""Score every predictor of a checkpoint on the test data."""

import argparse

from mmengine.config import DictAction

from mfef_mmrazor.apis import load_config, test, user_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log')
    parser.add_argument(
        '--out', metavar='FILE',
        help='write the predictions for each image: .csv, .json, or .pkl for mmpretrain\'s tools',
    )  # fmt: skip
    parser.add_argument(
        '--tta', action='store_true',
        help="test-time augmentation: the config's tta_pipeline, or an image and its mirror image",
    )  # fmt: skip
    parser.add_argument('--amp', action='store_true', help='mixed precision, on the CPU as well')
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
            args.config, args.work_dir, args.cfg_options, amp=args.amp, launcher=args.launcher
        )
        test(cfg, args.checkpoint, args.out, args.tta)


if __name__ == '__main__':
    main()
