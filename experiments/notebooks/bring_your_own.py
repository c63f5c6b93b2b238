# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own
#
# A distilled set from a file of yours, your teacher, your loss: trained here on arrays,
# stopped and gone on with, and then by the command's job, whose report opens in the
# notebook. Whatever is yours below is a few lines; put your own in their place.
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
import inspect
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gift_jax
from gift_jax import losses, models
from gift_jax.augment import AugmentSpec
from gift_jax.configs import digits as digits_config
from gift_jax.data import Normalization
from gift_jax.data.real import load_dataset
from gift_jax.optimizers import OptimizerSpec
from gift_jax.soft_labels import AugmentedViews
from gift_jax.soft_labels.views import train_data
from gift_jax.teachers import CallableTeacher, TorchTeacher
from gift_jax.train.checkpoint import Checkpoints
from gift_jax.train.step import new_student

EPOCHS, NETWORK, SEEDS = 100, "conv2", (0, 1, 2)
folder = pathlib.Path("bring_your_own")
folder.mkdir(exist_ok=True)
print(f"JAX {jax.__version__} on {jax.devices()}")

# %% [markdown]
# ## A distilled set from a file
#
# An npz with `images` and `labels` is one of the formats that are read; the others are
# told by what lies at the path, and listed in docs/formats.md. The file of this
# notebook is made here, of the first ten digits of every class. (A dataset that has no
# name here is described: `dataset=gift_jax.data.DatasetInfo(...)`.)

# %%
digits = load_dataset("digits")
labels = digits.train.labels
first = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(10)])
np.savez(folder / "mine.npz", images=digits.train.images(first), labels=labels[first])

distilled = gift_jax.read_distilled(folder / "mine.npz", dataset="digits")
distilled

# %% [markdown]
# ## A teacher that is a function
#
# From pixels in [0, 1] to logits, whatever computes them.


# %%
def build_teacher():
    """A logistic regression on the whole train split, as a function of pixels."""
    from sklearn.linear_model import LogisticRegression

    train = load_dataset("digits").train
    pixels = train.images(np.arange(len(train))).reshape(len(train), -1) / 255
    regression = LogisticRegression(C=0.1, max_iter=500).fit(pixels, train.labels)
    return lambda images: regression.decision_function(images.reshape(len(images), -1))


teacher = CallableTeacher("regression", build_teacher(), digits.info.image_shape, 10)
test_labels = digits.test.labels
test_images = digits.test.images(np.arange(len(test_labels)))
answers = teacher.logits(test_images / 255).argmax(axis=1)
print(f"the teacher: top-1 {100 * np.mean(answers == test_labels):.2f} %")

# %% [markdown]
# ## A teacher that is a torch module
#
# PyTorch runs it, on its GPU if it has one. This one is the same regression as a
# module, and gives the same logits.

# %%
try:
    import torch
except ImportError:
    print("PyTorch is not installed: the function above goes on as the teacher")
else:
    # A function's logits of the unit images are its weights, those of none its bias.
    units = np.concatenate([np.zeros((1, 8, 8, 1)), np.eye(64).reshape(64, 8, 8, 1)])
    bias, *weights = torch.from_numpy(teacher.logits(units))
    linear = torch.nn.Linear(64, 10)
    weight = torch.stack(weights).T - bias[:, None]
    linear.load_state_dict({"weight": weight, "bias": bias})
    module = torch.nn.Sequential(torch.nn.Flatten(), linear)
    as_it_is = Normalization(mean=(0.0,), std=(1.0,))
    function, teacher = teacher, TorchTeacher("my_module", module, as_it_is, 10)
    some = test_images[:100] / 255
    difference = np.abs(teacher.logits(some) - function.logits(some)).max()
    print(f"the module's logits differ from the function's by at most {difference:.1e}")

# %% [markdown]
# ## Relabel once
#
# The teacher labels every augmented view, one for an epoch; all students below replay
# them.

# %%
augment = AugmentSpec(diffaug="color_crop_cutout_scale_rotate")
soft_labels = gift_jax.relabel(
    teacher, distilled, augment=augment, views=EPOCHS, seed=0
)

# %% [markdown]
# ## A loss of your own
#
# One value per example; its keyword arguments are its hyperparameters.


# %%
def huber(student_logits, teacher_logits, labels, *, delta=1.0):
    """Huber's loss between logits that are brought to unit variance."""
    student, teacher = (
        jax.nn.standardize(x, axis=-1) for x in (student_logits, teacher_logits)
    )
    size = jnp.abs(student - teacher)
    inside = jnp.minimum(size, delta)
    return jnp.mean(inside * (size - inside / 2), axis=-1)


LOSSES = {
    "GIFT": losses.get_loss("gift"),
    "KL": losses.get_loss("kl"),
    "Huber": losses.get_loss(huber),
}
data, to_inputs = train_data(distilled, seed=0)
network = models.create_model(NETWORK, num_classes=10, image_size=8, width=32)
length = {"epochs": EPOCHS, "batch_size": 50}


def train_with(loss, optimizer, **options):
    """A student's training, from its initialisation or its checkpoint on."""
    return gift_jax.fit(
        new_student(network, OptimizerSpec(optimizer), data, **length),
        data,
        soft_labels,
        loss=loss,
        view_images=AugmentedViews(augment, to_inputs),
        order_key=jax.random.key(0),
        **length,
        **options,
    )


def top1(fitted):
    """Of a student on the test images, in percent."""
    answer = gift_jax.evaluate(
        fitted.state, test_images, test_labels, distilled.preprocess
    )
    return answer.top1


results, curves = {}, {}
for optimizer in ("sgd", "adamw"):
    for name, loss in LOSSES.items():
        curve = curves[optimizer, name] = []
        fitted = train_with(
            loss,
            optimizer,
            on_epoch=lambda _, means, to=curve: to.append(means["top1"]),
        )
        results[optimizer, name] = top1(fitted)
        print(f"{optimizer:6} {name:6} top-1 {results[optimizer, name]:.2f} %")

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axes, optimizer in zip(panels, ("sgd", "adamw"), strict=True):
    for name, style in zip(LOSSES, ("-", "--", ":"), strict=True):
        label = f"{name}: {results[optimizer, name]:.1f} % on test images"
        axes.plot(100 * np.array(curves[optimizer, name]), style, label=label)
    axes.set(title=optimizer, xlabel="epoch")
    axes.legend(frameon=False)
panels[0].set_ylabel("top-1 on the views in %")
figure.tight_layout()

# %% [markdown]
# ## Resume after a restart
#
# With checkpoints a training that was stopped, by Ctrl-C or with the whole runtime,
# goes on when the same cell is run again, and ends bit for bit where it would have
# ended. Here a student is stopped half way; the same call goes on, and is compared with
# one that was never stopped.


# %%
def stop_half_way(record, means):
    """What a restart of the runtime does, or the stop button."""
    if record.finished_epochs == EPOCHS // 2 + 1:
        raise KeyboardInterrupt


def train_and_keep(**options):
    """A student's training that keeps a checkpoint of every tenth epoch."""
    identity = {"network": NETWORK, "loss": "gift", "optimizer": "adamw"}
    with Checkpoints(folder / "student", keep=1, identity=identity) as checkpoints:
        return train_with(
            LOSSES["GIFT"], "adamw", checkpoints=checkpoints, save_every=10, **options
        )


try:
    train_and_keep(on_epoch=stop_half_way)
except KeyboardInterrupt:
    print("stopped")
resumed = train_and_keep(
    on_start=lambda record: print(f"goes on after epoch {record.finished_epochs}")
)
uninterrupted = train_with(LOSSES["GIFT"], "adamw")
equal = jax.tree.map(np.array_equal, resumed.state.params, uninterrupted.state.params)
print(f"all weights are equal: {jax.tree.all(equal)}; top-1 {top1(resumed):.2f} %")

# %% [markdown]
# ## The job, and its report in the notebook
#
# The command's job does the same with a work directory: several seeds, tables, paired
# intervals, and what was finished is found again. A config names your code as
# `module:attribute`, so it goes into a file.

# %%
code = """import jax
import jax.numpy as jnp
import numpy as np
from gift_jax.data.real import load_dataset

"""
code += inspect.getsource(build_teacher) + "\n\n" + inspect.getsource(huber)
pathlib.Path("my_own.py").write_text(code)

config = digits_config.get_config(f"student={NETWORK},epochs={EPOCHS},batch_size=50")
config.distilled.name = "mine"
config.distilled.path = str(folder / "mine.npz")
config.teacher.name = "my_own:build_teacher"
config.loss.name = "kl+gift+my_own:huber"
config.optimizer.name = "sgd+adamw"
config.train.seeds = SEEDS
rows = gift_jax.run_job(config, folder / "workdir")
gift_jax.show_report(folder / "workdir")
