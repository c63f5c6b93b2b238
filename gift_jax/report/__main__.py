"""The command: `python -m gift_jax.report WORKDIR... [--out=DIR] [--baseline=LOSS]`.

`--against=OLD` puts a table of what changed since another work directory first, and
`--scores` adds one of DD-Ranking's scores.
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
    add("--baseline", help="loss to compare with; by default kl, or else kl x T^2")
    since = "another work directory: what changed since is the first table"
    add("--against", metavar="OLD", type=pathlib.Path, help=since)
    add("--scores", action="store_true", help="a table of DD-Ranking's scores")
    whole = "of the whole train split with hard labels; by default the teacher's"
    add("--real-accuracy", metavar="PERCENT", type=float, help=whole)
    flags = parser.parse_args(argv)
    if flags.real_accuracy is not None and not flags.scores:
        parser.error("--real-accuracy is for --scores")
    if not 0 <= (flags.real_accuracy or 0) <= 100:
        parser.error(f"--real-accuracy is {flags.real_accuracy}, expected a percentage")
    paths = [path.expanduser().resolve() for path in flags.workdirs]
    workdirs = list(dict.fromkeys(paths))
    if flags.out is None and len(workdirs) > 1:
        parser.error(f"--out is required with {len(workdirs)} work directories")
    out = flags.out.expanduser().resolve() if flags.out else workdirs[0] / "report"
    against = flags.against and flags.against.expanduser().resolve()
    from gift_jax.report import build
    from gift_jax.runtime import errors

    try:
        scored = build.Scored(flags.real_accuracy) if flags.scores else None
        files = build.write_report(workdirs, out, flags.baseline, against, scored)
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
