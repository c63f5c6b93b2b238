"""Jobs of a config: variants, teachers, distilled datasets; what names them apart."""

import pytest

from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import expand


def jobs(**fields):
    config = digits.get_config()
    config.update_from_flattened_dict(fields)
    return expand(config)


def test_a_grid_is_expanded_to_one_teacher_and_one_distilled_dataset():
    config = digits.get_config()
    config.teacher.name = "conv3+conv2"
    config.variants = ("ipc=1", "ipc=10,loss.gift.gamma=0.2")
    found = expand(config)
    assert [
        (
            job.distilled.ipc,
            job.teacher.name,
            job.distilled.name,
            dict(job.setups[1][0].loss.options)["gamma"],
        )
        for job in found
    ] == [
        (ipc, teacher, distilled, gamma)
        for ipc, gamma in ((1, 0.1), (10, 0.2))
        for teacher in ("conv3", "conv2")
        for distilled in ("random", "rded")
    ]
    assert config.distilled.ipc == 10 and config.teacher.name == "conv3+conv2"


def test_a_published_dataset_has_one_name():
    with pytest.raises(InputError, match="give it one name"):
        jobs(**{"distilled.path": "data.pt"})


def test_views_are_one_an_epoch_unless_given():
    assert jobs()[0].views == 200
    assert jobs(**{"relabel.views": 7})[0].views == 7
    assert jobs(**{"relabel.views": 7})[0].labelled_views == 7
    assert jobs(**{"relabel.source": "fixed"})[0].labelled_views == 1
    # Epochs without soft labels need none.
    assert jobs(**{"relabel.hard_epochs": 150})[0].views == 50


def test_variants_name_what_names_do_not_hold_anyway():
    variants = (
        "seed=1,ipc=2",
        "augment.diffaug=flip",
        "teacher.epochs=3",
        "distilled.rded.factor=2,train.eval_every=3",
        "dataset.data_dir=/a/b",
        "teacher.checkpoint=",
    )
    config = digits.get_config("distill=rded")
    config.teacher.checkpoint = "observer.pth"
    config.variants = variants
    seed, augment, teacher, factor, place, own = expand(config)
    products = ("teacher", "distilled", "soft_labels", "run")

    def tagged(job):
        return [job.tagged("x", product) for product in products]

    assert tagged(seed) == ["x_seed=1"] * 3 + ["x"]
    assert tagged(augment) == ["x", "x", "x_augment.diffaug=flip", "x"]
    assert tagged(teacher) == ["x_teacher.epochs=3", "x", "x", "x"]
    assert tagged(factor) == [
        "x",
        "x_distilled.rded.factor=2",
        "x",
        "x_train.eval_every=3",
    ]
    (name, *_) = tagged(place)
    assert name.startswith("x_dataset.data_dir=") and "/" not in name
    assert tagged(own)[0] == "x_teacher.checkpoint=none"
    assert seed.tagged("y_seed=1", "distilled") == "y_seed=1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"variants": ("ipcs=1",)}, "did you mean 'ipc'"),
        ({"relabel.source": "dataset", "distilled.name": "rded"}, "needs a teacher"),
        (
            {"relabel.source": "hard"},
            "'kl', which needs soft labels, but relabel.source is 'hard'",
        ),
        ({"relabel.hard_epochs": 200}, "but train.epochs is 200: some must have"),
        ({"relabel.mix_hard_labels": True}, "there are no mixed pictures"),
        ({"train.evaluators": "accuracy+task_accuracy"}, "continual.steps is 0"),
        ({"optimizer.warmup_epochs": 300}, "is 300, longer than the training of 200"),
        ({"teacher.name": "conv99"}, "unknown teacher 'conv99'"),
        ({"distilled.name": "rdde"}, "did you mean 'rded'"),
        ({"distilled.name": "../x"}, "without '/'|unknown"),
        ({"distilled.source": "gifts"}, "did you mean 'gift"),
        ({"student.name": "conv99"}, "conv"),
        ({"loss.name": "gift-gamma=-1"}, "gamma"),
        ({"optimizer.name": "adamv"}, "did you mean 'adam"),
        ({"train.seeds": ()}, r"train\.seeds is \(\)"),
        ({"train.seeds": (1, 1)}, "different whole numbers"),
        ({"variants": (3,)}, r"variants is \(3,\), expected strings of options"),
        ({"tuning.enabled": True, "optimizer.learning_rate": 0.1}, "leave one of them"),
    ],
)
def test_what_does_not_go_together(fields, message):
    with pytest.raises(InputError, match=message):
        jobs(**fields)


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("teacher.checkpoint", "/no/such/file.pth"),
        ("distilled.path", "/no/such/data.pt"),
        ("train.init_from", "/no/such/run"),
    ],
)
def test_paths_are_checked_when_they_are_needed(field, path):
    (job, *_) = jobs(**{field: path, "distilled.name": "rded"})
    with pytest.raises(FileNotFoundError, match=f"{field} is {path}"):
        job.check_paths()


def test_weights_to_start_from_are_looked_for_before_any_work(tmp_path):
    (job, *_) = jobs(**{"train.init_from": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*train\.init_from"):
        job.check_paths()


def test_folders_of_labels_are_told_apart_in_names():
    config = digits.get_config("distill=random")
    config.relabel.source = "fkd"
    config.variants = ("relabel.path=/one/fkd", "relabel.path=/two/fkd")
    assert len({job.tagged("x", "soft_labels") for job in expand(config)}) == 2
    config.relabel.source = "store"
    config.variants = ("relabel.views=2", "relabel.views=3")  # names hold them anyway
    assert {job.tagged("x", "soft_labels") for job in expand(config)} == {"x"}


def test_checkpoints_of_further_teachers_are_told_apart():
    config = digits.get_config("distill=random")
    config.variants = tuple(
        f"teacher.also=('conv2{checkpoint}',)"
        for checkpoint in ("@a.pth", "@b.pth", "")
    )
    names = [job.tagged("x", "teacher") for job in expand(config)]
    assert len(set(names)) == 3
    assert names[2] == "x"
