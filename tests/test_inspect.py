import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from gift_jax import distilled, inspect
from gift_jax.data import info, real
from gift_jax.distilled import zca
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
TRAIN_IMAGES = np.load(FIXTURES / "data_zca.npz")["images"]
PIXELS = TRAIN_IMAGES[:20]
LABELS = np.repeat(np.arange(10), 2)


@pytest.fixture
def dataset():
    return distilled.DistilledDataset(
        images=PIXELS.astype(np.float32) / 255,
        labels=LABELS,
        soft_labels=(np.eye(10)[LABELS] - 0.1).astype(np.float32),
        preprocess=info.CIFAR,
        metadata=distilled.Metadata(
            "cifar10", 10, "datm", "test", hard_labels="argmax", learning_rate=0.02
        ),
    )


def facts(*arguments):
    return dict(inspect.inspect(*arguments))


def test_a_distilled_dataset(tmp_path, dataset):
    distilled.save_distilled(dataset, tmp_path)
    found = facts(tmp_path)
    assert found["format"] == "gift_jax"
    assert found["dataset"] == "cifar10, 10 classes"
    assert found["images"] == "20 of 4x4 pixels, 3 channels"
    low, high = PIXELS.min() / 255, PIXELS.max() / 255
    assert found["pixels"].startswith(f"[{low:.4g}, {high:.4g}]")
    assert found["pixels"].endswith("from 8 bits")
    assert found["ZCA"] == "not whitened"
    assert found["IPC"] == "2"
    assert found["hard labels"] == "the argmax of the soft labels"
    assert "[-0.1, 0.9]" in found["soft labels"]
    assert "rows sum to 0" in found["soft labels"]
    assert "100.0%" in found["soft labels"]
    assert found["learning rate"] == "0.02, learnt"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full((4, 4), 0.25), "rows sum to 1"),
        (np.eye(4) - 0.25, "rows sum to 0 (centred)"),
        (np.arange(8.0).reshape(4, 2), "rows sum to [1, 13]"),
    ],
)
def test_row_sums(labels, said):
    assert inspect._row_sums(labels) == said


def test_uneven_classes(tmp_path, dataset):
    labels = LABELS.copy()
    labels[1] = 5
    np.savez(tmp_path / "cifar10.npz", images=dataset.images, labels=labels)
    assert facts(tmp_path / "cifar10.npz")["IPC"] == "3 (fewest: 1)"


def test_preview(tmp_path, dataset):
    distilled.write_distilled(dataset, tmp_path / "data.pt", "gift")
    found = facts(tmp_path / "data.pt", None, tmp_path / "grid.png")
    assert found["preview"] == str(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > grid.width  # ten classes down, two images across
    with pytest.raises(ValueError, match="no images"):
        facts(FIXTURES / "data_fkd_mixup", None, tmp_path / "other.png")


def test_a_format_can_be_forced(tmp_path, capsys):
    images, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10)
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    options = [str(tmp_path / "x.npz"), "--dataset=cifar10"]
    assert inspect.main([*options, "--source=npz"]) == 0
    assert inspect.main([*options, "--source=torch"]) == 2
    assert "read as 'torch'" in capsys.readouterr().err


def test_a_checkpoint(tmp_path):
    weights = {"conv.weight": np.zeros((2, 3), np.float32), "steps": np.array(7)}
    torch_files.save_torch(tmp_path / "x.pth", {"model": weights, "epoch": 3})
    found = facts(tmp_path / "x.pth")
    assert found["model.conv.weight"] == "float32 2x3"
    assert found["model.steps"] == "int64 scalar"
    assert found["total"] == "2 arrays, 7 numbers"


def test_containers_are_looked_into_once_and_not_without_end():
    twice = [np.zeros(3)]
    recursive = {"a": twice, "b": twice}
    recursive["itself"] = recursive
    assert [name for name, _ in inspect._named_arrays(recursive)] == ["a.0"]
    laughs = [np.zeros(2)]
    for _ in range(40):
        laughs = [laughs, laughs]
    assert len(list(inspect._named_arrays(laughs))) == 1
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InputError, match="more than 50 deep"):
        list(inspect._named_arrays(deep))


def test_a_limit_can_be_raised(tmp_path, capsys):
    path = tmp_path / "cifar10.npz"
    images = np.zeros((20, 800, 800, 3), np.uint8)
    np.savez_compressed(path, images=images, labels=LABELS)
    assert inspect.main([str(path)]) == 2
    assert "npz announces 38,400," in capsys.readouterr().err
    assert inspect.main([str(path), f"--max_bytes={2**26}"]) == 0
    assert "20 of 800x800 pixels" in capsys.readouterr().out


def test_names_in_files_tell_a_terminal_nothing(tmp_path, capsys):
    name = "\x1b[2J" + "x" * 10**4
    torch_files.save_torch(tmp_path / "x.pt", {name: np.zeros(3)})
    assert inspect.main([str(tmp_path / "x.pt")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) < 300


def test_soft_labels_of_others():
    found = facts(FIXTURES / "data_fkd_cutmix")
    assert found["format"] == "FKD soft labels"
    assert (found["epochs"], found["images"], found["mix"]) == ("2", "10", "cutmix")
    assert found["logits"].startswith("5 classes, [")


def test_a_work_directory(tmp_path, dataset):
    teacher, product = tmp_path / "teacher/conv3", tmp_path / "distilled/rded_ipc2"
    teacher.mkdir(parents=True)
    (teacher / "recipe.json").write_text('{"name": "conv3"}')
    (teacher / "done.json").write_text('{"top1": 82.62}')
    distilled.save_distilled(dataset, product)
    assert facts(teacher)["  top1"] == "82.62"
    assert facts(product)["dataset"] == "cifar10, 10 classes"
    assert inspect.inspect(tmp_path)[1:] == [
        ("distilled", "directory"),
        ("distilled/rded_ipc2", "not complete, it has no done.json"),
        ("teacher", "directory"),
        ("teacher/conv3", "complete"),
        ("  top1", "82.62"),
    ]


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 10**5])
def test_broken_records_are_named(tmp_path, content):
    for name in ("recipe.json", "teacher/conv3/done.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path} "):
            facts(tmp_path)
        path.unlink()


def write_datm(path):
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    images = whitening.apply(TRAIN_IMAGES[:20] / np.float32(255))
    content = {
        "dataset": "cifar10",
        "data": np.ascontiguousarray(np.moveaxis(images, -1, 1)),
        "label": np.eye(10, dtype=np.float32)[LABELS],
    }
    torch_files.save_torch(path, content)


def test_train_images_of_the_dataset_that_the_file_names(tmp_path, monkeypatch):
    def load_dataset(name):
        assert name == "cifar10"
        train = types.SimpleNamespace(all_images=lambda: TRAIN_IMAGES)
        return types.SimpleNamespace(train=train)

    monkeypatch.setattr(real, "load_dataset", load_dataset)
    write_datm(tmp_path / "data.pt")
    found = facts(tmp_path / "data.pt")
    assert found["dataset"] == "cifar10, 10 classes"
    assert found["ZCA"].startswith("whitened; as stored")


def test_train_images_that_cannot_be_loaded(tmp_path, monkeypatch):
    def load_dataset(name):
        raise ValueError("a damaged record")

    monkeypatch.setattr(real, "load_dataset", load_dataset)
    write_datm(tmp_path / "data.pt")
    found = facts(tmp_path / "data.pt")
    assert "a damaged record" in found["ZCA"]
    assert found["data"] == "float32 20x3x4x4"


def test_whitened_without_train_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    path = tmp_path / "cifar10.npz"
    np.savez(path, images=np.ones((20, 3, 4, 4)), labels=np.eye(10)[LABELS], jit=0.005)
    found = facts(path)
    assert found["format"] == "rfad"
    assert found["ZCA"].startswith("whitened, and not undone")
    assert found["images"] == "float64 20x3x4x4"
    with pytest.raises(ValueError, match="train images of cifar10"):
        facts(path, None, tmp_path / "grid.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.pt", b"PK\x03\x04 cut", "truncated"),
        ("best.npz", b"PK\x03\x04 cut", "truncated"),
        ("cifar10.npz", b"", "truncated"),
        ("x.bin", b"hello", "no distilled dataset of a known format"),
    ],
)
def test_one_message_and_exit_code_2(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert inspect.main([str(path), "--dataset", "cifar10"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert str(path) in output.err
    assert message in output.err


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        ("res_DSA_CIFAR10_ConvNet_1ipc.pt", "dsa", "10 of 4x4 pixels, 3 channels"),
        ("ddranking_dc_cifar10", "dc", "10 of 6x6 pixels, 3 channels"),
    ],
)
def test_what_others_published(tmp_path, name, method, said):
    path = FIXTURES / "published" / name
    found = facts(path, None, tmp_path / "grid.png")
    assert (found["format"], found["method"]) == ("torch", method)
    assert (found["images"], found["IPC"]) == (said, "1")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 10 * 32


def test_home_is_expanded(tmp_path, dataset, monkeypatch, capsys):
    distilled.write_distilled(dataset, tmp_path / "data.CKPT", "gift")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inspect.main(["~/data.CKPT"]) == 0
    assert "cifar10" in capsys.readouterr().out


def test_whitened_and_its_train_images_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    found = facts(FIXTURES / "published/ddranking_datm_cifar10")
    assert found["ZCA"].startswith("whitened, and not undone")
    assert found["images.pt"] == "float32 20x3x4x4"


def test_the_command():
    command = [sys.executable, "-m", "gift_jax.inspect"]
    done = subprocess.run(
        [*command, str(FIXTURES / "data_torch.pt")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "state_dict.1.running_var" in done.stdout
    gone = subprocess.run([*command, "nowhere"], capture_output=True, text=True)
    assert gone.returncode == 2
    assert gone.stderr == "error: nowhere does not exist\n"


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_published_files():
    found = facts(SHARED / "data/distilled/cifar10_conv3_rded_ipc10")
    assert (found["IPC"], found["method"]) == ("10", "rded")
    found = facts(SHARED / "data/teachers/resnet20-12fca82f.th")
    assert found["state_dict.module.linear.weight"] == "float32 10x64"
