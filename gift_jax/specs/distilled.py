"""The distilled dataset of a config: made here, or read from a file."""

import dataclasses
import pathlib
from typing import Any

from ml_collections.config_dict import ConfigDict

from gift_jax import distill, registry
from gift_jax.distill.base import Distiller
from gift_jax.distilled import readers
from gift_jax.distilled.readers import parquet
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base


@dataclasses.dataclass(frozen=True)
class DistilledSpec:
    """The distilled images, and how to get them.

    Attributes:
      name: Name of the distiller, or of a published set.
      ipc: Images per class.
      path: Path of a published set; "" makes the images here.
      source: Format of a published set; "" guesses it.
      max_bytes: Bytes that its files may unpack to; None means the usual multiple of
        their size.
      distiller: Makes the images; None for a published set.
      code: Fingerprint of the code of a user's distiller.
    """

    name: str
    ipc: int
    path: str
    source: str
    max_bytes: int | None
    distiller: Distiller | None
    code: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for impossible fields."""
        base.check_least("distilled", self, ipc=1, max_bytes=1)
        if pathlib.Path(self.name).name != self.name:
            raise InputError(
                f"distilled.name is {self.name!r}, expected a name without '/'; the "
                "place of a published set is distilled.path"
            )
        if self.source:
            readers.find_reader(self.source)
        if self.source and not self.path:
            raise InputError(
                f"distilled.source is {self.source!r}, the format of a published set, "
                "but distilled.path is empty"
            )

    @classmethod
    def from_section(cls, section: ConfigDict) -> "DistilledSpec":
        """The one distilled dataset of a section.

        Raises:
          InputError: a field of it cannot be used.
        """
        if section.path:
            return base.from_section(cls, section, distiller=None, code=None)
        name, given = registry.split_options(section.name)
        kind = registry.find("distiller", name, distill.DISTILLERS)
        defaults = registry.keyword_defaults(kind, without=["ipc"])
        values = section.get(name) if name in distill.DISTILLERS else None
        options = base.chosen_options(f"distiller {name}", given, defaults, values)
        return base.from_section(
            cls,
            section,
            distiller=distill.make_distiller(name, ipc=section.ipc, **dict(options)),
            code=registry.code_fingerprint(name),
        )

    @property
    def is_on_hub(self) -> bool:
        """Whether a published set is to be fetched from Hugging Face."""
        return self.source == "parquet" and parquet.is_hub_id(pathlib.Path(self.path))

    def needs(self, what: str) -> bool:
        """Whether making the images needs that, see `Distiller.needs`."""
        return self.distiller is not None and what in self.distiller.needs

    @property
    def recipe(self) -> dict[str, Any]:
        """What images that are made here depend on, besides data and teacher."""
        assert self.distiller is not None
        options = dataclasses.asdict(self.distiller)  # type: ignore[call-overload]
        return {"name": self.name, "options": options, "code": self.code}
