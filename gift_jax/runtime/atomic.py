"""Files that are written as a whole or not at all."""

import contextlib
import json
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Puts a new file or directory in place atomically.

    Readers see the old file or the new one, never half of it.

    Yields:
      A path beside it to write to; removed if the block fails.
    """
    # Not by process number, which processes of two containers may share.
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)
        raise


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that readers see the old file or the new one, never half."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2) + "\n")
