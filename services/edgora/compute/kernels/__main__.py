"""`python -m edgora.compute.kernels build|check|measure`: the recipe of the shipped kernels."""

import sys

from edgora.compute.kernels.recipe import check, write


def main(arguments: list[str]) -> int:
    """0 done, 1 stale binaries, 2 bad usage."""
    if arguments == ["build"]:
        write()
        return 0
    if arguments == ["check"]:
        stale = check()
        for name in stale:
            sys.stderr.write(f"{name}: the committed binary is not what its source gives; run build\n")
        return 1 if stale else 0
    if arguments == ["measure"]:
        from edgora.compute.kernels.measure import table

        sys.stdout.write(table())
        return 0
    sys.stderr.write("usage: python -m edgora.compute.kernels build|check|measure\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
