"""Measure what online distillation costs beside the networks themselves."""

import argparse

from mfef_mmrazor.apis import benchmark, user_errors
from mfef_mmrazor.apis.benchmark import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--repeats', type=int, default=11, help='turns of each case')
    parser.add_argument('--quick', action='store_true', help='fewer networks, methods and images')
    parser.add_argument('--out', metavar='FILE', help='JSON file for the result')
    args = parser.parse_args()
    with user_errors():
        benchmark(args.parts, args.device, args.repeats, args.quick, args.out)


if __name__ == '__main__':
    main()
