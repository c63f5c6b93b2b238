"""The jobs of a config, each with one teacher and one distilled dataset."""

import copy
import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Iterator

from ml_collections.config_dict import ConfigDict

from gift_jax import optimizers, registry
from gift_jax.augment import AugmentSpec
from gift_jax.configs import protocols
from gift_jax.data import info
from gift_jax.runtime.errors import InputError, UnknownNameError
from gift_jax.specs import base
from gift_jax.specs.continual import RETRAINED, ContinualSpec
from gift_jax.specs.dataset import DatasetSpec
from gift_jax.specs.distilled import DistilledSpec
from gift_jax.specs.options import parse_options, protocol_changes, with_protocol
from gift_jax.specs.student import StudentSpec, setups
from gift_jax.specs.teacher import TORCHVISION, TeacherSpec
from gift_jax.specs.training import RelabelSpec, TrainSpec, TuningSpec
from gift_jax.train.checkpoint import latest_weights

# Fields of a variant that need no place in names of products: names hold them anyway,
# or no product depends on them.
_NAMED = re.compile(
    r"(student|loss|optimizer)\..*|teacher\.(name|also|width|norm|dtype)"
    r"|tuning\.(factors|seeds)|distilled\.(name|ipc|max_bytes)|relabel\.(?!path$).*"
    r"|train\.(epochs|batch_size|seeds|init_from|checkpoint_every|keep_checkpoints"
    r"|eval_batch_size|students_at_once|processes)|dataset\.workers|continual\..*"
)
# Sections that a product depends on, besides the products before it.
_SECTIONS = {
    # `tuning`, for the images that it holds out of the train split.
    "teacher": ("seed", "dataset", "tuning", "teacher", "continual"),
    "distilled": ("seed", "dataset", "tuning", "distilled"),
    "soft_labels": (
        *("seed", "dataset", "tuning", "augment", "relabel", "protocol", "continual"),
    ),
    "run": ("train", "protocol"),
}
_PLAIN = re.compile(r"[\w.=+,-]{1,40}")


_Variant = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class JobSpec:
    """What one command does for one teacher and one distilled dataset.

    Attributes:
      seed: Seed of everything but the students.
      dataset: Real images.
      teacher: Teacher that labels images.
      distilled: Distilled images.
      augment: Augmentation of the views that students see.
      relabel: Source of their soft labels.
      train: How students are trained.
      tuning: How learning rates are chosen.
      setups: Students, grouped so that only the seed differs within a group.
      protocol: Name of the published protocol that it follows.
      protocol_changes: Fields that differ from the protocol, and their values.
      wants_learnt_rate: Whether the protocol's learning rate is learnt with the images,
        and none is given.
      continual: A step of a class-incremental training; None trains on all classes.
      variant: Fields, and their values as text, that distinguish it from the other jobs
        of a grid.
    """

    seed: int
    dataset: DatasetSpec
    teacher: TeacherSpec
    distilled: DistilledSpec
    augment: AugmentSpec
    relabel: RelabelSpec
    train: TrainSpec
    tuning: TuningSpec
    setups: tuple[tuple[StudentSpec, ...], ...]
    protocol: str
    protocol_changes: str = ""
    wants_learnt_rate: bool = False
    continual: ContinualSpec | None = None
    variant: _Variant = ()

    def __post_init__(self) -> None:
        """Raises InputError for sections that do not go together."""
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected at least 0")
        published = self.relabel.source in ("dataset", "fkd")
        if self.distilled.needs("teacher") and published:
            raise InputError(
                f"distilled.name is {self.distilled.name!r}, which needs a teacher, "
                f"but relabel.source is {self.relabel.source!r}"
            )
        if self.distilled.needs("teacher_gradients") and self.teacher.network is None:
            raise InputError(
                f"distilled.name is {self.distilled.name!r}, which needs gradients of "
                f"a network of this project, but teacher.name is {self.teacher.name!r}"
            )
        if self.distilled.needs("teacher_gradients") and self.teacher.transform_views:
            raise InputError(
                f"distilled.name is {self.distilled.name!r}, which recovers images as "
                "its network sees them: leave teacher.transform_views out"
            )
        if "task_accuracy" in self.train.evaluators and self.continual is None:
            raise InputError(
                "train.evaluators asks for task_accuracy, which measures "
                "class-incremental training, but continual.steps is 0"
            )
        self.relabel.label_mix(self.augment)
        if self.relabel.hard_epochs >= self.train.epochs:
            raise InputError(
                f"relabel.hard_epochs is {self.relabel.hard_epochs}, but train.epochs "
                f"is {self.train.epochs}: some must have soft labels"
            )
        for student, *_ in self.setups:
            if self.relabel.source == "hard" and student.loss.needs_soft_labels:
                raise InputError(
                    f"loss.name is {student.loss.name!r}, which needs soft labels, but "
                    "relabel.source is 'hard': expected one that does not, such as "
                    "'ce'"
                )
        if self.continual is not None:
            self._check_continual(self.continual)
        trainings = [(s.optimizer, self.train.epochs) for s, *_ in self.setups]
        for teacher in self.teacher.members:
            if teacher.training:
                training = teacher.training
                trainings.append((training.optimizer, training.epochs))
        for optimizer, epochs in trainings:
            optimizers.schedule_factor(optimizer, epochs=epochs, steps_per_epoch=1)

    def _check_continual(self, continual: ContinualSpec) -> None:
        if self.relabel.source == "fkd":
            raise InputError(
                "relabel.source is 'fkd', whose labels are of all images, but "
                "continual.steps trains on the images of some classes"
            )
        if self.tuning.enabled:
            raise InputError(
                "tuning.enabled chooses a rate for every step of continual.steps, but "
                "steps are compared at one rate: leave it out, and set "
                "optimizer.learning_rate"
            )
        if not self.is_retrained:
            return
        if not (self.relabel.needs_teacher and self.teacher.training):
            raise InputError(
                f"continual.teachers has {RETRAINED!r}, but no teacher is trained here "
                f"(teacher.checkpoint is {self.teacher.checkpoint!r}, relabel.source "
                f"is {self.relabel.source!r}): leave it out"
            )

    def at_step(self) -> "JobSpec":
        """The spec with the step of a class-incremental training, if any, in names."""
        if self.continual is None:
            return self
        tag = ("continual", self.continual.label)
        return dataclasses.replace(self, variant=(*self.variant, tag))

    def check_paths(self) -> None:
        """Raises FileNotFoundError unless all paths to read exist.

        `train.init_from` must hold a checkpoint; its reader checks that it can be used.
        """
        published = self.distilled.path
        checkpoints = {member.checkpoint for member in self.teacher.members}
        paths = [
            *(("teacher.checkpoint", c) for c in sorted(checkpoints - {TORCHVISION})),
            ("distilled.path", "" if self.distilled.is_on_hub else published),
            ("relabel.path", self.relabel.path),
            ("train.init_from", self.train.init_from),
        ]
        for field, path in paths:
            if path and not pathlib.Path(path).exists():
                raise FileNotFoundError(f"{field} is {path}, which does not exist")
        if self.train.init_from:
            latest_weights(pathlib.Path(self.train.init_from))

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is needed to make images or to label them."""
        return self.distilled.needs("teacher") or self.relabel.needs_teacher

    @property
    def needs_teacher_of_all_classes(self) -> bool:
        """As `needs_teacher`, but not for labels of a teacher that steps train anew."""
        if self.is_retrained:
            return self.distilled.needs("teacher")
        return self.needs_teacher

    @property
    def is_retrained(self) -> bool:
        """Whether a teacher is trained anew on the classes so far."""
        return self.continual is not None and self.continual.teacher == RETRAINED

    @property
    def views(self) -> int:
        """Labelled views of every image; by default one per epoch with soft labels."""
        return self.relabel.views or self.soft_epochs

    @property
    def soft_epochs(self) -> int:
        """Epochs of a training that have soft labels."""
        return self.train.epochs - self.relabel.hard_epochs

    @property
    def labelled_views(self) -> int:
        """Views of every image that a teacher labels; one for fixed labels."""
        return 1 if self.relabel.source == "fixed" else self.views

    def setup_key(self, students: tuple[StudentSpec, ...]) -> str:
        """A key, equal for students of several jobs that are trained only once."""
        return repr((self.upstream, self.train, self.tuning, students))

    @property
    def upstream(self) -> tuple:
        """A key of all stages before students are trained."""
        labels = (self.augment, self.relabel, self.views)
        # Rows of steps are grouped by the batch size that was requested.
        continual = (self.continual, self.continual and self.train.batch_size)
        return (*self.distilled_from, *labels, *continual)

    @property
    def distilled_from(self) -> tuple:
        """A key of distilled images and the teacher.

        It includes whether the images may come with a learning rate.
        """
        teacher = self.teacher if self.needs_teacher else None
        sections = (self.dataset, teacher, self.distilled)
        return (self.seed, *sections, self.wants_learnt_rate)

    def tagged(self, name: str, *products: str) -> str:
        """A name with the fields of the variant that products depend on.

        Args:
          name: Name of the product; fields that it holds are not repeated.
          *products: "teacher", "distilled", "soft_labels" or "run".
        """
        sections = {section for product in products for section in _SECTIONS[product]}
        for field, value in self.variant:
            tag = f"_{field}={_in_file_name(value)}"
            is_part = field.partition(".")[0] in sections
            # Names hold the networks of `teacher.also`, but not their checkpoints.
            is_held = _NAMED.fullmatch(field) and "@" not in value
            if is_part and not is_held and tag not in name:
                name += tag
        return name


def _in_file_name(text: str) -> str:
    if not text:
        return "none"
    if _PLAIN.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def expand(config: ConfigDict) -> list[JobSpec]:
    """The jobs of a grid: all variants, teachers, distilled datasets and steps.

    All of them are checked.

    Raises:
      InputError: a field cannot be used; the message names it, its value and what it
        can be.
    """
    if not all(isinstance(options, str) for options in config.variants):
        raise InputError(
            f"variants is {config.variants}, expected strings of options, as "
            "('ipc=1', 'ipc=10,loss=kl')"
        )
    return [
        spec
        for options in config.variants or ("",)
        for single, variant in _singles(config, options)
        for spec in _specs_of_steps(single, variant)
    ]


def _singles(config: ConfigDict, options: str) -> Iterator[tuple[ConfigDict, _Variant]]:
    of_variant = copy.deepcopy(config)
    parsed = parse_options(of_variant, options)
    of_variant.update_from_flattened_dict(with_protocol(of_variant, parsed))
    if of_variant.distilled.path and "+" in of_variant.distilled.name:
        raise InputError(
            f"distilled.path is one dataset, but distilled.name is "
            f"{of_variant.distilled.name!r}: give it one name"
        )
    variant = tuple((field, str(value)) for field, value in parsed.items())
    for teacher, distilled in itertools.product(
        base.chosen_names("teacher.name", of_variant.teacher.name),
        base.chosen_names("distilled.name", of_variant.distilled.name),
    ):
        single = copy.deepcopy(of_variant)
        single.teacher.name = teacher
        single.distilled.name = distilled
        yield single, variant


def _image_size(config: ConfigDict) -> int | None:
    """Side of the images that the teacher sees; None if it is not known yet."""
    side = config.teacher.crop or config.teacher.resize or config.dataset.image_size
    try:
        return side or info.dataset_info(config.dataset.name).image_size
    except UnknownNameError:
        return None


def _wants_learnt_rate(config: ConfigDict) -> bool:
    # The learnt rate is for SGD; rates of other optimizers have another scale.
    names = map(registry.split_options, registry.names(config.optimizer.name))
    lacks = any(name == "sgd" and "learning_rate" not in of for name, of in names)
    is_given = config.optimizer.learning_rate is not None or config.tuning.enabled
    return config.protocol in protocols.LEARNT_RATE and lacks and not is_given


def _specs_of_steps(config: ConfigDict, variant: _Variant) -> list[JobSpec]:
    """One spec per step of a class-incremental training; else one for all classes."""
    first, *others = ContinualSpec.of_section(config.continual)
    spec = _job_spec(config, variant, first)
    return [spec, *(dataclasses.replace(spec, continual=step) for step in others)]


def _job_spec(
    config: ConfigDict, variant: _Variant, continual: ContinualSpec | None
) -> JobSpec:
    tuning = base.from_section(TuningSpec, config.tuning)
    if tuning.enabled and config.optimizer.learning_rate is not None:
        raise InputError(
            f"tuning.enabled is set, and optimizer.learning_rate is "
            f"{config.optimizer.learning_rate}: leave one of them out"
        )
    of_section = base.from_section
    return JobSpec(
        seed=config.seed,
        dataset=of_section(
            DatasetSpec,
            config.dataset,
            validation_images=tuning.validation_images if tuning.enabled else 0,
        ),
        teacher=TeacherSpec.from_section(
            config.teacher, config.seed, image_size=_image_size(config)
        ),
        distilled=DistilledSpec.from_section(config.distilled),
        augment=AugmentSpec(**config.augment),
        relabel=of_section(RelabelSpec, config.relabel),
        train=of_section(
            TrainSpec,
            config.train,
            evaluators=tuple(registry.names(config.train.evaluators)),
        ),
        tuning=tuning,
        setups=tuple(setups(config)),
        protocol=config.protocol,
        protocol_changes=protocol_changes(config),
        wants_learnt_rate=_wants_learnt_rate(config),
        continual=continual,
        variant=variant,
    )
