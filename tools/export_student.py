"""Write students of a checkpoint as plain networks: for mmpretrain, safetensors, ONNX, TorchScript.

Every file is read back and compared with the trained network before it is put in its place.
"""

import argparse

from mfef_mmrazor.apis import export, user_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of an OnlineDistill')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the files')
    parser.add_argument(
        '--student', default='0', help='number of a student, best or all; the first by default'
    )
    parser.add_argument(
        '--format', default='pth', help='any of pth,safetensors,onnx,torchscript; pth by default'
    )
    parser.add_argument('--config', help='training config, if not the one in the checkpoint')
    parser.add_argument(
        '--ensemble', action='store_true', help="also the mean of all students' logits"
    )
    parser.add_argument('--fused', action='store_true', help='also the fused classifier')
    parser.add_argument(
        '--allow-import', nargs='+', default=[], metavar='MODULE',
        help='modules to import for classes that the config in the checkpoint names',
    )  # fmt: skip
    args = parser.parse_args()
    formats = [name.strip() for name in args.format.split(',')]
    with user_errors():
        export(
            args.checkpoint, args.out, args.student, formats, args.config,
            args.ensemble, args.fused, args.allow_import,
        )  # fmt: skip


if __name__ == '__main__':
    main()
