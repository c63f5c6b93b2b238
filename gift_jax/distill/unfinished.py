"""What is kept of a distillation until it is finished, so that it resumes exactly."""

import dataclasses
import json
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from gift_jax.distill.base import OnProgress
from gift_jax.models import variables
from gift_jax.runtime import atomic, hosts, npz, preemption
from gift_jax.runtime.errors import InputError, UserError
from gift_jax.runtime.preemption import PreemptedError

_log = logging.getLogger(__name__)

_RECIPE = "made_from.json"
_SECONDS_BETWEEN_SAVES = 60.0
State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """Keeps finished parts as arrays, and the states of parts in progress with Orbax.

    Attributes:
      directory: Directory of all hosts; None keeps nothing, so each host is on its own.
    """

    directory: pathlib.Path | None

    def claim(self, recipe: Callable[[], Mapping[str, Any]]) -> None:
        """Records what is made in the directory, which may hold nothing else.

        Args:
          recipe: Returns what the images depend on, in types that JSON has.

        Raises:
          InputError: the directory belongs to other images.
        """
        if self.directory is None:
            return
        path = self.directory / _RECIPE
        wanted = json.loads(json.dumps(recipe()))
        found = json.loads(path.read_text()) if path.is_file() else wanted
        for name in sorted({*wanted, *found}):
            if wanted.get(name) != found.get(name):
                raise InputError(
                    f"{self.directory} holds what was kept of a distillation with "
                    f"{name} {found.get(name)!r}, expected {wanted.get(name)!r}: "
                    "remove it, or choose another directory"
                )
        if not path.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            atomic.write_json(path, wanted)

    def keep(self, part: str, array: np.ndarray) -> None:
        """Writes a finished part."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{part}.npz"
        with atomic.replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, array)  # unlike an npy file, with a checksum

    def forget(self, part: str) -> None:
        """Removes the states of a part."""
        if self.directory is not None:
            shutil.rmtree(self.directory / part, ignore_errors=True)

    def kept(self, part: str) -> np.ndarray | None:
        """A finished part, or None where it is absent or damaged."""
        path = self.directory and self.directory / f"{part}.npz"
        if not path or not path.is_file():
            return None
        try:
            (array,) = npz.read_npz(path).values()
        except InputError as error:
            _log.warning("%s is made again: %s", part, error)
            return None
        return array

    def is_own(self, number: int) -> bool:
        """Whether this host makes part `number`; hosts take turns."""
        return self.directory is None or number % hosts.count() == hosts.index()

    def of_others(self, part: str) -> np.ndarray:
        """A part that another host has finished.

        Raises:
          UserError: it does not become visible to this host.
        """
        array = hosts.seen(lambda: self.kept(part))
        if array is None:
            raise UserError(
                f"process {hosts.index()} does not see {part}, which another process "
                f"wrote, in {self.directory}; it must be a directory that all hosts "
                "share"
            )
        return array

    def kept_or_made(self, part: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A part that the primary host makes if it is not kept; all hosts call this."""
        if self.directory is None:
            return make()
        with preemption.together(part):
            if hosts.is_primary() and self.kept(part) is None:
                self.keep(part, make())
        return self.of_others(part)

    def save(self, part: str, done: int, state: Any) -> None:
        """Writes the state of a part in progress; then removes the one before.

        Args:
          part: Name of the part.
          done: Iterations that were done.
          state: Any tree of arrays.

        Raises:
          CheckpointError: it cannot be written.
        """
        if self.directory is None:
            return
        leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}
        variables.save_variables(self.directory / part / str(done), leaves)
        for path in self._states(part):
            if int(path.name) != done:
                shutil.rmtree(path)

    def restore(self, part: str, like: Any) -> tuple[int, Any]:
        """The latest state that can be read, and how many iterations it has done.

        Args:
          part: Name of the part.
          like: The state before the first iteration, returned where there is none.

        Raises:
          CheckpointMismatchError: the state is that of other images.
        """
        leaves, structure = jax.tree.flatten(like)
        shapes = {str(i): leaf for i, leaf in enumerate(leaves)}
        for path in self._states(part):
            try:
                found = variables.load_variables(path, like=shapes)
            except variables.CheckpointMismatchError:
                raise
            except (ValueError, KeyError, OSError) as error:  # what Orbax raises
                _log.warning("%s cannot be read: %s", path, variables.reason(error))
                continue
            ordered = [found[str(i)] for i in range(len(leaves))]
            return int(path.name), jax.tree.unflatten(structure, ordered)
        return 0, like

    def run(
        self,
        part: str,
        start: State,
        iterations: int,
        advance: Callable[[State, int], tuple[State, Mapping[str, Any], int]],
        on_progress: OnProgress | None,
        *,
        place: Callable[[State], State] = lambda state: state,
    ) -> State:
        """Goes on from the latest state to the last iteration.

        Args:
          part: Name of the part that is made.
          start: The state before the first iteration, on the host.
          iterations: Number of iterations.
          advance: `advance(state, done)` gives the next state, numbers to show, and
            how many iterations are done.
          on_progress: See `OnProgress`. Where it raises `PreemptedError`, the state is
            kept.
          place: Puts a state from the host where `advance` wants it.

        Raises:
          PreemptedError: raised by `on_progress`.
        """

        def report(done: int, terms: Mapping[str, Any]) -> None:
            if on_progress is not None:
                means = {name: float(np.mean(value)) for name, value in terms.items()}
                on_progress(done, iterations, **means)

        done, state = self.restore(part, start)
        state = place(state)
        report(done, {})
        saved = time.monotonic()
        while done < iterations:
            state, terms, done = advance(state, done)
            try:
                report(done, terms)
            except PreemptedError:
                self.save(part, done, jax.device_get(state))
                raise
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                self.save(part, done, jax.device_get(state))
                saved = time.monotonic()
        return state

    def _states(self, part: str) -> list[pathlib.Path]:
        """Paths of the states of a part, the latest first."""
        if self.directory is None or not (self.directory / part).is_dir():
            return []
        found = [p for p in (self.directory / part).iterdir() if p.name.isdecimal()]
        return sorted(found, key=lambda path: -int(path.name))
