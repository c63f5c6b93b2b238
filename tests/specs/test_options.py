"""Options in one string."""

import pytest

from gift_jax.configs import common, digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import options


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("3", float, 3.0), ("1e-3", float, 1e-3), ("True", bool, True), ("x", str, "x")],
)
def test_values(text, kind, value):
    parsed = options.parse_value(text, kind, "name")
    assert parsed == value and type(parsed) is kind


def test_short_and_whole_names_set_fields():
    config = common.get_config()
    text = "ipc=3,loss.kl.temperature=2,lr=0.5,distilled.rded.factor=2"
    assert options.with_options(config, text) is config
    assert (config.distilled.ipc, config.loss.kl.temperature) == (3, 2.0)
    assert (config.optimizer.learning_rate, config.distilled.rded.factor) == (0.5, 2)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("train.seeds=(0,1),ipc=3", "train.seeds", (0, 1)),
        ("variants=('ipc=1','train.seeds=(0,1)'),ipc=3", "variants", None),
        ("ipc=3,distilled.path='a,b'", "distilled.path", "a,b"),
        ("distilled.path=it's,ipc=3", "distilled.path", "it's"),
        ("distilled.path=/o'b(x,ipc=3", "distilled.path", "/o'b(x"),
        ("variants=(('a','b,c'),(1,2)),ipc=3", "variants", (("a", "b,c"), (1, 2))),
    ],
)
def test_commas_in_brackets_and_quotes_are_part_of_a_value(text, field, value):
    parsed = options.parse_options(common.get_config(), text)
    expected = ("ipc=1", "train.seeds=(0,1)") if value is None else value
    assert parsed == {field: expected, "distilled.ipc": 3}


def test_parsed_options_have_whole_names():
    parsed = options.parse_options(common.get_config(), "ipc=3,views=2")
    assert parsed == {"distilled.ipc": 3, "relabel.views": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipcs=1", "did you mean 'ipc'"),
        ("loss.kl.temprature=1", "unknown option of the config"),
        ("ipc", "option 'ipc' has no '=': expected NAME=VALUE"),
        ("train.seeds=0,1", "type tuple, several values in brackets"),
        ("protocl=rd3", "did you mean 'protocol'"),
        ("ipc=many", "ipc=many must be of type int"),
        ("ipc=True", "must be of type int"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(InputError, match=message):
        options.with_options(common.get_config(), text)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("loss.name", "kl+my_losses:margin", True),
        ("variants", ("ipc=1", "loss=my_losses:margin"), True),
        ("teacher.name", "my_teachers:Net", True),
        ("teacher.name", "torch:my_models:Net", False),
        ("teacher.name", "timm:resnet18+my_teachers:Net", True),
        ("dataset.name", "folder:images", False),
        ("relabel.store", "gs://bucket/path", False),
    ],
)
def test_code_of_the_user_s_own_is_told_from_places(field, value, expected):
    config = common.get_config()
    config.update_from_flattened_dict({field: value})
    assert options.names_own_code(config) is expected


def test_a_study_derives_fields_from_the_flags():
    def study(config):
        config.relabel.views = config.train.epochs // 2

    config = digits.get_config()
    options.with_flags(config, {"protocol": "rded", "train.epochs": 30}, study)
    assert (config.train.epochs, config.relabel.views) == (30, 15)


def test_flags_win_over_a_study_and_that_over_the_protocol_they_choose():
    config = digits.get_config("epochs=7")

    def study(config):
        config.loss.name, config.optimizer.name = "gift", "muon"

    given = {"protocol": "rded", "optimizer.name": "lion"}
    options.with_flags(config, given, study)
    assert (config.train.epochs, config.train.batch_size) == (300, 50)
    assert (config.loss.name, config.optimizer.name) == ("gift", "lion")
