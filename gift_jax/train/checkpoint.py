"""Checkpoints of a training, with Orbax.

Every host has the whole state. To Orbax each host is the only one: the primary saves,
and all hosts read what it saved.
"""

import contextlib
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import orbax.checkpoint as ocp

from gift_jax import optimizers
from gift_jax.models import variables as variables_lib
from gift_jax.models.variables import CheckpointError, CheckpointMismatchError
from gift_jax.runtime import checksums, hosts
from gift_jax.train.step import TrainState

_log = logging.getLogger(__name__)

# Saved in addition to "variables" where the network is evaluated with other ones.
_EVALUATED = "evaluation_variables"

# A state, and the progress it was saved with.
Restored = tuple[TrainState, dict[str, Any]]


class StateStore(Protocol):
    """Saves and restores a training: the part of `Checkpoints` that `fit` uses."""

    def save(
        self,
        steps: int,
        state: TrainState,
        progress: Mapping[str, Any],
        *,
        top1: float | None = None,
    ) -> None:
        """Saves a state."""

    def restore_latest(self, state: TrainState) -> Restored | None:
        """The latest state and the progress it was saved with, if there is one."""


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, and the best.

    Saving is asynchronous; leaving the `with` block waits for saves in progress. All
    hosts open the checkpoints and call every method together. The number of a
    checkpoint is the number of optimizer steps before it. Checkpoints whose files are
    not as they were written are set aside on opening.

    Args:
      directory: Directory of the checkpoints; created if absent.
      keep: How many of the latest checkpoints to keep.
      identity: What the state belongs to, such as the names of model and
        optimizer. It is stored, and must be equal when a state is restored.

    Raises:
      CheckpointError: there are checkpoints, but all are damaged.
    """

    def __init__(
        self, directory: pathlib.Path, *, keep: int, identity: Mapping[str, Any]
    ) -> None:
        policies = ocp.checkpoint_managers
        # In the form it is read back in: JSON has lists, no tuples.
        self._identity = json.loads(json.dumps(identity))
        # Orbax fails late, at the end of the first save, on relative paths.
        self._directory = directory.resolve()
        if hosts.is_primary():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._set_damaged_aside()
        hosts.barrier("the directory of checkpoints is there")
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                read_only=not hosts.is_primary(),
                cleanup_tmp_directories=hosts.is_primary(),
                multiprocessing_options=variables_lib.alone(),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                # Without it the metrics are not stored, and are lost on a restart.
                best_fn=_top1,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        # Sorted in ascending order, the last n are kept.
                        policies.BestN(
                            get_metric_fn=_top1,
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._saving():
            self._manager.close()

    def wait(self) -> None:
        """Waits for the save in progress.

        Raises:
          CheckpointError: it could not be saved.
        """
        with self._saving():
            self._manager.wait_until_finished()
        self._check_sealed()

    def _check_sealed(self) -> None:
        """Raises CheckpointError where Orbax did not call `_seal` in time."""
        # Finished checkpoints only: one being saved does not have its final name yet.
        steps = (
            ocp.utils.checkpoint_steps(self._directory) if hosts.is_primary() else []
        )
        if not steps or (self._directory / f"{max(steps)}" / checksums.FILE).exists():
            return
        raise CheckpointError(
            f"checkpoint {max(steps)} in {self._directory} has no {checksums.FILE}: "
            f"Orbax {ocp.__version__} saves in another way than the versions that were "
            "tested (docs/versions.md); install one of those"
        )

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        # Disk errors come as exceptions of any type from TensorStore, Orbax and Python.
        except Exception as error:
            raise CheckpointError(
                f"a checkpoint could not be saved in {self._directory}: "
                f"{variables_lib.reason(error)}; make room or make it writable, and "
                "run the same command again: it goes on from the checkpoint before"
            ) from error

    def save(
        self,
        steps: int,
        state: TrainState,
        progress: Mapping[str, Any],
        *,
        top1: float | None = None,
    ) -> None:
        """Starts saving a state.

        Args:
          steps: Number of the checkpoint.
          state: State to save; copied to the host before this returns, so it may be
            donated.
          progress: JSON-able record to resume from.
          top1: Accuracy of this very state, if measured; the best checkpoint is chosen
            by it.

        Raises:
          CheckpointError: this one or the one before could not be saved.
        """
        if not hosts.is_primary():
            return
        self._check_sealed()
        host = jax.device_get({"step": state.step, "opt_state": state.opt_state})
        items = {
            "variables": ocp.args.StandardSave(jax.device_get(state.variables)),
            "optimizer": ocp.args.StandardSave(host),
            "progress": ocp.args.JsonSave(dict(progress)),
            "identity": ocp.args.JsonSave(self._identity),
        }
        evaluated = state.evaluation_variables
        if evaluated["params"] is not state.params:
            items[_EVALUATED] = ocp.args.StandardSave(jax.device_get(evaluated))
        with self._saving():
            saved = self._manager.save(
                steps,
                args=ocp.args.Composite(**items),
                metrics=None if top1 is None else {"top1": top1},
            )
        if not saved:
            raise CheckpointError(
                f"checkpoint {steps} was not saved in {self._directory}; it "
                "exists already or is older than the latest one"
            )

    def restore_latest(self, state: TrainState) -> Restored | None:
        """The latest checkpoint, or None where there is none.

        Args:
          state: A state of the same model and optimizer, for its structure.

        Returns:
          The state and the progress it was saved with.

        Raises:
          CheckpointMismatchError: it was saved by another model or optimizer.
          DamagedError: a host other than the primary reads other files than were
            written.
        """
        step = hosts.broadcast(self._manager.latest_step())
        if step is None:
            return None
        if not hosts.is_primary():
            checksums.verify(self._directory / str(step))
        return self._restore(step, state)

    def _set_damaged_aside(self) -> None:
        reasons: dict[pathlib.Path, str] = {}
        steps = ocp.utils.checkpoint_steps(self._directory)
        for path in (self._directory / str(s) for s in sorted(steps, reverse=True)):
            try:
                checksums.verify(path)
            except (checksums.DamagedError, OSError) as error:
                reasons[path] = str(error)
        if reasons and len(reasons) == len(steps):
            raise CheckpointError(
                f"no checkpoint in {self._directory} can be read:\n"
                + "\n".join(f"  {p.name}: {reason}" for p, reason in reasons.items())
                + f"\nDelete {self._directory} to train from the start."
            )
        for path, reason in reasons.items():
            aside = path.with_name(f"unreadable-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            _log.warning(
                "checkpoint %s cannot be read (%s): moved to %s, another one is used",
                path,
                reason,
                aside.name,
            )

    def _seal(self) -> None:
        """Writes the checksums of a checkpoint that is about to get its final name."""
        for path in self._directory.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
            # Orbax writes the time into its own record afterwards.
            checksums.seal(path, but="_CHECKPOINT_METADATA")

    def _restore(self, step: int, state: TrainState) -> Restored:
        identity = self._manager.restore(
            step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
        ).identity
        if identity != self._identity:
            raise CheckpointMismatchError(
                f"the checkpoint in {self._directory} was saved by {identity}, "
                f"this run is {self._identity}; to start from its weights with a fresh "
                "optimizer state, set train.init_from to that run's directory in a "
                "new run"
            )
        abstract = jax.tree.map(
            ocp.utils.to_shape_dtype_struct,
            (state.variables, {"step": state.step, "opt_state": state.opt_state}),
        )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardRestore(abstract[0]),
                optimizer=ocp.args.StandardRestore(abstract[1]),
                progress=ocp.args.JsonRestore(),
            ),
        )
        state = state.replace(**restored.variables, **restored.optimizer)
        return state, restored.progress


def _top1(metrics: Mapping[str, float]) -> float:
    return metrics["top1"]


def restore_weights(run_directory: pathlib.Path, state: TrainState) -> TrainState:
    """Takes over the weights of another run, whatever its optimizer was.

    They are the weights that the run's accuracy was measured with: for a schedule-free
    optimizer, the averaged ones.

    Args:
      run_directory: A run's directory; its latest checkpoint is read.
      state: A state of the same model.

    Returns:
      `state` with the run's parameters and batch statistics, and the fresh optimizer
      state that belongs to them, at step zero.

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointError: it is damaged.
      CheckpointMismatchError: the weights are those of another model.
    """
    path = latest_weights(run_directory)
    try:
        checksums.verify(path.parent)
    except checksums.DamagedError as error:
        raise CheckpointError(
            f"{path.parent} is damaged: {error}; delete it to start from the "
            "checkpoint before"
        ) from error
    variables = variables_lib.load_variables(path, like=state.variables)
    # A schedule-free optimizer's state holds a copy of the parameters.
    opt_state = optimizers.with_learning_rate(
        state.tx.init(variables["params"]),
        optimizers.peak_learning_rate(state.opt_state),
    )
    return state.replace(step=0, opt_state=opt_state, **variables)


def latest_weights(run_directory: pathlib.Path) -> pathlib.Path:
    """Directory of the weights that are evaluated, in a run's latest checkpoint.

    Raises:
      FileNotFoundError: the run has no checkpoint.
    """
    directory = run_directory.resolve() / "checkpoints"
    steps = ocp.utils.checkpoint_steps(directory) if directory.is_dir() else []
    if not steps:
        raise FileNotFoundError(
            f"{directory} holds no checkpoint to start from (train.init_from); give "
            "the directory of a run, WORKDIR/runs/RUN_ID"
        )
    latest = directory / str(max(steps))
    evaluated = latest / _EVALUATED
    return evaluated if evaluated.is_dir() else latest / "variables"
