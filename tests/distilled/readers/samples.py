"""What the tests here read and write."""

import io
import pathlib

import numpy as np
import pyarrow as pa
from flax import serialization
from PIL import Image
from pyarrow import parquet as pq

from gift_jax.data import info, preprocess
from gift_jax.distilled import zca
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures"


SHARED = pathlib.Path(__file__).resolve().parents[4] / "shared"


RNG = np.random.default_rng(0)


LABELS = np.repeat(np.arange(10), 2)


PIXELS = RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)


FLOATS = PIXELS.astype(np.float32) / 255


# Neighbours in them are alike, as in pictures.
SMOOTH = RNG.uniform(0.2, 0.8, (20, 1, 1, 3)) + RNG.uniform(-0.1, 0.1, (20, 4, 4, 3))
SMOOTH = SMOOTH.astype(np.float32)


CENTRED = (np.eye(10)[LABELS] - 0.1).astype(np.float32)


ZCA = np.load(FIXTURES / "data_zca.npz")


TRAIN_IMAGES = ZCA["images"]  # (150, 4, 4, 3) uint8


TINY_CIFAR = info.DatasetInfo("cifar10", 10, 4, 3, info.CIFAR)


def channels_first(images):
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def write_gift(directory, **changes):
    content = {"dataset": "cifar10", "data": channels_first(FLOATS), "label": LABELS}
    path = directory / "data.pt"
    torch_files.save_torch(path, {**content, **changes})
    return path


def write_folders(root, pattern="{0:05d}/class{0:05d}_id{1:05d}.png", images=PIXELS):
    seen = {}
    for image, label in zip(images, LABELS, strict=True):
        seen[label] = seen.get(label, -1) + 1
        path = root / pattern.format(label, seen[label])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=75)
    return root


def write_datm(directory, images, soft_labels, learning_rate=0.0123):
    directory.mkdir(exist_ok=True)
    torch_files.save_torch(directory / "images_best.pt", images)
    torch_files.save_torch(directory / "labels_best.pt", soft_labels)
    rate = np.array(learning_rate, np.float32)
    torch_files.save_torch(directory / "lr_best.pt", rate)
    return directory


def write_rfad(path, **changes):
    content = {"images": ZCA["rfad"], "labels": CENTRED, "k": 3.9, "jit": 0.005}
    np.savez(path, **{**content, **changes})
    return path


def neighbour_correlation(images):
    return np.corrcoef(images[:, :, 1:].ravel(), images[:, :, :-1].ravel())[0, 1]


def checkpoint(**extra):
    state = {"params": {"x_proto": frepo_images(), "y_proto": CENTRED}, "step": 3}
    for name, value in extra.items():
        state[name] = value
    return serialization.msgpack_serialize(state)


FREPO_STATISTICS = preprocess.Normalization(
    (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
)


def frepo_images():
    whitening = zca.fit_frepo(TRAIN_IMAGES, FREPO_STATISTICS)
    return whitening.apply(TRAIN_IMAGES[:20].astype(np.float32) / 255)


def write_parquet(path, images=PIXELS, labels=LABELS, column="class_id"):
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": "x.png"})
    columns = {"image": encoded, column: pa.array(labels, pa.int32())}
    pq.write_table(pa.table(columns), path)
    return path
