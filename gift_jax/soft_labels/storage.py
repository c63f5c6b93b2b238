"""Where arrays are stored: local directories, Google Cloud Storage and Amazon S3.

Credentials are found as the clouds' own tools find them. S3-compatible services are
reached with `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, as by Amazon's own tools.
"""

import os
import pathlib
import re
import shutil
from typing import Any

import tensorstore

from gift_jax.runtime.errors import InputError, UserError

_CLOUDS = {
    "gs": "Google Cloud Storage: `gcloud auth application-default login`, or "
    "GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "S3: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
# TensorStore retries for many minutes, as it must in the middle of a job. At the start
# of a job a cloud that does not answer is taken for a mistake in the settings.
_FIRST_ANSWER_SECONDS = 30.0
_DAMAGE = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE")


class StorageError(UserError, OSError):
    """A store cannot be reached, read or written."""


def is_remote(location: str | os.PathLike) -> bool:
    """Whether a location is a URL, and not a local path."""
    return "://" in str(location)


def join(location: str, *parts: str) -> str:
    """A place below a location."""
    if is_remote(location):
        return "/".join([location.rstrip("/"), *parts])
    return str(pathlib.Path(location).expanduser().resolve().joinpath(*parts))


def kvstore_spec(location: str | os.PathLike) -> dict[str, Any]:
    """TensorStore's specification of a directory.

    Args:
      location: A local path, "gs://BUCKET/PATH" or "s3://BUCKET/PATH".

    Raises:
      InputError: a URL of another kind, or one that is malformed.

    >>> kvstore_spec("gs://bucket/soft_labels")
    {'bucket': 'bucket', 'driver': 'gcs', 'path': 'soft_labels/'}
    """
    if not is_remote(location):
        return {"driver": "file", "path": f"{pathlib.Path(location).resolve()}/"}
    url = str(location).rstrip("/") + "/"
    scheme = url.partition("://")[0]
    if scheme not in _CLOUDS:
        raise InputError(
            f"{location} cannot be written to: expected a local path, "
            "gs://BUCKET/PATH or s3://BUCKET/PATH"
        )
    try:
        spec = tensorstore.KvStore.Spec(url).to_json()
    except ValueError as error:
        raise InputError(f"{location} is no place to store at: {error}") from error
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = next(filter(None, map(os.environ.get, variables)), None)
    if scheme == "s3" and endpoint:
        spec["endpoint"] = endpoint
    return spec


def open_array(
    spec: dict[str, Any], location: str | os.PathLike, *, create: bool = True
) -> tensorstore.TensorStore:
    """Opens an array.

    Args:
      spec: TensorStore's spec of the array, without its `kvstore`.
      location: See `kvstore_spec`.
      create: Whether to create the array where there is none.

    Raises:
      StorageError: the location cannot be reached or written, or holds no array and
        none is created.
      InputError: another array is there; the message says how it differs.
    """
    check_reachable(location)
    full_spec = {**spec, "kvstore": kvstore_spec(location)}
    opening = tensorstore.open(full_spec, open=True, create=create)
    try:
        return _first_answer(opening, location)
    except ValueError as error:
        raise InputError(reason(error)) from error


def check_reachable(location: str | os.PathLike) -> None:
    """Asks a cloud for a listing, which it answers at once; nothing is written.

    Raises:
      StorageError: the cloud does not answer, or the bucket does not exist or is not
        accessible.
      InputError: as for `kvstore_spec`.
    """
    spec = kvstore_spec(location)
    if is_remote(location):
        directory = _first_answer(tensorstore.KvStore.open(spec), location)
        one_key = tensorstore.KvStore.KeyRange("zarr.json", "zarr.json0")
        _first_answer(directory.list(one_key), location)


def _first_answer(future: tensorstore.Future, location: str | os.PathLike) -> Any:
    timeout = _FIRST_ANSWER_SECONDS if is_remote(location) else None
    try:
        return future.result(timeout=timeout)
    except TimeoutError as error:
        cloud = _CLOUDS[str(location).partition("://")[0]]
        raise StorageError(
            f"{location} does not answer within {_FIRST_ANSWER_SECONDS:.0f} s: check "
            f"the network, the name and the credentials ({cloud})"
        ) from error
    except ValueError as error:
        if is_damage(error):
            raise
        raise StorageError(f"{location} cannot be used: {reason(error)}") from error


def is_damage(error: ValueError) -> bool:
    """Whether TensorStore's error is about the stored data, not about the storage."""
    return str(error).startswith(_DAMAGE)


def reason(error: ValueError) -> str:
    """TensorStore's message without its code, its source and the server's reply."""
    text = re.sub(r'^[A-Z_]+: (Error opening "\w+" driver: )?', "", str(error))
    return re.split(r" \[[\w ]+=", text)[0]


def free_bytes(location: str | os.PathLike) -> int | None:
    """Free bytes at a local path, which need not exist; None for a URL."""
    if is_remote(location):
        return None
    path = pathlib.Path(location).resolve()
    existing = next(p for p in (path, *path.parents) if p.is_dir())
    return shutil.disk_usage(existing).free
