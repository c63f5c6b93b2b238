"""Memory and time of relabelling at the size of ImageNet, on fabricated images.

`python -m experiments.relabel_scale` labels 10,000 random images of 64x64 with 1,000
classes and 30 views by a small network with random weights, reads all labels as a
training does, and states the peak memory of both. The labels are as many as those of
ImageNet-1k with 10 images per class; what depends on the teacher is its time only.
"""

import argparse
import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from gift_jax import augment, models
from gift_jax.data import preprocess
from gift_jax.distilled.dataset import DistilledDataset, Metadata
from gift_jax.runtime import allocator
from gift_jax.runtime.units import readable_size
from gift_jax.soft_labels import relabel, views
from gift_jax.soft_labels.base import LabelViews, prefetched
from gift_jax.soft_labels.codecs import LabelCodec, get_codec, stored_bytes
from gift_jax.soft_labels.store import open_store
from gift_jax.teachers import FlaxTeacher

_NORMALIZATION = preprocess.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BATCH_SIZE = 250


@dataclasses.dataclass(frozen=True)
class Size:
    """What is labelled.

    Attributes:
      images: Number of images, N.
      classes: Number of classes, C.
      side: Side of an image, in pixels.
      views: Views of every image.
    """

    images: int = 10_000
    classes: int = 1000
    side: int = 64
    views: int = 30


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one phase.

    Attributes:
      seconds: Seconds that it took.
      before: Resident bytes of the process at its start.
      peak: Most resident bytes during it.
    """

    seconds: float
    before: int
    peak: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, peak {readable_size(self.peak)} "
            f"({readable_size(self.peak - self.before)} above the start)"
        )


def measure(function: Callable[[], None]) -> Cost:
    """Time and peak memory of a call; on Linux."""
    # Resets the peak, see proc(5).
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, began = _resident("VmRSS"), time.monotonic()
    function()
    return Cost(time.monotonic() - began, before, _resident("VmHWM"))


def _resident(field: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field)]
    return 1024 * int(line.split()[1])


def fabricate(size: Size) -> LabelViews:
    """A teacher with random weights, on random images that are kept on the device."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (size.images, size.side, size.side, 3), dtype=np.uint8
    )
    dataset = DistilledDataset(
        images=pixels / np.float32(255),
        labels=np.arange(size.images) % size.classes,
        metadata=Metadata("fabricated", size.classes, "random", ""),
        preprocess=_NORMALIZATION,
    )
    data, normalization = views.train_data(dataset, seed=0)
    model = models.create_model(
        "conv4", num_classes=size.classes, image_size=size.side, width=32
    )
    variables = models.init_variables(
        model, jax.random.key(0), image_size=size.side, channels=3
    )
    return relabel.make_label_views(
        FlaxTeacher("conv4", model, variables, _NORMALIZATION),
        data,
        views.AugmentedViews(
            augment.AugmentSpec(diffaug=augment.DIFFAUG_STRATEGY), normalization
        ),
        transform=_NORMALIZATION,
        devices=jax.local_devices()[:1],
    )


def run(size: Size, codec: LabelCodec, directory: pathlib.Path) -> dict[str, Cost]:
    """Labels one view that is not stored, labels all views, and reads them.

    Args:
      size: What is labelled.
      codec: How labels are stored.
      directory: Directory of the store.

    Returns:
      What each of the three costs.
    """
    label_views = fabricate(size)
    count = -(-size.images // _BATCH_SIZE)
    batches = np.resize(np.arange(size.images), (count, _BATCH_SIZE))
    label_views(0, batches[0])  # compiles
    store = open_store(
        directory / "logits",
        views=size.views,
        num_images=size.images,
        num_classes=size.classes,
        codec=codec,
    )

    def teacher_alone() -> None:
        for batch in batches:
            label_views(0, batch)

    def read() -> None:
        for view in prefetched(store.start_reading, range(size.views)):
            jax.block_until_ready(jax.device_put(view.logits))

    return {
        "the teacher alone, one view": measure(teacher_alone),
        "relabelling": measure(
            lambda: relabel.relabel(store, label_views, batch_size=_BATCH_SIZE)
        ),
        "reading": measure(read),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    for field in dataclasses.fields(Size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--format", default="float16", type=get_codec)
    arguments = vars(parser.parse_args())
    codec, size = arguments.pop("format"), Size(**arguments)
    allocator.keep_freed_memory()  # as the main command
    with tempfile.TemporaryDirectory() as directory:
        costs = run(size, codec, pathlib.Path(directory))
    labels = functools.partial(
        stored_bytes,
        codec,
        num_images=size.images,
        num_classes=size.classes,
    )
    print(f"{size}: {readable_size(labels(views=size.views))} in {codec.name}")
    for phase, cost in costs.items():
        print(f"{phase}: {cost}")
    minutes = 300 / size.views * costs["relabelling"].seconds / 60
    print(
        f"300 views: {readable_size(labels(views=300))}, {minutes:.0f} min "
        "with this teacher, the same peak"
    )


if __name__ == "__main__":
    main()
