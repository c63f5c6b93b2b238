"""Reads damaged files one after the other, and says what came of each.

    python -m tests.fuzz.probe DIRECTORY SEED COUNT FAMILY...

It runs in a process of its own, so that its memory is that of the readers, and so that
a crash is seen. Prints one JSON object; what it is at stands in DIRECTORY/now.
"""

import collections
import json
import logging
import pathlib
import resource
import shutil
import signal
import sys
import time
import warnings

import numpy as np

from gift_jax import inspect
from gift_jax.distilled import read_distilled
from gift_jax.runtime.errors import UserError
from tests.fuzz import mutations

MAX_SECONDS = 2
MAX_BYTES = 2**30
# For what waits for something that never comes, such as the other end of a pipe.
_ALARM_SECONDS = 30
_LONGEST_MESSAGE = 3000


class Hung(BaseException):
    """A reader does not come back."""


def _on_alarm(*_):
    raise Hung


class Failures(list):
    """What must not happen, each with what it happened to."""

    def watch(self, name, function, *arguments, **keywords):
        """Calls a reader. Returns its result, or the error that is meant for users."""
        started, before = time.process_time(), peak_bytes()
        signal.alarm(_ALARM_SECONDS)
        try:
            result = function(*arguments, **keywords)
        except (UserError, OSError) as error:
            result = error
        except Hung:
            result = OSError("hung")
            self.append(f"{name}: did not come back")
        except BaseException as error:
            result = error
            self.append(f"{name}: {type(error).__name__}: {error}"[:300])
        signal.alarm(0)
        seconds = time.process_time() - started
        if seconds > MAX_SECONDS:
            self.append(f"{name}: {seconds:.1f} s")
        if peak_bytes() > max(MAX_BYTES, before):
            self.append(f"{name}: {peak_bytes() / 2**20:.0f} MiB")
        return result


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_family(name, directory, seed, count):
    """Counts of what `count` damaged files of a family came to, and failures."""
    family = mutations.FAMILIES[name]
    good = directory / "good"
    good.mkdir()
    inside = family.write(good).relative_to(good)
    expected = read_distilled(good / inside).fingerprint
    counts, failures = collections.Counter(), Failures()
    for index in range(count):
        (directory / "now").write_text(f"{name} {seed} {index}")
        rng = np.random.default_rng([seed, index])
        scratch = directory / "damaged"
        shutil.copytree(good, scratch)
        on_disk = family.on_disk is not None and index % 2 == 0
        (family.on_disk if on_disk else family.within)(rng, scratch / inside)
        what = f"{name} {seed} {index}"
        # Without a dataset's name, for what files and paths say themselves.
        options = {"dataset": "cifar10"} if rng.integers(2) else {}
        found = failures.watch(what, read_distilled, scratch / inside, **options)
        if isinstance(found, BaseException):
            counts["refused"] += 1
        elif found.fingerprint == expected:
            counts["unharmed"] += 1
        else:
            counts["others"] += 1
            if on_disk:
                failures.append(f"{what}: other images or labels, without a word")
        failures.watch(f"inspect {what}", inspect.inspect, scratch / inside, "cifar10")
        shutil.rmtree(scratch)
    shutil.rmtree(good)
    return {"counts": counts, "failures": failures}


def run_bombs(directory):
    """The same of attacks made by hand, each of which must be refused."""
    counts, failures = collections.Counter(), Failures()
    paths = json.loads((directory / "bombs.json").read_text())
    for name, path in paths.items():
        (directory / "now").write_text(name)
        path = pathlib.Path(path)
        found = failures.watch(name, read_distilled, path, dataset="cifar10")
        if not isinstance(found, BaseException):
            failures.append(f"{name}: was read")
        elif len(str(found)) > _LONGEST_MESSAGE:
            failures.append(f"{name}: {len(str(found))} characters are said of it")
        failures.watch(f"inspect {name}", inspect.inspect, path, "cifar10")
        counts["refused"] += 1
    return {"counts": counts, "failures": failures}


def main(directory, seed, count, *families):
    signal.signal(signal.SIGALRM, _on_alarm)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    directory = pathlib.Path(directory)
    results = {
        name: run_bombs(directory)
        if name == "bombs"
        else run_family(name, directory, int(seed), int(count))
        for name in families
    }
    results["peak_bytes"] = peak_bytes()
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
