"""Prepares a TFDS dataset as array_record: downloads it and writes it to disk.

    pip install -e ".[prepare]"
    python -m gift_jax.data.prepare cifar10 --data_dir=~/tensorflow_datasets

Needs TensorFlow and a network, once; reading the result needs neither.
"""

import argparse
import importlib.util
from collections.abc import Sequence

from gift_jax.data import info as info_lib
from gift_jax.data import tfds_source
from gift_jax.runtime import errors


def prepare(name: str, data_dir: str | None = None) -> str:
    """Prepares a dataset unless it is there already.

    Args:
      name: A dataset of `info.DATASETS` that TFDS has, or "tfds:NAME".
      data_dir: Where to write it; by default $TFDS_DATA_DIR, or else
        ~/tensorflow_datasets.

    Returns:
      The directory that holds it.

    Raises:
      MissingPackageError: TensorFlow is not installed.
      InputError: a dataset that TFDS does not have, or one that is there in
        another format.
    """
    tfds_name = _tfds_name(name)
    if importlib.util.find_spec("tensorflow") is None:
        raise errors.MissingPackageError(
            "TFDS needs TensorFlow to write a dataset (not to read it): "
            f"{errors.pip_install('prepare')}"
        )
    import tensorflow_datasets as tfds

    directory = tfds_source.tfds_directory(data_dir)
    builder = tfds.builder(tfds_name, data_dir=directory)
    builder.download_and_prepare(file_format="array_record")
    # TFDS leaves a dataset that is there in another format as it is: opening it raises.
    tfds_source.Tfds(tfds_name, directory)
    return str(builder.data_dir)


def _tfds_name(name: str) -> str:
    kind, _, rest = name.partition(":")
    if kind == "tfds" and rest:
        return rest
    info = info_lib.dataset_info(name)
    if info.tfds_name:
        return info.tfds_name
    if info.name == "digits":
        raise errors.InputError("digits comes with scikit-learn; nothing to prepare")
    raise errors.InputError(
        f"TFDS does not have {info.name}: unpack its archive and give the folder that "
        "holds train/ and val/ as data_dir"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gift_jax.data.prepare",
        description="Download a TFDS dataset and write it as array_record.",
    )
    parser.add_argument("name", help="such as cifar10, or tfds:NAME")
    parser.add_argument("--data_dir", help="default: $TFDS_DATA_DIR or TFDS's own")
    flags = parser.parse_args(arguments)
    try:
        directory = prepare(flags.name, flags.data_dir)
    except errors.EXPECTED as error:
        parser.error(str(error))
    print(f"{flags.name} is in {directory}")


if __name__ == "__main__":
    main()
