"""Packs what students are trained on, for a machine that has nothing else.

    python -m gift_jax.pack --config=configs/cifar100.py --workdir=DIR --out=PACK

makes, or finds in the work directory, the teacher and the distilled dataset of a config
and writes them to a folder with the test split and `config.flags`. Copied to a cluster
without a network, any command trains there as it would here:

    python -m gift_jax.main --config=configs/cifar100.py --flagfile=PACK/config.flags \\
        --workdir=DIR

from the folder that holds the pack. Nothing of TFDS, Grain or array_record is needed.

Of the real train images only those are packed that learning rates are tuned on
(`tuning.validation_images`), or at most 5,000 to calibrate temperatures on; nothing can
be distilled there.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from gift_jax import configs
from gift_jax.pack.write import FLAGS_FILE, pack
from gift_jax.runtime import errors, logs, paths, preemption, startup
from gift_jax.specs import options

_CONFIG = configs.define_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of all products.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; must not be there yet.")
flags.mark_flags_as_required(["config", "workdir", "out"])


def main(argv: Sequence[str]) -> int:
    """The command. Returns its exit code."""
    del argv
    logs.show()
    try:
        out = paths.local(str(_OUT.value), "--out")
        workdir = paths.local(str(_WORKDIR.value), "--workdir").resolve()
        config = _CONFIG.value
        options.with_flags(config, configs.given(_CONFIG))
        startup.prepare(runs_own_code=options.names_own_code(config))
        preemption.listen()
        pack(config, workdir, out)
    except preemption.PreemptedError:
        print("stopped by SIGTERM; the same command goes on", file=sys.stderr)
        return preemption.EXIT_CODE
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    out = out.resolve()
    print(
        f"{out}: {total / 1e6:.1f} MB; use it in the folder that holds it with "
        f"--flagfile={out.name}/{FLAGS_FILE}"
    )
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=configs.parse_flags)
