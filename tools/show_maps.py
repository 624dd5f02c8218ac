"""Show what students see: maps, gates, Grad-CAM and predictions, as one picture per image."""

import argparse

from mfef_mmrazor.apis import show_maps, user_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of an OnlineDistill')
    parser.add_argument('--images', nargs='+', required=True, metavar='FILE', help='image files')
    parser.add_argument('--student', default='all', help='number of a student, or all')
    parser.add_argument('--out', default='maps', metavar='DIR', help='folder for the pictures')
    parser.add_argument('--config', help='training config, if not the one in the checkpoint')
    parser.add_argument(
        '--allow-import', nargs='+', default=[], metavar='MODULE',
        help='modules to import for classes that the config in the checkpoint names',
    )  # fmt: skip
    args = parser.parse_args()
    with user_errors():
        written = show_maps(
            args.checkpoint, args.images, args.student, args.out, args.config, args.allow_import
        )
    for path in written:
        print(path)


if __name__ == '__main__':
    main()
