"""Products in the work directory, and the check that they are what is requested.

Every stage writes its product into a directory of its own, together with its
recipe: the part of the config it was made from and the fingerprints of the
products upstream. A second run finds the product and goes on; a product made
by another recipe is an error, never silently used or overwritten.

With several hosts, the primary looks, writes and removes; the others learn from it.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from gift_jax.runtime import atomic, checksums, hosts, preemption
from gift_jax.runtime.checksums import fingerprint
from gift_jax.runtime.errors import UserError

_log = logging.getLogger(__name__)

RECIPE_FILE = "recipe.json"
DONE_FILE = "done.json"
VERSION_FILE = "version.json"
# Version of work directories: of the fields of recipes and rows, and of names.
VERSION = 2

_POLL_SECONDS = 1.0
# Matches a difference that is only in the fingerprint of user code.
_CODE = re.compile(r"(\S+\.)?code: ")


class WorkdirError(UserError):
    """The work directory cannot be used, or holds products of another config."""


def file_fingerprint(path: pathlib.Path) -> str:
    """16 hexadecimal digits that stand for the contents of a file or folder.

    The name and place of the path do not count; the names of files in a folder,
    relative to it, do.

    Raises:
      FileNotFoundError: there is nothing of that name.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return fingerprint(checksums.digests(path))


@dataclasses.dataclass(frozen=True)
class Product:
    """A stage's product: a directory and the recipe that it is made by.

    Attributes:
      directory: Directory of the product.
      recipe: JSON-able; whatever changes the product must be in it.
      advice: Extra advice for the error raised when the directory holds the product of
        another recipe.
    """

    directory: pathlib.Path
    recipe: Mapping[str, Any]
    advice: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for the recipe."""
        return fingerprint(self.recipe)

    def is_finished(self) -> bool:
        """Whether the directory holds the complete product of this recipe.

        Raises:
          WorkdirError: the directory holds a product of another recipe.
        """
        return hosts.broadcast(hosts.is_primary() and self._lies_there())

    def _lies_there(self) -> bool:
        made_by = _read_json(self.directory / RECIPE_FILE)
        if made_by is None:
            return False
        differences = _differences(made_by, json.loads(json.dumps(self.recipe)))
        if differences:
            raise WorkdirError(
                f"{self.directory} was made by another config:\n"
                + "\n".join(f"  {line}" for line in differences)
                + "\nUse another --workdir, set these fields back, or delete that "
                f"directory to make it anew.{self._advice(differences)}"
            )
        path = self.directory / DONE_FILE
        try:
            return _read_json(path) is not None
        except WorkdirError:
            aside = path.replace(path.with_name(f"unreadable-{DONE_FILE}"))
            _log.warning(
                "%s is damaged: moved to %s, and finished again", path, aside.name
            )
            return False

    def _advice(self, differences: list[str]) -> str:
        """Extra advice for these differences, in whole sentences."""
        advice = f" {self.advice}" if self.advice else ""
        if all(_CODE.match(line) for line in differences):
            advice += (
                " Only a file of your own code was edited, all of which counts: keep "
                "in another file what this product does not depend on."
            )
        return advice

    def record(self) -> dict[str, Any]:
        """What `finish` recorded about the finished product."""
        record = _read_json(self.directory / DONE_FILE) if hosts.is_primary() else {}
        if record is None:
            raise WorkdirError(f"{self.directory} is not finished")
        return hosts.broadcast(record)

    def checked_record(self, found: str) -> dict[str, Any]:
        """What `finish` recorded, after a check of the product's contents.

        Args:
          found: Fingerprint of the contents, to compare with the recorded one.

        Raises:
          WorkdirError: they differ.
        """
        record = self.record()
        expected = record["fingerprint"]
        if found != expected:
            raise WorkdirError(
                f"{self.directory} is damaged: its contents have the fingerprint "
                f"{found}, but {expected} was made; delete it to have it made anew"
            )
        return record

    @contextlib.contextmanager
    def making(self, *, resumable: bool = False) -> Iterator[pathlib.Path]:
        """Makes the directory for the block to write into.

        What an interrupted attempt left is removed first, and the directory is removed
        when the block fails, unless it is `resumable`. All hosts run the block, and
        wait for one another before and after it.

        Raises:
          WorkdirError: the directory cannot be written, holds other files, or is
            being made by another process.
        """
        with self._lock(wait=False), self._directory(resumable):
            yield self.directory

    @contextlib.contextmanager
    def making_if_absent(
        self,
        *,
        resumable: bool = False,
        is_whole: Callable[[], bool] = lambda: True,
    ) -> Iterator[pathlib.Path | None]:
        """As `making`, if the product is absent or no longer whole.

        Waits for another process that is making the product, for its own part of a
        grid.

        Args:
          resumable: As in `making`.
          is_whole: Called for a finished product; says whether it is still complete.

        Yields:
          The directory to write into, or None if the product is there.

        Raises:
          WorkdirError: as in `making`, or the product is of another recipe.
          PreemptedError: the job was asked to stop while it waited.
        """
        if self._is_whole(is_whole):
            yield None
            return
        with self._lock(wait=True):
            if self._is_whole(is_whole):
                yield None
                return
            with self._directory(resumable):
                yield self.directory

    def make_if_absent(
        self,
        make: Callable[[pathlib.Path], Mapping[str, Any]],
        *,
        resumable: bool = False,
        on_all_hosts: bool = False,
    ) -> None:
        """Has the primary host make the product if it is absent; the others wait.

        Args:
          make: Writes into the directory, and returns what `finish` records.
          resumable: As in `making`.
          on_all_hosts: Whether the other hosts run `make`, too.

        Raises:
          PreemptedError: on all hosts, if the primary was asked to stop.
          WorkdirError: as in `making_if_absent`.
        """
        with self.making_if_absent(resumable=resumable) as directory:
            if directory is None:
                return
            if on_all_hosts or hosts.is_primary():
                with contextlib.suppress(preemption.PreemptedError):
                    self.finish(**make(directory))
            if not self.is_finished():
                raise preemption.PreemptedError

    def _is_whole(self, is_whole: Callable[[], bool]) -> bool:
        return hosts.broadcast(hosts.is_primary() and self._lies_there() and is_whole())

    @contextlib.contextmanager
    def _directory(self, resumable: bool) -> Iterator[None]:
        if hosts.is_primary():
            self._refuse_other_files()
        try:
            if hosts.is_primary():
                if not resumable:
                    shutil.rmtree(self.directory, ignore_errors=True)
                make_directory(self.directory)
                atomic.write_json(self.directory / RECIPE_FILE, self.recipe)
            hosts.barrier(f"{self.directory.name} is begun")
            _wait_until_visible(self.directory / RECIPE_FILE)
            yield
        except BaseException:
            if not resumable and hosts.is_primary():
                shutil.rmtree(self.directory, ignore_errors=True)
            raise
        hosts.barrier(f"{self.directory.name} is made")

    @contextlib.contextmanager
    def _lock(self, *, wait: bool) -> Iterator[None]:
        """Keeps other processes from making this product; released with the process."""
        if hosts.is_primary():
            make_directory(self.directory.parent)
        path = self.directory.with_name(f".{self.directory.name}.lock")
        with open(path if hosts.is_primary() else os.devnull, "w") as file:
            if not _locked(file):
                if not wait:
                    raise WorkdirError(
                        f"another process is making {self.directory}; wait for it, use "
                        "another --workdir, or share the students of this one by "
                        "--shard=0/2 and --shard=1/2"
                    )
                _log.info("waiting for the process that makes %s", self.directory)
                while not _locked(file):
                    preemption.check()
                    time.sleep(_POLL_SECONDS)
            yield

    def _refuse_other_files(self) -> None:
        if not self.directory.is_dir() or (self.directory / RECIPE_FILE).exists():
            return
        others = [p.name for p in self.directory.iterdir() if p.name[0] != "."]
        if others:
            raise WorkdirError(
                f"{self.directory} has no {RECIPE_FILE}, but holds {min(others)!r}, "
                "which was not made here; choose another --workdir, or move it away"
            )

    def finish(self, **record: Any) -> None:
        """Marks the product as complete, and records what is known of it."""
        if hosts.is_primary():
            atomic.write_json(
                self.directory / DONE_FILE, checksums.with_checksum(record)
            )


def open_workdir(directory: pathlib.Path) -> None:
    """Creates a work directory, or checks that one is of this version.

    Raises:
      WorkdirError: it is of another version, or cannot be written.
    """
    make_directory(directory)
    path = directory / VERSION_FILE
    if hosts.is_primary():
        made = any((directory / name).exists() for name in ("runs", "teacher"))
        found = _read_json(path) or ({"version": 1} if made else None)
        if found is None:
            atomic.write_json(path, {"version": VERSION})
        elif found.get("version") != VERSION:
            raise WorkdirError(
                f"{directory} is a work directory of version {found.get('version')}, "
                f"this program makes and reads version {VERSION}; use another --workdir"
            )
    hosts.barrier("the work directory is open")


def make_directory(path: pathlib.Path) -> None:
    """Creates a directory and its parents, and checks that it can be written.

    Raises:
      WorkdirError: it cannot be created or written.
    """
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another host's process may have this id
    except OSError as error:
        raise WorkdirError(
            f"cannot write to {path}: {error.strerror}; choose another --workdir"
        ) from error


def _locked(file: IO[str]) -> bool:
    """Whether the primary host has the lock on its file; asked by all hosts."""
    if not hosts.is_primary():
        return hosts.broadcast(None)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return hosts.broadcast(False)
    except OSError as error:  # ENOLCK, ENOSYS
        raise WorkdirError(
            f"the file system of {pathlib.Path(file.name).parent} has no file locks "
            f"({error.strerror}), which keep processes apart: mount Lustre with "
            "`flock`, let NFS have its lockd, or choose another --workdir"
        ) from error
    return hosts.broadcast(True)


def _wait_until_visible(path: pathlib.Path) -> None:
    """Raises WorkdirError unless this host sees what the primary host has written."""
    if hosts.seen(lambda: path.exists() or None) is None:
        raise WorkdirError(
            f"process {hosts.index()} does not see {path}, which process 0 wrote; "
            "--workdir must be a directory that all hosts share"
        )


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        return checksums.without_checksum(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except checksums.DamagedError as error:
        raise WorkdirError(
            f"{path}: {error}; delete it to have it made again"
        ) from error
    except ValueError as error:  # of JSON, or of UTF-8
        raise WorkdirError(
            f"{path} is not valid JSON ({error}); delete {path.parent} to make it anew"
        ) from error


def _differences(made_by: Any, wanted: Any, field: str = "") -> list[str]:
    if isinstance(made_by, dict) and isinstance(wanted, dict):
        keys = sorted(made_by.keys() | wanted.keys())
        return [
            line
            for key in keys
            for line in _differences(
                made_by.get(key, "nothing"),
                wanted.get(key, "nothing"),
                f"{field}.{key}" if field else key,
            )
        ]
    if made_by == wanted:
        return []
    return [f"{field}: made with {made_by!r}, now {wanted!r}"]
