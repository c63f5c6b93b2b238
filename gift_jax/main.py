"""The command: `python -m gift_jax.main --config=configs/digits.py --workdir=DIR`.

The configs here are installed with the package, and found from any folder by name:
`--config=gift_jax:digits`. Fields of the config are set with `--config.field=value`;
options of a config file follow a colon: `--config=configs/cifar10.py:ipc=10`.

With several hosts the command is started on every one, with `--distributed` where JAX
detects them (Cloud TPU, GKE, SLURM, Open MPI), else with `--coordinator_address`,
`--num_processes` and `--process_id`; the work directory must be one that all share.

Exit codes: 0, 1 after an error, 2 after a mistake on the command line, 75 after
SIGTERM, 130 after Ctrl-C. After 75 and 130 the same command goes on.
"""

import functools
import io
import logging
import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging
from ml_collections.config_dict import ConfigDict

from gift_jax import configs

_CONFIG = configs.define_flag()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of all products; created if absent."
)
_SHARD = flags.DEFINE_string(
    "shard",
    "0/1",
    "Which part of the students to train, as 0/4: several processes can share the "
    "students of a work directory.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the hosts of the cluster that JAX detects."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where none is detected."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes, where no cluster is detected."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, where no cluster is detected."
)
_INITIALIZATION_TIMEOUT = flags.DEFINE_integer(
    "initialization_timeout", 300, "Seconds to wait for all processes to start."
)
flags.mark_flags_as_required(["config", "workdir"])

Change = Callable[[ConfigDict], None]


def run(change: Change | None = None) -> None:
    """Runs the command, also for the studies in experiments/.

    Args:
      change: Makes the changes of a study to a config; fields given on the command line
        keep their value.
    """
    app.run(functools.partial(main, change=change), flags_parser=_parse_flags)


def main(argv: Sequence[str], *, change: Change | None = None) -> int:
    """Runs the job and prints its table.

    Returns:
      The exit code.
    """
    del argv
    # None where the caller has closed them, as by `2>&-`.
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    from gift_jax.runtime import logs

    logs.show()
    config = _CONFIG.value
    given = configs.given(_CONFIG)
    # Imported after the flags are checked, so that mistakes are reported at once.
    from gift_jax.runtime import cluster, errors, hosts, preemption, startup
    from gift_jax.specs import options

    try:
        options.with_flags(config, given, change)
        startup.prepare(runs_own_code=options.names_own_code(config))
        return _run_job(config)
    except preemption.PreemptedError:
        print(f"stopped by SIGTERM; {_GO_ON}", file=sys.stderr)
        return preemption.EXIT_CODE
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it at once
        print(f"interrupted; {_GO_ON}", file=sys.stderr)
        cluster.fail("it was interrupted", code=130)
        return 130
    except errors.EXPECTED as error:
        if absl_logging.level_debug():
            traceback.print_exc()
        print(f"error: {errors.message(error)}", file=sys.stderr)
        print("(--verbosity=1 shows where it was raised)", file=sys.stderr)
        cluster.fail(errors.message(error))
        return 1
    except BaseException as error:
        if hosts.count() > 1:
            traceback.print_exc()
            cluster.fail(f"unexpected {type(error).__name__}: {error}")
        raise


_GO_ON = (
    "run the same command again to go on: finished stages, soft labels and checkpoints "
    "are kept"
)


def _run_job(config: ConfigDict) -> int:
    from gift_jax.pipeline import grid, job, results
    from gift_jax.report.summary import summary_table
    from gift_jax.runtime import cluster, hosts, paths, preemption

    directory = paths.local(str(_WORKDIR.value), "--workdir").resolve()
    shard = grid.Shard.parse(_SHARD.value)
    places = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value or any(place is not None for place in places):
        cluster.join(*places, timeout_seconds=_INITIALIZATION_TIMEOUT.value)
        hosts.require_equal(lambda: _settings(config))
    if not hosts.is_primary():
        logging.getLogger("gift_jax").setLevel(logging.ERROR)
    preemption.listen()
    rows = job.run_job(config, directory, shard=shard)
    if hosts.is_primary():
        print(summary_table(rows))
        print(f"results: {directory / results.RESULTS_FILE}")
        print(f"python -m gift_jax.report {directory} makes tables and plots of them")
    return 0


def _settings(config: ConfigDict) -> dict[str, str]:
    """What hosts must have in common: versions, code and config."""
    import importlib.metadata

    import jax

    import gift_jax
    from gift_jax.runtime import checksums
    from gift_jax.specs import options

    code = checksums.digests(pathlib.Path(gift_jax.__file__).parent)
    python = {name: d for name, d in code.items() if name.endswith(".py")}
    versions = {"gift_jax": gift_jax.__version__, "jax": jax.__version__}
    # Packages that every host computes its own updates with.
    for package in ("jaxlib", "flax", "optax", "numpy", "orbax-checkpoint"):
        versions[package] = importlib.metadata.version(package)
    named = options.flattened(config)
    # Copies of the real images may have another place on every host.
    named.pop("dataset.data_dir", None)
    return {
        **versions,
        "code of gift_jax": checksums.fingerprint(python),
        "--shard": _SHARD.value,
        **{f"config.{name}": value for name, value in named.items()},
    }


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a mistake is one message and exit code 2."""
    try:
        rest = configs.parsed(argv)
    except flags.Error as error:
        sys.exit(_usage(str(error)))
    if not _WORKDIR.value:
        sys.exit(_usage("--workdir is empty"))
    if len(rest) > 1:
        sys.exit(_usage(f"unexpected arguments: {' '.join(rest[1:])}"))
    return rest


def _usage(message: str) -> int:
    print(f"error: {message}\n\n{__doc__}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    run()
