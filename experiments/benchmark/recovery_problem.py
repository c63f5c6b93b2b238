"""What the recoveries here and in PyTorch are both given; JAX is not started."""

import numpy as np

from experiments.benchmark.workloads import WORKLOADS
from gift_jax.data.info import DATASETS

INFO = DATASETS["cifar10"]
WORKLOAD = WORKLOADS["ConvNet-3, 32x32, batch 100"]
IPC = WORKLOAD.batch_size // INFO.num_classes
LABELS = np.repeat(np.arange(INFO.num_classes), IPC)
STEPS = 3  # iterations that are timed as one


def checkpoint(width: int = 128) -> dict[str, np.ndarray]:
    """Weights and running statistics of `WORKLOAD`'s ConvNet, drawn at random.

    Args:
        width: Channels of its convolutions.

    Returns:
        float32 arrays by the names of DATM's ConvNets ("features.0.weight").
    """
    rng = np.random.default_rng(0)
    depth = int(WORKLOAD.network.removeprefix("conv"))

    def normal(*shape: int, fan_in: int) -> np.ndarray:
        return rng.normal(size=shape) * np.sqrt(2 / fan_in)

    def vector(middle: float) -> np.ndarray:
        return rng.uniform(middle - 0.5, middle + 0.5, width)

    tensors: dict[str, np.ndarray] = {}
    for block in range(depth):
        inputs = width if block else 3
        conv, norm = f"features.{4 * block}", f"features.{4 * block + 1}"
        tensors |= {
            f"{conv}.weight": normal(width, inputs, 3, 3, fan_in=9 * inputs),
            f"{conv}.bias": vector(0),
            f"{norm}.weight": vector(1),
            f"{norm}.bias": vector(0),
            f"{norm}.running_mean": vector(0),
            f"{norm}.running_var": vector(1),
        }
    features = width * (WORKLOAD.image_size // 2**depth) ** 2
    classes = WORKLOAD.num_classes
    tensors["classifier.weight"] = normal(classes, features, fan_in=features)
    tensors["classifier.bias"] = np.zeros(classes)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
