"""Rounds of contenders in turn, and the ratios between them."""

import contextlib
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from experiments.benchmark.rounds import Samples, in_turn
from experiments.benchmark.workers import GEMM_SIZE, Worker
from experiments.benchmark.workloads import Workload, training_flops
from gift_jax.runtime.progress import ProgressBar

OURS = "experiments.benchmark.ours"
OFFICIAL = "experiments.benchmark.official"
GEMM_FLOPS = 2 * GEMM_SIZE**3

STORED = "stored soft labels"
ONLINE = "online teacher"
GEMMS = ("GEMM, JAX", "GEMM, PyTorch")
PYTORCH = ("PyTorch, channels_last", "PyTorch, contiguous")
# The same with memory kept by malloc, see gift_jax/runtime/allocator.py. It is no part
# of the official protocol as people run it, but open to them.
PYTORCH_KEPT = tuple(f"{name}, memory kept" for name in PYTORCH)


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        label: Name in the tables.
        worker: Name of the process that runs it.
        name: Its name in that process.
    """

    label: str
    worker: str
    name: str


_JAX = [
    Contender(GEMMS[0], "ours", "gemm"),
    Contender(STORED, "ours", "stored"),
    Contender(ONLINE, "ours", "online"),
]
_TORCH = [
    Contender(GEMMS[1], "torch", "gemm"),
    Contender(PYTORCH[0], "torch", "channels_last"),
    Contender(PYTORCH[1], "torch", "contiguous"),
    Contender(PYTORCH_KEPT[0], "torch kept", "channels_last"),
    Contender(PYTORCH_KEPT[1], "torch kept", "contiguous"),
]


def has_torch() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


class Workers:
    """The processes of all contenders.

    Args:
        pytorch: Whether those in PyTorch take part.
    """

    def __init__(self, *, pytorch: bool) -> None:
        self._stack = contextlib.ExitStack()
        self._workers: dict[str, Worker] = {}
        self._pytorch = pytorch
        self.contenders = _JAX + (_TORCH if pytorch else [])

    def __enter__(self) -> "Workers":
        commands: dict[str, tuple[str, ...]] = {"ours": (OURS,)}
        if self._pytorch:
            commands["torch"] = (OFFICIAL,)
            commands["torch kept"] = (OFFICIAL, "--keep-freed-memory")
        for name, command in commands.items():
            self._workers[name] = self._stack.enter_context(Worker(*command))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def seconds(self, contender: Contender, workload: Workload) -> float:
        """Seconds per step of one run."""
        worker = self._workers[contender.worker]
        return worker.seconds_per_step(contender.name, workload.name)


def steps_in_turn(
    workers: Workers,
    contenders: Sequence[Contender],
    workload: Workload,
    *,
    rounds: int,
    on_round: Callable[[], object] = lambda: None,
) -> Samples:
    """Seconds per step of each round, by label."""
    seconds = {
        contender.label: functools.partial(workers.seconds, contender, workload)
        for contender in contenders
    }
    return in_turn(seconds, rounds=rounds, on_round=on_round)


def in_processes(
    title: str,
    contenders: Sequence[Contender],
    workload: Workload,
    *,
    rounds: int,
    pytorch: bool,
) -> Samples:
    """`steps_in_turn` in processes that are started for it, with a bar."""
    with (
        Workers(pytorch=pytorch) as processes,
        ProgressBar(title, total=rounds, unit="round") as bar,
    ):
        return steps_in_turn(
            processes,
            contenders,
            workload,
            rounds=rounds,
            on_round=lambda: bar.update(1),
        )


def loss_overhead(workers: Workers, workload: Workload, *, rounds: int) -> list[float]:
    """Time of a step with GIFT over one with cross-entropy, of every round."""
    pair = [
        Contender("gift", "ours", "gift"),
        Contender("ce", "ours", "ce"),
    ]
    samples = steps_in_turn(workers, pair, workload, rounds=rounds)
    return list(np.divide(samples["gift"], samples["ce"]))


def faster(samples: Samples, labels: Sequence[str]) -> str | None:
    """The label with the least median, of those that were timed."""
    timed = [label for label in labels if label in samples]
    return min(timed, key=lambda label: np.median(samples[label]), default=None)


def ratios(samples: Samples, workload: Workload) -> dict[str, list[float]]:
    """The ratios of the table, for every round; larger is better for this package."""
    stored = np.asarray(samples[STORED])
    gemm = faster(samples, GEMMS)
    assert gemm is not None
    found = {
        "of GEMM peak": training_flops(workload)
        / stored
        / (GEMM_FLOPS / np.asarray(samples[gemm]))
    }
    for name, labels in (("over PyTorch", PYTORCH), ("memory kept", PYTORCH_KEPT)):
        rival = faster(samples, labels)
        if rival is not None:
            found[f"{name}, stored"] = samples[rival] / stored
            found[f"{name}, online"] = samples[rival] / np.asarray(samples[ONLINE])
    return {name: [float(value) for value in values] for name, values in found.items()}
