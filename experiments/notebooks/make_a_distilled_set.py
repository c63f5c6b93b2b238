# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Make a distilled set
#
# Two ways to make ten images per class of scikit-learn's digits: RDED chooses crops of
# real images ([Sun et al. 2024](https://arxiv.org/abs/2312.03526)), SRe2L recovers
# images from the teacher by gradient descent
# ([Yin et al. 2023](https://arxiv.org/abs/2306.13092)). The images appear as they are
# made, and at the end students say what they are worth.
#
# The first cell installs gift_jax where it is missing, from a wheel in the notebook's
# folder (on Colab, uploaded there), which `pip wheel --no-deps .` makes in a clone.
# Colab has Python 3.13 and JAX 0.7.2
# ([August 2026](https://github.com/googlecolab/backend-info)), which are enough.

# %%
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec("gift_jax") is None:
    get_ipython().run_line_magic("pip", "install -q ./gift_jax-*.whl")

# %%
import pathlib
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import gift_jax
from gift_jax import distill, losses, models
from gift_jax.augment import AugmentSpec
from gift_jax.data.real import load_dataset
from gift_jax.optimizers import OptimizerSpec
from gift_jax.soft_labels import AugmentedViews
from gift_jax.soft_labels.views import train_data
from gift_jax.teachers import FlaxTeacher
from gift_jax.train.step import new_student
from gift_jax.train.teacher import TrainingSpec, train_teacher

EPOCHS, TEACHER_EPOCHS, ITERATIONS, NETWORK = 100, 30, 500, "conv3"
print(f"JAX {jax.__version__} on {jax.devices()}")

# %% [markdown]
# ## A teacher
#
# With batch norm, whose statistics of real images SRe2L's images must have, too.

# %%
digits = load_dataset("digits")
network = models.create_model(
    NETWORK, num_classes=10, image_size=8, width=32, axis_name="batch"
)
training = TrainingSpec(
    optimizer=OptimizerSpec("sgd", learning_rate=0.1, schedule="cosine"),
    epochs=TEACHER_EPOCHS,
    batch_size=128,
    augmentation=AugmentSpec(pad_crop=1),
    seed=0,
)
with tempfile.TemporaryDirectory() as folder:
    variables = train_teacher(
        network,
        digits.train,
        training,
        digits.info.normalization,
        checkpoints_directory=pathlib.Path(folder),
    )
teacher = FlaxTeacher(NETWORK, network, variables, digits.info.normalization)
test_labels = digits.test.labels
test_images = digits.test.images(np.arange(len(test_labels)))
answers = teacher.logits(test_images / np.float32(255)).argmax(axis=1)
print(f"the teacher: top-1 {100 * np.mean(answers == test_labels):.2f} %")

# %% [markdown]
# ## RDED: crops of real images
#
# Five crops of each of a hundred images per class; the ten of which the teacher is
# surest remain. A row is a class, and the first image of a row is the best.

# %%
sets = {}
rded = distill.make_distiller("rded", ipc=10, images_per_class=100)
sets["rded"] = rded.make(digits, teacher=teacher, seed=0)
sets["rded"]

# %% [markdown]
# ## SRe2L: images from noise, as they are made
#
# Adam changes noise until the teacher classifies it, and until the batch-norm layers
# see the statistics that they know from real images. Ten images, one of each class, are
# recovered at a time: each time the picture below grows by a column.

# %%
sre2l = distill.make_distiller("sre2l", ipc=10, iterations=ITERATIONS, batch_size=10)
picture = display("noise ...", display_id=True)
with tempfile.TemporaryDirectory() as folder:
    preview = pathlib.Path(folder) / "preview.png"

    def show(done, total, **terms):
        """Called after every iteration, with the terms of the loss."""
        if preview.exists() and done % ITERATIONS == 0:
            picture.update(Image(str(preview)))

    sets["sre2l"] = sre2l.make(
        digits,
        teacher=teacher,
        seed=0,
        on_progress=show,
        directory=pathlib.Path(folder),
    )
picture.update(sets["sre2l"])

# %% [markdown]
# ## From noise to an image
#
# The same recovery, with ever more iterations, and what remains of the two terms of the
# loss.

# %%
numbers = [1, max(2, ITERATIONS // 50), max(3, ITERATIONS // 10), ITERATIONS]
figure, panels = plt.subplots(len(numbers), 10, figsize=(8, 0.95 * len(numbers)))
for row, iterations in zip(panels, numbers, strict=True):
    terms = {}
    recovered = distill.make_distiller("sre2l", ipc=1, iterations=iterations).make(
        digits,
        teacher=teacher,
        seed=0,
        on_progress=lambda done, total, images, to=terms, **now: to.update(now),
    )
    for axes, image in zip(row, recovered.images, strict=True):
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(iterations, rotation=0, ha="right", va="center")
    print(iterations, "iterations:", {n: f"{value:.3g}" for n, value in terms.items()})
for digit, axes in enumerate(panels[0]):
    axes.set_title(digit)
figure.supylabel("iterations")
figure.tight_layout()

# %% [markdown]
# ## What are they worth?
#
# A student on each, and on ten random real images per class, with GIFT.

# %%
sets["random"] = distill.make_distiller("random", ipc=10).make(
    digits, teacher=None, seed=0
)
augment = AugmentSpec(diffaug="color_crop_cutout_scale_rotate")
length, worth = {"epochs": EPOCHS, "batch_size": 50}, {}
for name, distilled in sets.items():
    data, to_inputs = train_data(distilled, seed=0)
    fitted = gift_jax.fit(
        new_student(network, OptimizerSpec("adamw"), data, **length),
        data,
        gift_jax.relabel(teacher, distilled, augment=augment, views=EPOCHS, seed=0),
        loss=losses.get_loss("gift"),
        view_images=AugmentedViews(augment, to_inputs),
        order_key=jax.random.key(0),
        **length,
    )
    found = gift_jax.evaluate(
        fitted.state, test_images, test_labels, distilled.preprocess
    )
    worth[name] = found.top1
    print(f"{name:6} top-1 {found.top1:.2f} %")

# %%
figure, axes = plt.subplots(figsize=(5, 2))
axes.bar_label(axes.barh(list(worth), list(worth.values())), fmt="%.1f", padding=3)
axes.set(xlabel="top-1 on the test split in %", xlim=(0, 110))
figure.tight_layout()

# %% [markdown]
# One seed on 8x8 digits says little about other data. The job does the same with any
# dataset and more distillers side by side: `python -m gift_jax.main
# --config=gift_jax:digits:distill=random+rded+sre2l --workdir=DIR`. To hand a set on,
# `gift_jax.distilled.write_distilled` writes it in the formats of other evaluators.
