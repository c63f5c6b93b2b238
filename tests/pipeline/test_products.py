"""Tests of `gift_jax.pipeline.products`: the life of a product, and what it refuses."""

import errno
import fcntl
import json
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.pipeline import products
from gift_jax.pipeline.products import Product, WorkdirError
from gift_jax.runtime import preemption

RECIPE = {"ipc": 10, "optimizer": {"name": "adamw", "lr": 1e-3}, "mean": (0.4, 0.5)}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
recipes = st.dictionaries(st.text(), json_values)
quickly = settings(deadline=None, max_examples=50)


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path / "distilled" / "rded", RECIPE)


def make(product, text="made", **options):
    with product.making(**options) as directory:
        (directory / "product.txt").write_text(text)
        product.finish(images=100)


# --- Life cycle ---------------------------------------------------------------------


def test_a_product_is_made_once_and_found_again(product):
    assert not product.is_finished()
    make(product)
    again = Product(product.directory, dict(RECIPE))
    assert again.is_finished()
    assert again.record() == {"images": 100}
    assert (again.directory / "product.txt").read_text() == "made"
    assert json.loads((again.directory / "recipe.json").read_text())["ipc"] == 10


def test_tuples_and_lists_are_the_same(product):
    make(product)
    listed = Product(product.directory, {**RECIPE, "mean": [0.4, 0.5]})
    assert listed.is_finished()
    assert listed.fingerprint == product.fingerprint


def test_a_product_without_its_mark_is_unfinished(product):
    with product.making():
        pass
    assert not product.is_finished()
    with pytest.raises(WorkdirError, match="rded is not finished"):
        product.record()


def test_an_unfinished_product_is_made_anew(product):
    with product.making() as directory:
        (directory / "leftover.npy").touch()
    make(product)
    names = sorted(path.name for path in product.directory.iterdir())
    assert names == ["done.json", "product.txt", "recipe.json"]


def test_an_unfinished_product_is_continued_if_it_can_be(product):
    with product.making(resumable=True) as directory:
        (directory / "chunk0").write_text("kept")
    assert not product.is_finished()
    with product.making(resumable=True) as directory:
        assert (directory / "chunk0").read_text() == "kept"
        product.finish()
    assert product.is_finished()
    assert product.record() == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_nothing(product, error):
    with pytest.raises(error), product.making() as directory:
        (directory / "half.npy").touch()
        raise error
    assert not product.directory.exists()
    assert not product.is_finished()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_resumable_block_that_fails_leaves_what_it_has(product, error):
    with pytest.raises(error), product.making(resumable=True) as directory:
        (directory / "chunk0").touch()
        raise error
    assert (product.directory / "chunk0").exists()
    assert not product.is_finished()


def test_a_recipe_that_is_no_json_leaves_nothing(tmp_path):
    product = Product(tmp_path / "product", {"path": pathlib.Path("a")})
    with pytest.raises(TypeError, match="not JSON serializable"), product.making():
        pass
    assert not product.directory.exists()


# --- Waiting for another process ----------------------------------------------------


def test_what_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    script = (
        "import pathlib, sys\n"
        "from gift_jax.pipeline.products import Product\n"
        "product = Product(pathlib.Path(sys.argv[1]), {'ipc': 10})\n"
        "with product.making() as directory:\n"
        "    print('making', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    product.finish(made_by='the other')\n"
    )
    path = tmp_path / "shared"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "making\n"
    ours = Product(path, {"ipc": 10})
    with pytest.raises(WorkdirError, match=r"is making .*--shard=0/2"), ours.making():
        pass
    # The other goes on only once this one waits.
    monkeypatch.setattr(preemption, "check", other.stdin.close)
    with ours.making_if_absent() as directory:
        assert directory is None
    assert other.stdin.closed
    assert ours.record() == {"made_by": "the other"}
    assert other.wait() == 0


def test_a_file_system_without_locks_is_told(product, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    message = rf"{product.directory.parent} has no file locks \(No locks available\)"
    with pytest.raises(WorkdirError, match=message), product.making():
        pass


def test_what_another_process_gave_up_is_made(product):
    with pytest.raises(RuntimeError), product.making_if_absent() as directory:
        assert directory == product.directory
        raise RuntimeError
    assert not product.directory.exists()
    with product.making_if_absent() as directory:
        assert directory is not None
        product.finish(n=1)
    with product.making_if_absent() as directory:
        assert directory is None
    with product.making_if_absent(is_whole=lambda: False) as directory:
        assert directory is not None


def test_waiting_ends_with_sigterm(product, monkeypatch):
    monkeypatch.setattr(products, "_locked", lambda file: False)
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(preemption.PreemptedError), product.making_if_absent():
        pass


# --- Another recipe -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "is_code_alone"),
    [
        ({"code": "b", "ipc": 1}, True),
        ({"distiller": {"code": "b"}, "code": "a", "ipc": 1}, True),
        ({"code": "b", "ipc": 2}, False),
    ],
)
def test_what_else_helps_is_said(tmp_path, changed, is_code_alone):
    made = {"code": "a", "ipc": 1}
    if "distiller" in changed:
        made["distiller"] = {"code": "a"}
    with Product(tmp_path / "product", made).making():
        pass
    with pytest.raises(WorkdirError, match="Use another name") as caught:
        Product(tmp_path / "product", changed, "Use another name.").is_finished()
    assert ("Only a file of your own code" in str(caught.value)) is is_code_alone


@pytest.mark.parametrize("finished", [True, False])
def test_a_product_of_another_recipe_is_an_error_that_names_both(product, finished):
    with product.making():
        if finished:
            product.finish()
    changed = {
        "ipc": 50,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "mean": (0.4, 0.5),
    }
    with pytest.raises(WorkdirError) as caught:
        Product(product.directory, changed).is_finished()
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{product.directory} was made by another config:"
    assert lines[1:3] == [
        "  ipc: made with 10, now 50",
        "  optimizer.lr: made with 0.001, now 0.01",
    ]
    assert "another --workdir" in lines[3]
    assert (product.directory / "recipe.json").exists()


def test_fields_that_only_one_recipe_has_are_named(product):
    make(product)
    changed = {"optimizer": RECIPE["optimizer"], "mean": (0.4, 0.5), "factor": 2}
    with pytest.raises(WorkdirError) as caught:
        Product(product.directory, changed).is_finished()
    lines = str(caught.value).splitlines()[1:3]
    assert lines == [
        "  factor: made with 'nothing', now 2",
        "  ipc: made with 10, now 'nothing'",
    ]


def test_a_section_that_became_a_value_is_named(product):
    make(product)
    with pytest.raises(WorkdirError, match=r"optimizer: made with \{.*\}, now 'sgd'"):
        Product(product.directory, {**RECIPE, "optimizer": "sgd"}).is_finished()


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_a_damaged_recipe_is_an_error_that_says_what_to_do(product, content):
    make(product)
    (product.directory / "recipe.json").write_bytes(content)
    with pytest.raises(WorkdirError, match=r"recipe.json is not valid JSON.*delete"):
        product.is_finished()


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b'{"top1": 51.0, "checksum": 0}']
)
def test_a_damaged_record_is_set_aside_and_the_product_finished_again(
    product, caplog, content
):
    make(product)
    done = product.directory / "done.json"
    done.write_bytes(content)
    with pytest.raises(WorkdirError, match=r"done\.json"):
        product.record()
    assert not product.is_finished()
    assert f"{done} is damaged: moved to unreadable-done.json" in caplog.text
    assert (product.directory / "unreadable-done.json").read_bytes() == content
    make(product, resumable=True)
    assert product.record() == {"images": 100}


def test_every_bit_of_a_record_counts(product):
    make(product)
    done = product.directory / "done.json"
    whole = done.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        done.write_bytes(changed)
        try:
            record = product.record()
        except WorkdirError:
            continue
        # White space, or the name of the checksum: no number, and no name of one.
        assert record["images"] == 100


# --- Directories that cannot be used ------------------------------------------------


@pytest.mark.parametrize("resumable", [True, False])
def test_files_of_others_are_neither_removed_nor_mixed_with(product, resumable):
    product.directory.mkdir(parents=True)
    thesis = product.directory / "thesis.tex"
    thesis.write_text("years of work")
    assert not product.is_finished()
    with pytest.raises(WorkdirError, match=r"holds 'thesis\.tex', which was not made"):
        make(product, resumable=resumable)
    assert thesis.read_text() == "years of work"
    assert list(product.directory.iterdir()) == [thesis]


def test_what_a_killed_start_left_is_no_file_of_others(product):
    product.directory.mkdir(parents=True)
    (product.directory / ".recipe.json-123").touch()
    make(product)
    assert product.is_finished()


def test_a_directory_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    product = Product(tmp_path / "file" / "product", RECIPE)
    assert not product.is_finished()
    with pytest.raises(WorkdirError, match=r"cannot write to .*file: File exists"):
        make(product)
    with pytest.raises(WorkdirError, match="choose another --workdir"):
        products.make_directory(tmp_path / "file")


def test_a_directory_without_permission_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "touch", refuse)
    with pytest.raises(WorkdirError) as caught:
        products.make_directory(tmp_path / "runs")
    assert str(caught.value) == (
        f"cannot write to {tmp_path / 'runs'}: Permission denied; "
        "choose another --workdir"
    )


def test_make_directory_makes_parents_and_leaves_no_probe(tmp_path):
    for _ in range(2):
        products.make_directory(tmp_path / "a" / "b")
        assert list((tmp_path / "a" / "b").iterdir()) == []


# --- Fingerprints -------------------------------------------------------------------


@quickly
@given(recipes, st.randoms())
def test_fingerprints_ignore_the_order_of_keys(recipe, random):
    keys = list(recipe)
    random.shuffle(keys)
    assert products.fingerprint({key: recipe[key] for key in keys}) == (
        products.fingerprint(recipe)
    )


@quickly
@given(recipes, recipes)
def test_fingerprints_are_equal_for_equal_recipes_only(left, right):
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (products.fingerprint(left) == products.fingerprint(right)) is same


@quickly
@given(recipes, st.text(), json_values)
def test_fingerprints_change_with_any_field(recipe, key, value):
    changed = {**recipe, key: [value]}
    assert products.fingerprint(changed) != products.fingerprint({**recipe, key: value})


def test_a_fingerprint_stays_the_same_between_versions():
    # Changing this makes all products of users out of date.
    assert products.fingerprint(RECIPE) == "1051e7d03d51976a"
    assert Product(pathlib.Path("anywhere"), RECIPE).fingerprint == "1051e7d03d51976a"


def test_file_fingerprint_is_of_the_contents_not_the_name(tmp_path):
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    expected = products.file_fingerprint(first)
    assert products.file_fingerprint(second) == expected
    second.write_bytes(b"weightz")
    assert products.file_fingerprint(second) != expected


def folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return products.file_fingerprint(path)


def test_file_fingerprint_of_a_folder(tmp_path):
    files = {"00001/a.png": "one", "00000/b.png": "two", "meta.json": "{}"}
    expected = folder(tmp_path / "0", files)
    assert folder(tmp_path / "1", dict(reversed(files.items()))) == expected
    others = [
        {**files, "00001/a.png": "other"},
        {**files, "00001/c.png": ""},
        {"00001/a.png": "one", "00000/b.png": "two"},
        {"00000/a.png": "one", "00001/b.png": "two", "meta.json": "{}"},
        {"00001/a.png": "two", "00000/b.png": "one", "meta.json": "{}"},
    ]
    found = {folder(tmp_path / f"other{i}", other) for i, other in enumerate(others)}
    assert len(found | {expected}) == 6


def test_file_fingerprint_tells_names_from_contents(tmp_path):
    # Run together, names and contents are the same bytes.
    assert folder(tmp_path / "0", {"a": "bc"}) != folder(
        tmp_path / "1", {"a": "", "bc": ""}
    )


def test_file_fingerprint_of_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"teacher\.pth does not exist"):
        products.file_fingerprint(tmp_path / "teacher.pth")


def test_two_processes_do_not_make_one_product(tmp_path):
    product = Product(tmp_path / "teacher", {"epochs": 1})
    with (
        product.making() as directory,
        pytest.raises(WorkdirError, match="another process is making"),
        Product(tmp_path / "teacher", {"epochs": 1}).making(),
    ):
        raise AssertionError("not reached")
    assert directory.is_dir()
    with Product(tmp_path / "teacher", {"epochs": 1}).making():
        pass
