# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # GIFT in ten minutes
#
# Students are trained on a few images per class against a teacher's soft labels. Which
# loss they are trained with decides the outcome, most of all when the optimizer changes
# (Shang, Sun and Lin, ICLR 2025, [arXiv 2405.14736](https://arxiv.org/abs/2405.14736)).
#
# This notebook makes all that is needed out of scikit-learn's 8x8 digits: a teacher,
# ten images per class, soft labels of every augmented view, and students with three
# losses under two optimizers. On two CPU cores it takes a few minutes; a GPU or TPU
# runtime is used if there is one. Where there is a network, `DATASET` can be CIFAR-10.
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

import gift_jax
from gift_jax import distill, labels, losses, models
from gift_jax.augment import AugmentSpec
from gift_jax.data.real import load_dataset
from gift_jax.optimizers import OptimizerSpec
from gift_jax.soft_labels import AugmentedViews
from gift_jax.soft_labels.views import train_data
from gift_jax.teachers import FlaxTeacher
from gift_jax.train.step import new_student
from gift_jax.train.teacher import TrainingSpec, train_teacher

DATASET = "digits"  # "cifar10" after `python -m gift_jax.data.prepare cifar10`
EPOCHS, TEACHER_EPOCHS, NETWORK = 200, 30, "conv3"
print(f"JAX {jax.__version__} on {jax.devices()}")

# %% [markdown]
# ## A teacher
#
# A small ConvNet, trained on the hard labels of the train split.

# %%
real = load_dataset(DATASET)
size, num_classes = real.info.image_shape[0], real.info.num_classes
normalization = real.info.normalization
teacher_network = models.create_model(
    NETWORK, num_classes=num_classes, image_size=size, width=32, axis_name="batch"
)
training = TrainingSpec(
    optimizer=OptimizerSpec("sgd", learning_rate=0.1, schedule="cosine"),
    epochs=TEACHER_EPOCHS,
    batch_size=128,
    augmentation=AugmentSpec(pad_crop=size // 8),
    seed=0,
)
with tempfile.TemporaryDirectory() as checkpoints:
    variables = train_teacher(
        teacher_network,
        real.train,
        training,
        normalization,
        checkpoints_directory=pathlib.Path(checkpoints),
    )
teacher = FlaxTeacher(NETWORK, teacher_network, variables, normalization)

# %% [markdown]
# ## Ten images per class
#
# RDED keeps the real crops that the teacher is surest of. A distilled dataset shows its
# images, one row per class.

# %%
rded = distill.make_distiller("rded", ipc=10, images_per_class=100)
distilled = rded.make(real, teacher=teacher, seed=0)
distilled

# %% [markdown]
# ## Soft labels, once for all
#
# Every epoch sees another augmented view of the images. A view is a function of a seed,
# so the teacher labels all of them once, and every student replays them.

# %%
augment = AugmentSpec(diffaug="color_crop_cutout_scale_rotate")
soft_labels = gift_jax.relabel(
    teacher, distilled, augment=augment, views=EPOCHS, seed=0
)

# %% [markdown]
# ## What GIFT does to a soft label
#
# The smoothed hard label is added, both at unit length.

# %%
view = soft_labels.logits[0]
image = int(np.argmin(view[np.arange(len(view)), distilled.labels]))
soft, hard = view[image : image + 1], distilled.labels[image : image + 1]
rows = {
    "soft label (unit length)": labels.unit_length(soft)[0],
    "smoothed hard label (unit length)": labels.unit_length(
        labels.smooth_labels(hard, num_classes)
    )[0],
    "refined soft label": labels.refine_labels(soft, hard)[0],
}
figure, axes = plt.subplots(1, 3, figsize=(10, 2.4), sharey=True)
for axis, (title, values) in zip(axes, rows.items(), strict=True):
    colors = np.where(np.arange(num_classes) == hard[0], "tab:orange", "tab:blue")
    axis.bar(range(num_classes), values, color=colors)
    axis.set(title=title, xlabel="class", xticks=range(num_classes))
figure.tight_layout()

# %% [markdown]
# ## Three losses, two optimizers
#
# KL as in the official code (temperature 20, without the factor T^2), KL times T^2, and
# GIFT, each under SGD and AdamW at their default learning rates.

# %%
LOSSES = {
    "KL": losses.get_loss("kl"),
    "KL x T^2": losses.get_loss("kl", t_squared=True),
    "GIFT": losses.get_loss("gift"),
}
OPTIMIZERS = {"SGD": OptimizerSpec("sgd"), "AdamW": OptimizerSpec("adamw")}
data, to_inputs = train_data(distilled, seed=0)
student_network = models.create_model(
    NETWORK, num_classes=num_classes, image_size=size, width=32, axis_name="batch"
)
test = real.test
test_images, test_labels = test.images(np.arange(len(test))), test.labels
length = {"epochs": EPOCHS, "batch_size": 10}
top1, gradient_norms = {}, {}
for optimizer_name, optimizer in OPTIMIZERS.items():
    for loss_name, loss in LOSSES.items():
        student = new_student(student_network, optimizer, data, **length)
        fitted = gift_jax.fit(
            student,
            data,
            soft_labels,
            loss=loss,
            view_images=AugmentedViews(augment, to_inputs),
            order_key=jax.random.key(0),
            **length,
        )
        accuracy = gift_jax.evaluate(
            fitted.state, test_images, test_labels, distilled.preprocess
        )
        top1[optimizer_name, loss_name] = accuracy.top1
        gradient_norms[loss_name] = fitted.record.gradient_norm_first
        print(f"{optimizer_name:6} {loss_name:9} top-1 {accuracy.top1:.2f} %")

# %% [markdown]
# ## The picture
#
# Adam and its kin divide the size of a gradient out; SGD does not. On the right is what
# explains most of the left: the norm of the first gradient.

# %%
figure, (bars, norms) = plt.subplots(1, 2, figsize=(10, 3))
for offset, loss_name in enumerate(LOSSES):
    heights = [top1[optimizer, loss_name] for optimizer in OPTIMIZERS]
    places = np.arange(len(OPTIMIZERS)) + 0.25 * (offset - 1)
    bars.bar_label(bars.bar(places, heights, 0.23, label=loss_name), fmt="%.1f")
bars.set(xticks=range(len(OPTIMIZERS)), xticklabels=OPTIMIZERS, ylabel="top-1 in %")
bars.margins(y=0.15)
bars.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
norms.barh(list(gradient_norms), list(gradient_norms.values()))
norms.set(xscale="log", xlim=(1e-3, 10), xlabel="norm of the first gradient")
figure.tight_layout()

# %% [markdown]
# One seed on 8x8 digits says little about other data: `python -m
# gift_jax.experiments.cross_optimizer` runs it with several seeds, tuned learning rates
# and any dataset, and `python -m gift_jax.report` shows what came of it.
