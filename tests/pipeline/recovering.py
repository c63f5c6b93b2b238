"""The command, of which nothing is left but the images, of a teacher by chance."""

import pathlib

import jax

from gift_jax import main, models, specs
from gift_jax.data import real
from gift_jax.distill import unfinished as unfinished_lib
from gift_jax.distill.unfinished import Unfinished
from gift_jax.pipeline import job as job_stage
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import JobDistilled, make_distilled
from gift_jax.teachers import FlaxTeacher


def make_images(config, directory: pathlib.Path) -> JobDistilled:
    """Those that a config of digits asks for, with a teacher of random weights."""
    digits = real.load_dataset("digits")
    model = models.create_model("conv1", num_classes=10, image_size=8, width=8)
    key = jax.random.key(0)
    variables = models.init_variables(model, key, image_size=8, channels=1)
    teacher = FlaxTeacher("conv1", model, variables, digits.info.normalization)
    (spec,) = specs.expand(config)
    job = Job(spec, directory, digits, tuple(jax.local_devices()))
    return make_distilled(job, teacher)


def _run_job(config, directory, *, shard):
    keep = Unfinished.keep

    def loudly(self, part, array):
        keep(self, part, array)
        print(f"kept {part}", flush=True)

    Unfinished.keep = loudly
    unfinished_lib._SECONDS_BETWEEN_SAVES = 0.3
    make_images(config, directory)
    return []


if __name__ == "__main__":
    job_stage.run_job = _run_job
    main.run()
