"""The command: `python -m gift_jax.report WORKDIR... [--out=DIR] [--baseline=LOSS]`.

`--against=OLD` puts a table of what changed since another work directory first.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report; the exit code is 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m gift_jax.report",
        description="Writes tables, plots and one page about runs of work directories.",
    )
    add = parser.add_argument
    more = "holds results.jsonl; the runs of several are put together"
    add("workdirs", metavar="workdir", nargs="+", type=pathlib.Path, help=more)
    place = "where to write; by default WORKDIR/report, if there is one WORKDIR"
    add("--out", type=pathlib.Path, help=place)
    add("--baseline", help="loss to compare with; by default kl, where it was run")
    since = "another work directory: what changed since is the first table"
    add("--against", metavar="OLD", type=pathlib.Path, help=since)
    flags = parser.parse_args(argv)
    paths = [path.expanduser().resolve() for path in flags.workdirs]
    workdirs = list(dict.fromkeys(paths))
    if flags.out is None and len(workdirs) > 1:
        parser.error(f"--out is required with {len(workdirs)} work directories")
    out = flags.out.expanduser().resolve() if flags.out else workdirs[0] / "report"
    against = flags.against and flags.against.expanduser().resolve()
    from gift_jax.report import build
    from gift_jax.runtime import errors

    try:
        files = build.write_report(workdirs, out, flags.baseline, against)
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
