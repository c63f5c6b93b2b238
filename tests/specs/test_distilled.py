"""The distilled dataset of a config."""

import pytest

from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import DistilledSpec


def distilled(**fields):
    section = digits.get_config("distill=rded").distilled
    section.update(fields)
    return DistilledSpec.from_section(section)


def test_one_that_is_made_here():
    spec = distilled(ipc=3)
    assert spec.needs("teacher")
    assert spec.recipe == {
        "name": "rded",
        "options": {
            "ipc": 3,
            "factor": 1,
            "images_per_class": 100,
            "crops_per_image": 5,
        },
        "code": None,
    }
    assert not distilled(name="random").needs("teacher")


def test_a_name_can_bring_its_own_options():
    assert distilled(name="rded-factor=2").distiller.factor == 2


def test_a_published_one_has_no_distiller():
    spec = distilled(name="theirs", path="data.pt", source="torch-experiment=0")
    assert spec.distiller is None and not spec.needs("teacher")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ipc": 0}, r"ipc is 0|ipc .* 0"),
        ({"name": "rdde"}, "did you mean 'rded'"),
        ({"name": "rded-factr=2"}, "did you mean 'factor'"),
        ({"name": "a/b", "path": "x"}, "without '/'"),
        ({"name": "/tmp/a", "path": "x"}, "without '/'"),
        ({"path": "x", "source": "folder"}, "did you mean 'folders'"),
        ({"path": "x", "source": "torch-factr=2"}, "did you mean 'factor'"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(InputError, match=message):
        distilled(**fields)
