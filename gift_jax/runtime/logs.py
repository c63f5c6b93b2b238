"""The log of a command."""

import logging

from absl import logging as absl_logging


def show(level: str = "INFO") -> None:
    """Shows the log of the stages, and that of Orbax only with --verbosity=1.

    Orbax also logs the tracebacks of errors that it raises.

    Args:
      level: Lowest level that is shown, by its name in `logging`.
    """
    if not absl_logging.level_debug():
        absl_logging.set_verbosity(absl_logging.FATAL)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("gift_jax")
    ours.addHandler(handler)
    ours.setLevel(level)
    ours.propagate = False
