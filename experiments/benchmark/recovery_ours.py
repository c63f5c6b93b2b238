"""SRe2L's recovery by this package.

As a command it recovers the images of `recovery_problem` once, and prints the seconds.
"""

import argparse
import functools
import time

import jax
import numpy as np

from experiments.benchmark import recovery_problem, workers
from gift_jax import torch_io
from gift_jax.distill import Sre2l
from gift_jax.distill.recovery import loop, sre2l
from gift_jax.runtime import allocator
from gift_jax.teachers import FlaxTeacher


def teacher(width: int = 128) -> FlaxTeacher:
    """The ConvNet of `recovery_problem.checkpoint`."""
    workload, info = recovery_problem.WORKLOAD, recovery_problem.INFO
    tensors = recovery_problem.checkpoint(width)
    options = {"num_classes": info.num_classes, "image_size": info.image_size}
    variables = torch_io.import_torch(
        tensors, model=workload.network, width=width, **options
    )
    model = workload.model().clone(width=width)
    return FlaxTeacher(workload.network, model, variables, info.normalization)


def method(network: FlaxTeacher, iterations: int) -> loop.Method:
    """How the batch of `recovery_problem` is recovered."""
    info = recovery_problem.INFO
    distiller = Sre2l(recovery_problem.IPC, iterations=iterations)
    return distiller.method(network, info.normalization, info)


def iterations() -> workers.Run:
    """Iteration after iteration, some in a run, dispatched as `loop.recover` does."""
    info = recovery_problem.INFO
    how = method(teacher(), sre2l.Sre2l(1).constants(info).iterations)
    advance = jax.jit(
        functools.partial(loop.step, objective=how.objectives[0], method=how),
        donate_argnums=0,
    )
    labels = recovery_problem.LABELS.astype(np.int32)
    variables, key = jax.device_put(how.variables[0]), jax.random.key(0)
    state = how.start(jax.random.normal(key, (len(labels), *info.image_shape)))
    done = 0

    def run() -> int:
        nonlocal state, done
        for _ in range(recovery_problem.STEPS):
            state, terms = advance(state, key, labels, variables, np.int32(done))
            jax.device_get(terms)
            done += 1
        jax.block_until_ready(state)
        return recovery_problem.STEPS

    return run


def main() -> None:
    """Recovers once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, required=True)
    number = parser.parse_args().iterations
    allocator.keep_freed_memory()
    network = teacher()
    started = time.perf_counter()
    how = method(network, number)
    loop.recover(how, recovery_problem.INFO, ipc=recovery_problem.IPC, seed=0)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
