"""Print parameters, multiply-adds and last map of every network in configs/_base_/models."""

import argparse
from pathlib import Path

from mfef_mmrazor.apis import count_networks, user_errors

MODELS = Path(__file__).parents[1] / 'configs/_base_/models'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', nargs='?', default=MODELS, help='another folder of such configs')
    args = parser.parse_args()
    with user_errors():
        print(count_networks(args.folder), end='')


if __name__ == '__main__':
    main()
