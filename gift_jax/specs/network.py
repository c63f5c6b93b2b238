"""A network: of a student, or of a teacher."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
from ml_collections.config_dict import ConfigDict

from gift_jax import models, registry
from gift_jax.data.info import DatasetInfo
from gift_jax.runtime.devices import AXIS
from gift_jax.specs import base


@functools.cache
def _create_model(code: str | None, name: str, **options: Any) -> nn.Module:
    """One object for equal arguments, so that students share compiled functions."""
    del code  # tells versions of a user's network apart after an edit
    return models.create_model(name, **options)


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network with its options.

    Attributes:
      name: Name in `models.MODELS`, or "package.module:attribute".
      dtype: Data type of activations: "float32" or "bfloat16".
      options: Options that change its parameters.
      code: Fingerprint of the code of a user's network.
    """

    name: str
    dtype: str
    options: base.Options
    code: str | None = None

    @classmethod
    def from_section(cls, section: ConfigDict, text: str) -> "NetworkSpec":
        """The network of that name, with its options.

        Options that the name does not give come from the section. A user's network, for
        which a `width` of the section may mean something else, has its own defaults
        instead.

        Raises:
          InputError: an unknown name or option.
        """
        name, given = registry.split_options(text)
        defaults = models.model_options(name)
        in_section = {} if registry.is_own(name) else section
        return cls(
            name=name,
            dtype=section.dtype,
            options=base.chosen_options(name, given, defaults, in_section),
            code=registry.code_fingerprint(name),
        )

    @property
    def label(self) -> str:
        """Its name with the options that are not the default.

        >>> NetworkSpec("conv3", "bfloat16", (("norm", "batch"), ("width", 32))).label
        'conv3-dtype=bfloat16-width=32'
        """
        defaults = {"dtype": "float32", **models.model_options(self.name)}
        fields = {"dtype": self.dtype, **dict(self.options)}
        return registry.label(self.name, fields, defaults)

    def build(self, dataset: DatasetInfo) -> nn.Module:
        """The module for a dataset, its batch norm synchronised over devices.

        Raises:
          InputError: a bad option, images that are too small for it, or a user's
            network that is not called as the others.
        """
        size = {"num_classes": dataset.num_classes, "image_size": dataset.image_size}
        options = {**size, **dict(self.options)}
        model = _create_model(
            self.code, self.name, axis_name=AXIS, dtype=self.dtype, **options
        )
        if registry.is_own(self.name):
            models.check_model(self.name, model, channels=dataset.channels, **size)
        return model
