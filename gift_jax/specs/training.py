"""How students are labelled, trained and tuned."""

import dataclasses
import math
import re

from ml_collections.config_dict import ConfigDict

from gift_jax import evaluators, registry
from gift_jax.augment import AugmentSpec
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import codecs
from gift_jax.specs import base
from gift_jax.specs.student import LossSpec
from gift_jax.train.batches import official_batch_size

SOFT_LABEL_SOURCES = ("store", "online", "fixed", "dataset", "fkd", "hard")


@dataclasses.dataclass(frozen=True)
class RelabelSpec:
    """Where soft labels come from, and how they are stored.

    Attributes:
      source: One of `SOFT_LABEL_SOURCES`.
      path: Path of an FKD folder.
      views: Views of every image; 0 means one per epoch.
      batch_size: Images in a forward pass of the teacher.
      format: Name of a codec, see `codecs.get_codec`.
      store: Location of the array; "" means the work directory.
      mix_hard_labels: Whether hard labels of mixed pictures are mixed for losses that
        use both kinds. Without soft labels they always are.
      hard_epochs: Epochs in the middle of the training without soft labels.
      hard_loss: Loss of these epochs, with its options.
    """

    source: str
    path: str
    views: int
    batch_size: int
    format: str
    store: str
    mix_hard_labels: bool = False
    hard_epochs: int = 0
    hard_loss: str = "ce"

    def __post_init__(self) -> None:
        """Raises InputError for fields that do not go together."""
        base.check_least("relabel", self, views=0, batch_size=1, hard_epochs=0)
        if self.source not in SOFT_LABEL_SOURCES:
            raise registry.unknown_name(
                "relabel.source", self.source, SOFT_LABEL_SOURCES
            )
        if re.match(r"(gs|s3):(?!//)", self.store):
            raise InputError(
                f"relabel.store is {self.store!r}, expected a local path, "
                "gs://BUCKET/PATH or s3://BUCKET/PATH"
            )
        if self.codec != codecs.FLOAT16 and not self.needs_teacher:
            raise InputError(
                f"relabel.format is {self.format!r}, but the labels of relabel.source "
                f"{self.source!r} are not stored here: leave it out"
            )
        if (self.source == "fkd") != bool(self.path):
            raise InputError(
                f"relabel.source is {self.source!r} and relabel.path is "
                f"{self.path!r}: the path belongs to the source 'fkd', which needs it"
            )
        if self.views and self.source == "fkd":
            raise InputError(
                f"relabel.views is {self.views}, but an FKD folder has views of its "
                "own, one an epoch: leave it out"
            )
        if self.hard_epochs and self.source in ("fkd", "hard"):
            raise InputError(
                f"relabel.hard_epochs is {self.hard_epochs}, but relabel.source is "
                f"{self.source!r}: epochs without soft labels are for views that are "
                "made here and have some"
            )
        if not self.hard_epochs and self.hard_loss != "ce":
            raise InputError(
                f"relabel.hard_loss is {self.hard_loss!r}, but there are no epochs for "
                "it: set relabel.hard_epochs"
            )
        if self.hard_epochs and self.loss_of_hard_epochs.needs_soft_labels:
            raise InputError(
                f"relabel.hard_loss is {self.hard_loss!r}, which needs soft labels: "
                "expected one that does not, such as 'ce-smoothing=0.8'"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether the soft labels are made by a teacher here."""
        return self.source in ("store", "online", "fixed")

    @property
    def is_stored(self) -> bool:
        """Whether the soft labels are made and stored before students train."""
        return self.source in ("store", "fixed")

    @property
    def codec(self) -> codecs.LabelCodec:
        """How rows of soft labels are stored."""
        return codecs.get_codec(self.format)

    @property
    def label(self) -> str:
        """The source, with what is done with hard labels if it is not the default.

        >>> RelabelSpec("store", "", 0, 256, "float16", "", hard_epochs=100).label
        'store-hard_epochs=100'
        """
        names = ("mix_hard_labels", "hard_epochs", "hard_loss")
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return registry.label(
            self.source, {name: getattr(self, name) for name in names}, defaults
        )

    @property
    def loss_of_hard_epochs(self) -> LossSpec:
        """Loss of the epochs without soft labels."""
        return LossSpec.from_section(ConfigDict(), self.hard_loss)

    def label_mix(self, augment: AugmentSpec) -> str:
        """Which labels of mixed pictures are mixed, see `AugmentedViews`.

        Raises:
          InputError: hard labels are to be mixed, but no pictures are.
        """
        is_mixed = augment.mix != "none" or self.source == "fkd"
        if self.mix_hard_labels and not is_mixed:
            raise InputError(
                "relabel.mix_hard_labels is set, but augment.mix is 'none': there are "
                "no mixed pictures"
            )
        if augment.mix != "none" and self.source in ("fixed", "dataset"):
            return "both"
        return "hard" if self.mix_hard_labels else "none"


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How students are trained; 0 means a default that depends on other fields.

    Attributes:
      epochs: Passes over the distilled images.
      batch_size: Images in a step over all devices; 0 means `official_batch_size`.
      eval_every: Epochs between evaluations; 0 means a quarter of all epochs.
      checkpoint_every: Epochs between checkpoints; 0 means only at evaluations.
      keep_checkpoints: How many of the latest checkpoints to keep.
      init_from: Directory of a run whose weights to start from.
      eval_batch_size: Images in a step of an evaluation.
      students_at_once: Students that train at once, under vmap.
      processes: Processes that train a grid on CPUs; 0 means one per core, if there are
        enough students.
      evaluators: Names of evaluators, see `evaluators.EVALUATORS`; "accuracy" must be
        one.
    """

    epochs: int
    batch_size: int
    eval_every: int
    checkpoint_every: int
    keep_checkpoints: int
    init_from: str
    eval_batch_size: int
    students_at_once: int
    processes: int
    evaluators: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises InputError for impossible fields."""
        base.check_least("train", self, epochs=1, keep_checkpoints=1, eval_batch_size=1)
        base.check_least("train", self, batch_size=0, eval_every=0, checkpoint_every=0)
        base.check_least("train", self, students_at_once=1, processes=0)
        for name in self.evaluators:
            registry.find("evaluator", name, evaluators.EVALUATORS)
        if len(set(self.evaluators)) < len(self.evaluators):
            raise InputError(
                f"train.evaluators is {'+'.join(self.evaluators)!r}, expected each once"
            )
        if "accuracy" not in self.evaluators:
            raise InputError(
                f"train.evaluators is {'+'.join(self.evaluators)!r}, expected accuracy "
                "and others, such as 'accuracy+diagnostics'"
            )

    @property
    def evaluate_every(self) -> int:
        """Epochs between evaluations."""
        return self.eval_every or max(self.epochs // 4, 1)

    def batch_size_for(self, num_images: int) -> int:
        """Images in a step, for `num_images` in all."""
        return self.batch_size or official_batch_size(num_images)


@dataclasses.dataclass(frozen=True)
class TuningSpec:
    """How learning rates are chosen.

    Attributes:
      enabled: Whether learning rates are chosen.
      validation_images: Number of images held out of the train split for it.
      factors: Factors of the default rate that are tried first.
      seeds: Seeds of the students that are trained for it.
    """

    enabled: bool
    validation_images: int
    factors: tuple[float, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises InputError for impossible factors or seeds."""
        if self.enabled:
            base.check_least("tuning", self, validation_images=1)
        base.check_seeds("tuning.seeds", self.seeds)
        are_factors = all(
            isinstance(factor, int | float) and 0 < factor < math.inf
            for factor in self.factors
        )
        if len(set(self.factors)) < 3 or not are_factors:
            raise InputError(
                f"tuning.factors is {self.factors}, expected three or more different "
                "positive factors of the default learning rate"
            )
