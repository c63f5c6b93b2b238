"""Optimizers by name, each with published defaults, and learning-rate schedules."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from gift_jax import registry
from gift_jax.runtime.errors import InputError

Schedule = Callable[[Any], Any]
Builder = Callable[["OptimizerSpec", Schedule], optax.GradientTransformation]

SCHEDULES = (
    "step", "cosine", "smoothed_cosine", "half_step", "constant", "warmup_constant"
)  # fmt: skip
_OWN_RATE = 1e-3  # of a user's optimizer that has no default


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and its schedule, complete: equal specs build equal updates.

    Weight decay is on all parameters, as in the official code, or with the option
    `decay_vectors` off on all but vectors (biases and norms) and the tokens of vision
    transformers, as in RDED, SRe2L and EDC (`get_parameters` of their utils.py). It is
    either
    - L2, added to the gradient, as in PyTorch: sgd, adam, rmsprop; or
    - decoupled, the parameters times weight decay times the learning rate of the
      step: adamw, lion, adafactor, muon (with the learning rate of either part),
      schedule_free_adamw (taken at the parameters that are trained with), prodigy
      (with the rate that it has found). In lamb
      the decay is added to Adam's direction before the trust ratio scales both.

    Attributes:
      name: One of `OPTIMIZERS`, or "package.module:attribute" of user code, which is
        called as `attribute(schedule, **options)` with the learning rate as a function
        of the step, and returns an `optax.GradientTransformation`.
      learning_rate: Peak learning rate; None means the optimizer's default: for a
        user's optimizer, that of its first argument, or 1e-3.
      weight_decay: See above; None means the optimizer's default. A user's optimizer
        has it among its options, if it has it.
      momentum: Momentum of sgd.
      nesterov: Whether the momentum of sgd is Nesterov's.
      schedule: "step" (official code: x0.2 at 2/3 and at 5/6 of the epochs), "cosine"
        (to zero), "smoothed_cosine" (its first half: to one half, in RDED, EDC with
        `--st 2` and RD3 with zeta 2), "half_step" (x0.1 after half of the epochs, in
        DC, MTT and DATM), "constant" or "warmup_constant" (constant after a linear
        warm-up over a fiftieth of the epochs, unless `warmup_epochs` says otherwise).
        None means the optimizer's default, which is "warmup_constant" for
        schedule_free_adamw, whose averaging replaces a decay, "cosine" for prodigy, and
        "step" for the others. Any optimizer follows any schedule.
      warmup_epochs: Epochs of linear warm-up from zero, before the schedule.
      ema: Decay of an exponential moving average of the weights, which is evaluated in
        their place, see `evaluation_params`; it begins with the initial weights. 0
        means none.
      options: Other options that are not the default, sorted: `decay_vectors`, and the
        keyword arguments of a user's optimizer.
      code: Fingerprint of the code of a user's optimizer; found, never given.

    Raises:
      InputError: a name that is unknown, an option that the optimizer does not have,
        or a value without a meaning.

    >>> OptimizerSpec("sgd", weight_decay=0.0, schedule="cosine").label
    'sgd-weight_decay=0.0-schedule=cosine'
    """

    name: str
    learning_rate: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str | None = None
    warmup_epochs: int = 0
    ema: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()
    code: str | None = None

    def __post_init__(self) -> None:
        """Fills in the optimizer's defaults and refuses fields that it cannot have."""
        optimizer = _optimizer(self.name)
        for field in ("learning_rate", "weight_decay", "schedule"):
            if getattr(self, field) is None:
                object.__setattr__(self, field, getattr(optimizer, field))
        for option, _ in self.options:
            if option not in optimizer.options:
                raise _unknown_option(self.name, option, optimizer.options)
        defaults = optimizer.options
        changed = sorted((k, v) for k, v in self.options if v != defaults[k])
        object.__setattr__(self, "options", tuple(changed))
        object.__setattr__(self, "code", registry.code_fingerprint(self.name))
        self._check()
        if self.code is not None:
            _check_own(self, optimizer)

    def _check(self) -> None:
        if self.schedule not in SCHEDULES:
            raise registry.unknown_name("schedule", str(self.schedule), SCHEDULES)
        if self.name != "sgd" and (self.momentum, self.nesterov) != (0.9, False):
            raise InputError(
                f"optimizer {self.name!r} has no momentum and nesterov to set, which "
                f"are {self.momentum} and {self.nesterov}: they are those of sgd"
            )
        if self.nesterov and not self.momentum:
            raise InputError("optimizer 'sgd' has nesterov set and a momentum of 0")
        if self.ema and self.name == "schedule_free_adamw":
            raise InputError(
                f"ema of optimizer {self.name!r} is {self.ema}, but it averages its "
                "weights itself: leave it at 0"
            )
        for field, most in (
            ("ema", 1.0),
            ("learning_rate", math.inf),
            ("weight_decay", math.inf),
            ("momentum", 1.0),
            ("warmup_epochs", math.inf),
        ):
            value = getattr(self, field)
            if value is not None and not 0 <= value < most:
                raise InputError(
                    f"{field} of optimizer {self.name!r} is {value}, expected a number "
                    f"in [0, {most})"
                )

    @classmethod
    def create(
        cls, name: str, *, learning_rate: float | None = None, **options: Any
    ) -> "OptimizerSpec":
        """The spec with any of `optimizer_options`, also those of a user's optimizer.

        Raises:
          InputError: as for the spec, or an unknown option.
        """
        known = optimizer_options(name)
        for option in options:
            if option not in known:
                raise _unknown_option(name, option, known)
        own = {k: options.pop(k) for k in _optimizer(name).options if k in options}
        return cls(name, learning_rate, options=tuple(own.items()), **options)

    @property
    def label(self) -> str:
        """The name with the options that are not the default."""
        defaults = optimizer_options(self.name)
        own = dict(_optimizer(self.name).options) | dict(self.options)
        fields = {k: own[k] if k in own else getattr(self, k) for k in defaults}
        return registry.label(self.name, fields, defaults)


def optimizer_options(name: str) -> dict[str, Any]:
    """The options of an optimizer except its learning rate, with their defaults.

    Raises:
      InputError: there is no such optimizer.

    >>> optimizer_options("adamw")
    {'weight_decay': 0.0001, 'decay_vectors': True, 'schedule': 'step',
     'warmup_epochs': 0, 'ema': 0.0}
    """
    optimizer = _optimizer(name)
    own = dict(optimizer.options)
    options = own
    if name in OPTIMIZERS:
        options = {"weight_decay": optimizer.weight_decay, **own}
    if name == "sgd":
        options |= {"momentum": OptimizerSpec.momentum, "nesterov": False}
    shared = {"schedule": optimizer.schedule, "warmup_epochs": 0, "ema": 0.0}
    return {**options, **shared}


def _optimizer(name: str) -> "Optimizer":
    found: Any = registry.find("optimizer", name, OPTIMIZERS)
    return _own_optimizer(found) if registry.is_own(name) else found


def _own_optimizer(function: Callable[..., Any]) -> "Optimizer":
    """The `Optimizer` of a user's function, from its signature."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise InputError(f"the optimizer {function!r} has no arguments") from error
    rate = arguments[0].default if arguments else None
    return Optimizer(
        build=lambda spec, schedule: function(schedule, **dict(spec.options)),
        learning_rate=rate if isinstance(rate, int | float) else _OWN_RATE,
        weight_decay=None,
        options=registry.keyword_defaults(
            function, without=[argument.name for argument in arguments[:1]]
        ),
    )


def _check_own(spec: OptimizerSpec, optimizer: "Optimizer") -> None:
    if spec.weight_decay is not None:
        raise InputError(
            f"weight_decay of optimizer {spec.name!r} is {spec.weight_decay}: where an "
            "optimizer of one's own has one, it is among its options"
        )
    try:
        built = optimizer.build(spec, optax.constant_schedule(1.0))
    except Exception as error:
        raise InputError(
            f"optimizer {spec.name!r} cannot be called with a schedule and the options "
            f"{dict(spec.options)}: {error}"
        ) from error
    if not isinstance(built, optax.GradientTransformation):
        raise InputError(
            f"optimizer {spec.name!r} gives a {type(built).__name__}, expected an "
            "optax.GradientTransformation"
        )


def _unknown_option(name: str, option: str, known: Mapping[str, Any]) -> InputError:
    return registry.unknown_name(f"option of {name}", option, known or ["none"])


_TOKENS = {"cls_token", "pos_embed"}


def _decayed(spec: OptimizerSpec) -> Callable[[Any], Any] | None:
    """The mask of decayed parameters, as optax takes it; None means all."""
    if dict(spec.options).get("decay_vectors", True):
        return None
    # In those codes no token of a vision transformer is called a weight.
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, x: x.ndim > 1 and _TOKENS.isdisjoint(map(_key, path)), params
    )


def _key(entry: Any) -> Any:
    """The key of a dict's entry; None for other containers in a user's network."""
    return getattr(entry, "key", None)


def _with_l2(
    spec: OptimizerSpec, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(spec.weight_decay, mask=_decayed(spec))
    return optax.chain(decay, optimizer)


def _sgd(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    return _with_l2(
        spec, optax.sgd(schedule, momentum=spec.momentum, nesterov=spec.nesterov)
    )


def _adam(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    return _with_l2(spec, optax.adam(schedule))


def _adamw(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    return optax.adamw(schedule, weight_decay=spec.weight_decay, mask=_decayed(spec))


def _rmsprop(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    # Epsilon is outside of the root in PyTorch; optax's default is inside.
    return _with_l2(spec, optax.rmsprop(schedule, decay=0.9, eps_in_sqrt=False))


def _with_decay(optimizer: Any) -> Any:
    """Builder of an optax optimizer that takes the weight decay itself."""
    return lambda spec, rate: optimizer(rate, weight_decay=spec.weight_decay)


def _adafactor(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    return optax.adafactor(
        schedule,
        # The paper's relative step (section 8) is off: the rate is absolute.
        multiply_by_parameter_scale=False,
        # optax does not multiply this rate by the learning rate.
        weight_decay_rate=lambda step: spec.weight_decay * schedule(step),
    )


def _muon(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    # Muon's README: 3e-4 for AdamW where Muon has 0.02, and b2 of 0.95. optax gives
    # AdamW the Nesterov momentum of Muon.
    return contrib.muon(
        schedule,
        weight_decay=spec.weight_decay,
        adam_learning_rate=lambda step: 3e-4 / 0.02 * schedule(step),
        adam_b2=0.95,
        adam_weight_decay=spec.weight_decay,
        muon_weight_dimension_numbers=_muon_dimensions,
    )


def _muon_dimensions(params: Any) -> Any:
    """Kernels as matrices of (inputs, outputs), None for what AdamW trains.

    A convolution (H, W, I, O) is the matrix (H W I, O), as in Muon's repository; its
    update is sqrt(max(1, O / (H W I))) long, where the repository, since February 2025,
    has 1 for convolutions. Matrices and convolutions are told by their shape, so the
    first convolution and the classifier are among them, which the repository recommends
    for AdamW.
    """
    matrix = {
        2: contrib.MuonDimensionNumbers(0, 1),
        4: contrib.MuonDimensionNumbers((0, 1, 2), 3),
    }
    return jax.tree.map(lambda x: matrix.get(x.ndim), params)


def _prodigy(spec: OptimizerSpec, schedule: Schedule) -> optax.GradientTransformation:
    # Its README: safeguard_warmup with a warm-up. Without it a first rate of zero makes
    # its estimate 0 / 0.
    has_warmup = spec.warmup_epochs > 0 or spec.schedule == "warmup_constant"
    return contrib.prodigy(
        schedule,
        weight_decay=spec.weight_decay,
        safeguard_warmup=has_warmup,
    )


class Optimizer(NamedTuple):
    """How an optimizer is built, and its defaults."""

    build: Builder
    learning_rate: float
    weight_decay: float | None
    schedule: str = "step"
    options: Mapping[str, Any] = MappingProxyType({})


# Option of the optimizers that protocols of the field train with.
_DECAY = MappingProxyType({"decay_vectors": True})

OPTIMIZERS: dict[str, Optimizer] = {
    # GIFT's authors have not released their SGD setting; a line commented out in
    # their later CIM code (LINs-lab/CIM) has these values.
    "sgd": Optimizer(_sgd, 0.01, 5e-4, options=_DECAY),
    # arXiv 1412.6980, algorithm 1.
    "adam": Optimizer(_adam, 1e-3, 0.0, options=_DECAY),
    # The official evaluator of GIFT.
    "adamw": Optimizer(_adamw, 1e-3, 1e-4, options=_DECAY),
    # Decay of 0.9: Hinton's lecture 6e; learning rate: tf.keras.optimizers.RMSprop.
    "rmsprop": Optimizer(_rmsprop, 1e-3, 0.0, options=_DECAY),
    # The implementation that arXiv 1904.00962 refers to, tensorflow_addons LAMB.
    "lamb": Optimizer(_with_decay(optax.lamb), 1e-3, 0.0),
    # arXiv 2302.06675, section 5: a tenth of AdamW's rate, ten times its decay.
    "lion": Optimizer(_with_decay(optax.lion), 1e-4, 1e-3),
    # transformers.Adafactor with scale_parameter and relative_step off.
    "adafactor": Optimizer(_adafactor, 1e-3, 0.0),
    # README of https://github.com/KellerJordan/Muon.
    "muon": Optimizer(_muon, 0.02, 0.01),
    # optax and https://github.com/facebookresearch/schedule_free, which recommends
    # warm-up.
    "schedule_free_adamw": Optimizer(
        _with_decay(contrib.schedule_free_adamw), 2.5e-3, 0.0, "warmup_constant"
    ),
    # arXiv 2306.06101 and README of https://github.com/konstmish/prodigy: the rate is a
    # factor of the one that it finds, to be left at 1, with a cosine. optax corrects
    # the bias of the moments, which is off by default there.
    "prodigy": Optimizer(_prodigy, 1.0, 0.0, "cosine"),
}


def schedule_factor(
    spec: OptimizerSpec, *, epochs: int, steps_per_epoch: int
) -> Schedule:
    """The learning rate over its peak, in [0, 1], as a function of the step.

    It changes between epochs only, as in the official code, except while it warms up.

    Args:
      spec: Names the schedule.
      epochs: Epochs of the whole training.
      steps_per_epoch: Optimizer steps in one epoch.

    Returns:
      A function of the step, an integer or an integer array.

    Raises:
      InputError: the warm-up is longer than the training.
    """
    warmup = spec.warmup_epochs
    if warmup > epochs:
        raise InputError(
            f"warmup_epochs of optimizer {spec.name!r} is {warmup}, longer than the "
            f"training of {epochs} epochs"
        )
    if spec.schedule == "warmup_constant" and not warmup:
        # warmup_factor of the schedule-free authors' AlgoPerf submission, 0.02.
        warmup = -(-epochs // 50)
    if spec.schedule == "step":
        # Milestones and factor of the official evaluator.
        milestones = (2 * epochs // 3, 5 * epochs // 6)
        factor = optax.join_schedules(
            [optax.constant_schedule(0.2**i) for i in range(3)],
            [steps_per_epoch * milestone for milestone in milestones],
        )
    elif spec.schedule == "half_step":
        # DC's and DATM's evaluate_synset, which counts from zero: after its epoch
        # `Epoch // 2 + 1`.
        factor = optax.join_schedules(
            [optax.constant_schedule(1.0), optax.constant_schedule(0.1)],
            [steps_per_epoch * (epochs // 2 + 2)],
        )
    elif spec.schedule in ("cosine", "smoothed_cosine"):
        periods = 2 if spec.schedule == "smoothed_cosine" else 1
        by_epoch = optax.cosine_decay_schedule(1.0, periods * max(epochs - warmup, 1))

        def factor(step: int) -> float:
            return by_epoch(step // steps_per_epoch - warmup)

    else:
        factor = optax.constant_schedule(1.0)
    if not warmup:
        return factor
    ramp = optax.linear_schedule(0.0, 1.0, warmup * steps_per_epoch)
    return lambda step: jnp.where(
        step < warmup * steps_per_epoch, ramp(step), factor(step)
    )


def build_optimizer(
    spec: OptimizerSpec, *, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optimizer with its schedule.

    The peak learning rate is a value in its state: the optimizer's default, until
    `with_learning_rate` sets another. Specs that differ in nothing else give the same
    object, so that what was compiled for one learning rate serves all.

    Raises:
      InputError: the warm-up is longer than the training.
    """
    return _build(
        dataclasses.replace(spec, learning_rate=None), epochs, steps_per_epoch
    )


@functools.lru_cache(maxsize=256)
def _build(
    spec: OptimizerSpec, epochs: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    factor = schedule_factor(spec, epochs=epochs, steps_per_epoch=steps_per_epoch)

    def with_peak(learning_rate: Any) -> optax.GradientTransformation:
        built = _optimizer(spec.name).build(
            spec, lambda step: learning_rate * factor(step)
        )
        return _averaging(built, spec.ema) if spec.ema else built

    return optax.inject_hyperparams(with_peak)(learning_rate=spec.learning_rate)


class AverageState(NamedTuple):
    """State of an optimizer, and the moving average of the weights that it updates."""

    inner: Any
    average: Any


def _averaging(
    optimizer: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """Averages parameters and no statistics, as EMAMODEL of EDC's `train/` does."""

    def init(params: Any) -> AverageState:
        # Copies, as both are donated to the first step.
        return AverageState(optimizer.init(params), jax.tree.map(jnp.copy, params))

    def update(
        gradients: Any, state: AverageState, params: Any = None
    ) -> tuple[Any, AverageState]:
        updates, inner = optimizer.update(gradients, state.inner, params)
        average = optax.incremental_update(
            optax.apply_updates(params, updates), state.average, 1 - decay
        )
        return updates, AverageState(inner, average)

    return optax.GradientTransformation(init, update)


def with_learning_rate(opt_state: Any, learning_rate: Any) -> Any:
    """The state of a `build_optimizer` with another peak learning rate."""
    peak = jnp.asarray(learning_rate, jnp.float32)
    return opt_state._replace(hyperparams={"learning_rate": peak})


def peak_learning_rate(opt_state: Any) -> Any:
    """The peak learning rate in the state of a `build_optimizer`."""
    return opt_state.hyperparams["learning_rate"]


def evaluation_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters to evaluate a network with, and to pass on.

    They are `params` themselves, except with schedule-free optimizers and with `ema`,
    where they are the average. Batch statistics are not averaged: they remain those of
    the parameters trained with, whereas the authors of schedule-free optimizers compute
    them anew for the average.

    Args:
      opt_state: State of the optimizer that trains `params`; a `ScheduleFreeState` or
        an `AverageState` may be anywhere in it.
      params: The parameters that gradients are taken at.
    """
    for state in jax.tree.leaves(opt_state, is_leaf=_is_average):
        if isinstance(state, AverageState):
            return state.average
        if isinstance(state, contrib.ScheduleFreeState):
            return contrib.schedule_free_eval_params(state, params)
    return params


def _is_average(state: Any) -> bool:
    return isinstance(state, AverageState | contrib.ScheduleFreeState)
