"""How much of the time a device computed, from a trace of JAX's profiler."""

import pathlib
import time
from collections.abc import Callable, Iterable

import jax

# Prefixes of the names of devices' planes, and of their lines that hold operations. On
# other lines, names of whole programs cover the gaps between operations.
_LINES = {"/device:GPU": "Stream", "/device:TPU": "XLA Ops"}


def busy_share(run: Callable[[], object], directory: pathlib.Path) -> float | None:
    """Traces what a function does.

    Args:
        run: The function; returns when the device is done.
        directory: Folder of the trace; TensorBoard's profile plugin and XProf open it,
            and https://ui.perfetto.dev its trace.json.gz.

    Returns:
        The share of wall time in which the first accelerator computed; None where the
        trace tells of none, as on CPUs.
    """
    with jax.profiler.trace(str(directory)):
        began = time.perf_counter()
        run()
        wall = time.perf_counter() - began
    newest = max(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    intervals = device_intervals(jax.profiler.ProfileData.from_file(str(newest)))
    return covered(intervals) * 1e-9 / wall if intervals else None


def device_intervals(trace: jax.profiler.ProfileData) -> list[tuple[float, float]]:
    """Begin and end of all operations of the first accelerator, in nanoseconds."""
    planes = sorted(trace.planes, key=lambda plane: plane.name)
    devices = [plane for plane in planes if plane.name.startswith(tuple(_LINES))]
    return [
        (event.start_ns, event.start_ns + event.duration_ns)
        for plane in devices[:1]
        for line in plane.lines
        if line.name.startswith(_LINES[plane.name[:11]])
        for event in line.events
    ]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    >>> covered([(0, 2), (1, 3), (5, 6), (5, 5.5)])
    4
    """
    length, end = 0.0, -float("inf")
    for first, last in sorted(intervals):
        length += max(last - max(first, end), 0)
        end = max(end, last)
    return length
