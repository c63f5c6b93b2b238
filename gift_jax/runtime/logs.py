"""What a command says while it works."""

import logging

from absl import logging as absl_logging


def show(level: str = "INFO") -> None:
    """Shows what the stages say, but what Orbax says only with --verbosity=1.

    Orbax logs the tracebacks of errors that it raises as well.

    Args:
      level: The least that is shown, a name of `logging`.
    """
    if not absl_logging.level_debug():
        absl_logging.set_verbosity(absl_logging.FATAL)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("gift_jax")
    ours.addHandler(handler)
    ours.setLevel(level)
    ours.propagate = False
