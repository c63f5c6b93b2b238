"""Step time over devices and hosts at a fixed global batch.

    python -m experiments.scaling --processes=1,2 --devices=1,2,4

Every combination is started anew, with virtual CPU devices unless `--platform` says
otherwise. On one machine all of them share its cores: the ratios then tell what the
collectives and smaller shares cost, not what more hardware gains.
"""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
from absl import app, flags

from gift_jax import augment, losses, models, optimizers
from gift_jax.data import preprocess
from gift_jax.runtime import allocator, cluster, hosts
from gift_jax.runtime.devices import AXIS, replicate
from gift_jax.soft_labels import views
from gift_jax.train import batches
from gift_jax.train.epochs import make_run_epoch
from gift_jax.train.step import create_train_state

_PROCESSES = flags.DEFINE_list("processes", ["1", "2"], "Numbers of processes.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4"], "Numbers of all devices.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a step, in all.")
_WIDTH = flags.DEFINE_integer("width", 32, "Of the ConvNet-3.")
_STEPS = flags.DEFINE_integer("steps", 40, "Steps that are timed.")
_PLATFORM = flags.DEFINE_string("platform", "cpu", "cpu: virtual devices.")
_WORKER = flags.DEFINE_list("worker", None, "Internal: coordinator, count, index.")

_CLASSES, _SIDE, _WARM_UP = 10, 32, 5


def main(argv: list[str]) -> None:
    """Prints a Markdown table, or times one combination as one of its processes."""
    del argv
    allocator.keep_freed_memory()  # as the main command does
    if _WORKER.value:
        coordinator, count, index = _WORKER.value
        if int(count) > 1:
            cluster.join(coordinator, int(count), int(index))
        seconds = step_seconds()
        if hosts.is_primary():
            print(json.dumps(seconds))
        return
    print("| processes | devices | ms per step | relative |")
    print("|---|---|---|---|")
    first = None
    for processes in map(int, _PROCESSES.value):
        for devices in map(int, _DEVICES.value):
            if devices % processes == 0:
                seconds = _run(processes, devices // processes)
                first = first or seconds
                ratio = seconds / first
                print(
                    f"| {processes} | {devices} | {1e3 * seconds:.1f} | {ratio:.2f} |"
                )


def _run(processes: int, devices: int) -> float:
    """Starts the processes, each with some devices; returns the step time."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        coordinator = f"localhost:{listener.getsockname()[1]}"
    environment = {**os.environ}
    if _PLATFORM.value == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    visible = [range(i * devices, (i + 1) * devices) for i in range(processes)]
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "gift_jax.experiments.scaling", *sys.argv[1:]),
                f"--worker={coordinator},{processes},{index}",
            ],
            env={**environment, "CUDA_VISIBLE_DEVICES": ",".join(map(str, own))},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, own in enumerate(visible)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{processes} x {devices} failed, see above")
    return json.loads(outputs[0].splitlines()[-1])


def step_seconds() -> float:
    """Time of a training step of GIFT and AdamW, the fastest of all.

    Others may share the machine, and delay some steps.
    """
    devices = hosts.devices(jax.local_devices())
    model = models.create_model(
        "conv3",
        num_classes=_CLASSES,
        image_size=_SIDE,
        width=_WIDTH.value,
        axis_name=AXIS,
    )
    state = create_train_state(
        model,
        optimizers.OptimizerSpec("adamw"),
        (_SIDE, _SIDE, 3),
        epochs=1,
        steps_per_epoch=1000,
        init_key=jax.random.key(0),
        dropout_key=jax.random.key(1),
    )
    rng = np.random.default_rng(0)
    size = _BATCH_SIZE.value
    batches.check_batch_size(size, len(devices))
    data = views.TrainData(
        images=rng.integers(0, 256, (size, _SIDE, _SIDE, 3), dtype=np.uint8),
        labels=np.arange(size, dtype=np.int32) % _CLASSES,
        view_key=jax.random.key(2),
    )
    view = views.View(np.int32(0), rng.normal(size=(size, _CLASSES)).astype(np.float16))
    state, data, view = replicate((state, data, view), devices)
    run_epoch = make_run_epoch(
        loss=losses.get_loss("gift"),
        view_images=views.AugmentedViews(
            augment.AugmentSpec(diffaug="flip"),
            preprocess.Normalization((0.5,) * 3, (0.25,) * 3),
        ),
        devices=devices,
    )
    times = []
    for epoch in range(_WARM_UP + _STEPS.value):
        order = batches.epoch_order(jax.random.key(3), epoch, size)
        one_batch = batches.epoch_batches(
            order, batch_size=size, num_devices=len(devices)
        )
        started = time.perf_counter()
        state, metrics = run_epoch(state, data, view, one_batch)
        jax.block_until_ready(metrics.parts)
        times.append(time.perf_counter() - started)
    return min(times[_WARM_UP:])


if __name__ == "__main__":
    app.run(main)
