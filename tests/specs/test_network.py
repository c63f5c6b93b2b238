"""Networks of a config, and what they are called."""

import pytest

from gift_jax.configs import digits
from gift_jax.data import info
from gift_jax.runtime.errors import InputError
from gift_jax.specs.network import NetworkSpec


def network(text, **fields):
    section = digits.get_config().student
    section.update(fields)
    return NetworkSpec.from_section(section, text)


def test_networks_are_named_by_what_is_not_the_default():
    assert network("conv3").label == "conv3-width=32"
    assert network("resnet18").label == "resnet18"
    assert network("conv3", width=128, dtype="bfloat16").label == "conv3-dtype=bfloat16"
    assert network("conv3-width=16").label == "conv3-width=16"


def test_options_are_for_the_networks_that_have_them():
    assert dict(network("conv2").options) == {"norm": "batch", "width": 32}
    assert network("resnet18").options == ()


def test_one_of_the_users_own_has_its_own_options(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "def net(*, num_classes, image_size, width=16, norm='layer'): pass"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert dict(network("own_nets:net").options) == {"norm": "layer", "width": 16}
    assert network("own_nets:net-width=8").label == "own_nets:net-width=8"


def test_equal_networks_are_one_object():
    digits_info = info.dataset_info("digits")
    built = network("conv2").build(digits_info)
    assert built is network("conv2").build(digits_info)
    assert built.width == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv99", "unknown model 'conv99'"),
        ("conv2-widht=3", "unknown option of conv2 'widht'.*did you mean 'width'"),
        ("resnet18-width=3", "unknown option of resnet18"),
    ],
)
def test_wrong_networks(text, message):
    with pytest.raises(InputError, match=message):
        network(text)


def test_a_bad_value_is_found_when_it_is_built():
    with pytest.raises(InputError, match="bacth"):
        network("conv2", norm="bacth").build(info.dataset_info("digits"))
