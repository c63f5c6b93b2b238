"""Every field of a config, its default, and where the default comes from.

"Official" is the evaluator of https://github.com/LINs-lab/GIFT (arXiv 2405.14736),
"RDED" is https://github.com/LINs-lab/RDED.

Fields that name something to run (`teacher.name`, `distilled.name`, `student.name`,
`loss.name`, `optimizer.name`) take several names joined by "+": every combination is
run. A name can bring its own options, "kl+kl-t_squared=True", and can be that of the
user's own code, "package.module:attribute".

Options of one loss, network, optimizer, augmentation or distiller have their defaults,
with the source, where it is defined, and stand here by its name:
`loss.kl.temperature`, `distilled.rded.factor`.

A config file's own options are given behind a colon, short or with the name of
the field: `configs/cifar10.py:distill=random,ipc=10,train.epochs=100`.
"""

import dataclasses
from typing import Any

import ml_collections
from ml_collections import config_dict

from gift_jax import distill, losses, models, optimizers, registry
from gift_jax.augment import DIFFAUG_STRATEGY, AugmentSpec


def get_config(dataset: str = "digits") -> ml_collections.ConfigDict:
    """The default config of a dataset."""
    config = ml_collections.ConfigDict()
    # Seed of everything but the students: teacher, distillation, augmented views.
    config.seed = 0
    # The job is run with each of these, in one work directory: strings of options, as
    # behind the colon: ("ipc=1", "ipc=10,loss.gift.gamma=0.2").
    config.variants = ()
    # A published protocol, configs/protocols: `:protocol=rd3` sets the fields of its
    # recipe. This field says which one, for rows and reports.
    config.protocol = "gift"

    config.dataset = ml_collections.ConfigDict()
    # A name of gift_jax/data/info.py, "tfds:NAME", "folder:PATH" or "npz:PATH".
    config.dataset.name = dataset
    # Where the dataset lies; empty stands for $TFDS_DATA_DIR or ~/tensorflow_datasets.
    # May be an npz of its splits, see gift_jax/data/archive.py.
    config.dataset.data_dir = ""
    # Side in pixels, for sets whose images come in many sizes.
    config.dataset.image_size = config_dict.placeholder(int)
    # Channel statistics; empty stands for those known of the dataset.
    config.dataset.mean = ()
    config.dataset.std = ()
    config.dataset.train_split = ""
    config.dataset.test_split = ""
    # Processes that decode splits too large to stay in memory, a teacher's train split
    # as well; 0 for threads alone. Unset: one per core (at most 16), 0 below 4 cores.
    config.dataset.workers = config_dict.placeholder(int)

    # The teacher's name can also be "auto", which recognises the network of a
    # checkpoint, or that of a teacher that PyTorch runs:
    # "torch:package.module:attribute", "timm:NAME", "torchvision:NAME".
    config.teacher = _network("conv3")
    # A PyTorch checkpoint to import, or "torchvision" for its ImageNet weights; empty
    # trains a network of this project.
    config.teacher.checkpoint = ""
    # Further networks, whose logits are averaged with the first one's, and which G-VBSM
    # and EDC recover images from in turn: ("resnet20", "conv3-width=32@weights.pth").
    # Those without a checkpoint are trained here.
    config.teacher.also = ()
    # Channel statistics of the imported teacher's training; empty: the dataset's.
    config.teacher.mean = ()
    config.teacher.std = ()
    # RDED's observers are published without their recipe (its issue 5); this is the
    # usual one for CIFAR, as in https://github.com/kuangliu/pytorch-cifar.
    config.teacher.epochs = 60
    config.teacher.batch_size = 128
    config.teacher.optimizer = _optimizer("sgd", learning_rate=0.1, schedule="cosine")
    # Fraction of its train images with a wrong label, for a teacher that is wrong.
    config.teacher.label_noise = 0.0
    config.teacher.augment = _section(AugmentSpec(pad_crop=4, flip=True))
    # Least accuracy on the distilled images in percent, below which relabelling is
    # refused; unset stands for a tenth of the way from chance to 100.
    config.teacher.min_accuracy = config_dict.placeholder(float)
    # Sides that images are resized to and cropped to where the teacher's accuracy is
    # measured, 36 and 32 for RDED's observers of CIFAR (its validation transform), and
    # whether the views that it labels pass this transform, too.
    config.teacher.resize = config_dict.placeholder(int)
    config.teacher.crop = config_dict.placeholder(int)
    config.teacher.transform_views = False

    config.distilled = ml_collections.ConfigDict()
    # A distiller of gift_jax/distill (docs/distillers.md), or a published set's name.
    config.distilled.name = "rded"
    config.distilled.ipc = 10  # images per class (the official scripts)
    # A published distilled dataset to read, and its format; an empty format is
    # guessed. An empty path makes the distilled dataset here.
    config.distilled.path = ""
    config.distilled.source = ""
    # Bytes that its files may unpack to, where 50 times their size is too little.
    config.distilled.max_bytes = config_dict.placeholder(int)
    for name, distiller in distill.DISTILLERS.items():
        options = registry.keyword_defaults(distiller, without=["ipc"])
        config.distilled[name] = ml_collections.ConfigDict(options)

    # Official: DiffAug with this strategy. With `factor` 2 a quadrant of a mosaic is
    # enlarged in three views of four; official on ImageNet-1k, ResNet-18, RDED only.
    config.augment = _section(AugmentSpec(diffaug=DIFFAUG_STRATEGY))

    config.relabel = ml_collections.ConfigDict()
    # "store": logits of all views precomputed; "online": the teacher runs on every
    # view of every run, as in the official code; "fixed": one soft label per image for
    # all its views, the teacher's for the image as it is; "dataset": the soft labels
    # that were distilled with the images (DATM, FRePo); "fkd": those of an FKD folder
    # (SRe2L, G-VBSM) with the views they were made for; "hard": none, for `ce`, and no
    # teacher is needed.
    config.relabel.source = "store"
    config.relabel.path = ""  # the FKD folder
    # Views of every image; 0 stands for one per epoch, the official protocol.
    config.relabel.views = 0
    config.relabel.batch_size = 256
    # How logits are stored: float16; int8, with an offset and a step per image; or
    # topK as top10, the K largest and the mean of the others.
    config.relabel.format = "float16"
    # Where they are stored: empty stands for the work directory; else a local path,
    # gs://BUCKET/PATH or s3://BUCKET/PATH.
    config.relabel.store = ""
    # The teacher labels images that are mixed by mixup or CutMix as mixtures. The hard
    # label that some losses add stays that of the first image (G-VBSM, EDC; the
    # official evaluator mixes nothing), or is mixed with the partner's.
    config.relabel.mix_hard_labels = False
    # Epochs without soft labels in the middle of the training, and their loss. Defaults
    # of HALD's code (arXiv 2512.15647): 200 of 300, with "ce-smoothing=0.8".
    config.relabel.hard_epochs = 0
    config.relabel.hard_loss = "ce"

    config.student = _network("conv3")

    config.loss = ml_collections.ConfigDict()
    config.loss.name = "gift"
    # Hyperparameters of each loss. Those of the official compute_loss are the defaults.
    for name in losses.LOSS_NAMES:
        config.loss[name] = ml_collections.ConfigDict(losses.hyperparameters(name))

    # Official: AdamW 1e-3, weight decay 1e-4, x0.2 at 2/3 and 5/6 of the epochs.
    # Also sgd, adam, rmsprop, lamb, lion, adafactor, muon, schedule_free_adamw and
    # prodigy, with the defaults of gift_jax/optimizers.py.
    config.optimizer = _optimizer("adamw")

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 1000  # official; 300 for ImageNet-1k
    # 0 stands for the official ladder: 10, 50, 100 or 200 by the number of images.
    config.train.batch_size = 0
    # One student per seed. The official tables give the mean of three.
    config.train.seeds = (0,)
    # Epochs between evaluations; 0 stands for a quarter of them (official).
    config.train.eval_every = 0
    # Epochs between checkpoints, 0 for whenever there is an evaluation.
    config.train.checkpoint_every = 0
    # How many of the latest; the best is kept, too. Two, as the latest may be damaged.
    config.train.keep_checkpoints = 2
    # Directory of a run whose weights to start from, with a fresh optimizer state.
    config.train.init_from = ""
    # What is measured: accuracy, and with "+" others of gift_jax/evaluators or of your
    # own.
    config.train.evaluators = "accuracy"
    config.train.eval_batch_size = 500
    # Students of one shape (seeds, learning rates) that train at once, vmapped. On CPUs
    # it is slower, and on accelerators it was not measured.
    config.train.students_at_once = 1
    # Processes that train the students of a grid on CPUs, with a share of the cores
    # each; 0: one per core, where more than a minute of training is left for them.
    config.train.processes = 0

    # Class-incremental training (experiments/continual.py): 0 for none, or the number
    # of steps in which all classes arrive, as many in each.
    config.continual = ml_collections.ConfigDict()
    config.continual.steps = 0
    # Seeds of the orders of classes. DM and FRePo: 0 to 4.
    config.continual.orders = (0, 1, 2, 3, 4)
    # Kinds of labels, joined by "+": "future", of a teacher of all classes; "masked",
    # its logits of the classes so far; "retrained", of a teacher of the classes so far.
    config.continual.teachers = "future+masked"

    # Besides the default learning rate, one is chosen for every setup on images that
    # are held out of the train split, for teacher and distillation as well. These
    # factors of the default are tried; more follow until there are two on either side
    # of the best.
    config.tuning = ml_collections.ConfigDict()
    config.tuning.enabled = False
    config.tuning.validation_images = 5000
    config.tuning.factors = (0.1, 0.3, 1.0, 3.0, 10.0)
    config.tuning.seeds = (0,)
    return config


def _network(name: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(models.model_options(name))
    config.name = name
    config.dtype = "float32"  # of activations: float32 or bfloat16
    return config


def _optimizer(
    name: str, learning_rate: float | None = None, schedule: str | None = None
) -> ml_collections.ConfigDict:
    """The options of all optimizers; what is unset is the optimizer's own."""
    # SGD has all options that there are.
    config = ml_collections.ConfigDict(
        {
            **optimizers.optimizer_options("sgd"),
            "name": name,
            "learning_rate": config_dict.placeholder(float),
            "weight_decay": config_dict.placeholder(float),
            "schedule": config_dict.placeholder(str),
        }
    )
    config.learning_rate, config.schedule = learning_rate, schedule
    return config


def _section(spec: Any) -> ml_collections.ConfigDict:
    """The fields of a spec as a section."""
    return ml_collections.ConfigDict(dataclasses.asdict(spec))
