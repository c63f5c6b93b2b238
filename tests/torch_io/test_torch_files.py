import json
import os
import pathlib
import pickle
import time
import zipfile

import hypothesis
import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared"

BASE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
# What fixtures/data_torch.py gave to torch.save.
CONTENT = {
    "transposed": BASE.transpose(2, 0, 1),
    "tail": BASE[1, 1:, ::2],
    "expanded": np.array([[1, 2]] * 3, np.float32),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "float16": np.array([0.5, -2], np.float16),
    "bfloat16": np.array([0.5, -2], ml_dtypes.bfloat16),
    "int64": np.array([1, -(2**40)]),
    "int32": np.array([1, -2], np.int32),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "parameter": np.arange(6, dtype=np.float32).reshape(2, 3),
}


@pytest.mark.parametrize("name", ["data_torch.pt", "data_torch_legacy.pt"])
def test_reads_what_torch_saved(name):
    content = torch_files.load_torch(FIXTURES / name)
    for key, expected in CONTENT.items():
        assert content[key].dtype == expected.dtype, key
        np.testing.assert_array_equal(content[key], expected, err_msg=key)
    state_dict = content["state_dict"]
    assert list(state_dict)[:2] == ["0.weight", "0.bias"]
    np.testing.assert_array_equal(state_dict["0.weight"], CONTENT["parameter"])
    assert content["plain"] == {
        "name": "cifar10",
        "none": None,
        "pair": (1, 2.5),
        3: True,
    }


def test_reads_numpy_scalars():
    content = torch_files.load_torch(FIXTURES / "data_torch.pt")
    assert content["numpy_scalars"] == [7, 0.25, True]


def write_zip(path, pickled, **records):
    """A file as torch.save writes it, around a pickle made by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in {"version": "3\n", **records}.items():
            archive.writestr(f"x/{name}", data)


def write_legacy(path, pickled, **storages):
    """The same before the zip format; a storage is its number of elements and bytes."""
    header = (torch_files._LEGACY_MAGIC, 1001, {"little_endian": True})
    parts = [pickle.dumps(part, protocol=2) for part in header]
    parts += [pickled, pickle.dumps(list(storages), protocol=2)]
    for numel, data in storages.values():
        parts += [numel.to_bytes(8, "little"), data]
    path.write_bytes(b"".join(parts))


both_formats = pytest.mark.parametrize("write", [write_zip, write_legacy])


class Code:
    """Unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@both_formats
def test_refuses_code_and_does_not_run_it(tmp_path, write):
    trace = tmp_path / "trace"
    malicious = pickle.dumps({"model": Code(os.mkdir, str(trace))}, protocol=2)
    path = tmp_path / "teacher.pth"
    write(path, malicious)
    with pytest.raises(torch_files.UnsafePickleError) as caught:
        torch_files.load_torch(path)
    message = str(caught.value)
    module = os.mkdir.__module__  # posix or nt
    assert message.startswith(f"{path} refers to the Python object {module}.mkdir.")
    assert "weights_only=False" not in message  # which would run it
    assert "torch.save(network.state_dict(), path)" in message
    assert not trace.exists()
    pickle.loads(malicious)
    assert trace.exists()


# Pickles of what is not data.
REFUSED = {
    **{
        f"{function.__module__}.{function.__qualname__}": pickle.dumps(
            Code(function, "1"), protocol=2
        )
        for function in (eval, exec, getattr, print, np.load, pathlib.Path)
    },
    # What torch.save(network, path) writes, without PyTorch's own classes.
    "a network": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.",
    "torch.hub.load": b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x00x\x85R.",
    "torch.load, by its place": b"\x80\x02ctorch\nserialization.load\n)R.",
    "os.system, of protocol 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x011\x85R.",
    "os.system, of protocol 0": b"cos\nsystem\n(S'1'\ntR.",
    "os.system, as an instance": b"(S'1'\nios\nsystem\n.",
}


@both_formats
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_refuses_everything_that_is_not_data(tmp_path, write, refused):
    write(tmp_path / "x.pt", refused)
    with pytest.raises(torch_files.UnsafePickleError, match="nothing of it was run"):
        torch_files.load_torch(tmp_path / "x.pt")


@both_formats
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_torch_refuses_the_same(tmp_path, write):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    write(path, pickle.dumps({"epoch": 3}, protocol=2))
    assert torch.load(path, weights_only=True) == {"epoch": 3}
    for refused in REFUSED.values():
        write(path, refused)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)


def test_refuses_networks_saved_whole(tmp_path):
    torch = pytest.importorskip("torch")
    for is_zip in (True, False):
        torch.save(
            {"net": torch.nn.Linear(2, 2)},
            tmp_path / "x.pt",
            _use_new_zipfile_serialization=is_zip,
        )
        with pytest.raises(torch_files.UnsafePickleError, match=r"linear\.Linear\. "):
            torch_files.load_torch(tmp_path / "x.pt")


def opcodes(value):
    """What builds a value in a pickle."""
    return torch_files._pickled(value, [])


def storage_opcodes(numel, *view, key="0", kind="FloatStorage"):
    start = b"(" + opcodes("storage") + f"ctorch\n{kind}\n".encode()
    return start + b"".join(map(opcodes, (key, "cpu", numel, *view))) + b"tQ"


def tensor_opcodes(storage, offset, shape, strides):
    """A tensor with a geometry of its own; bytes are opcodes already."""
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
    geometry = (offset, shape, strides, False)
    numbers = [n if isinstance(n, bytes) else opcodes(n) for n in geometry]
    return start + b"".join(numbers) + b"ccollections\nOrderedDict\n)RtR"


def pickle_of(built):
    return b"\x80\x02" + built + b"."


FLOATS = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,))],
)
def test_refuses_tensors_outside_their_storage(tmp_path, offset, shape, strides):
    path = tmp_path / "x.pt"
    tensor = tensor_opcodes(storage_opcodes(4), offset, shape, strides)
    write_zip(path, pickle_of(tensor), **{"data/0": FLOATS.tobytes()})
    with pytest.raises(ValueError, match="does not lie in its storage"):
        torch_files.load_torch(path)


def test_refuses_memory_beside_the_storage(tmp_path):
    """Which tensors taken for storages, and overflowing sizes, would let in."""
    path = tmp_path / "x.pt"
    storage = storage_opcodes(4)
    inside = tensor_opcodes(storage, 1, (3,), (1,))
    expanded = tensor_opcodes(storage, 0, (1000,), (0,))
    # 2**32 steps of 2**32, in integers of 64 bits: no step at all.
    integers = storage_opcodes(2, key="1", kind="LongStorage")
    size, step = (tensor_opcodes(integers, i, (), ()) + b"\x85" for i in (0, 1))
    cases = {
        "is not made from a storage": tensor_opcodes(expanded, 500, (2,), (1,)),
        "in its storage of 3 elements": tensor_opcodes(inside, 3, (1,), (1,)),
        "in its storage of 4 elements": tensor_opcodes(storage, 0, size, step),
    }
    stored = {
        "data/0": FLOATS.tobytes(),
        "data/1": np.array([2**32 + 1, 2**32]).tobytes(),
    }
    for message, tensor in cases.items():
        write_zip(path, pickle_of(tensor), **stored)
        with pytest.raises(ValueError, match=message):
            torch_files.load_torch(path)


def test_reads_big_endian_files(tmp_path):
    path = tmp_path / "x.pt"
    pickled = pickle_of(tensor_opcodes(storage_opcodes(4), 1, (3,), (1,)))
    big_endian = FLOATS.astype(">f4").tobytes()
    write_zip(path, pickled, **{"byteorder": "big", "data/0": big_endian})
    np.testing.assert_array_equal(torch_files.load_torch(path), [1, 2, 3])


@pytest.mark.parametrize("name", ["data_torch.pt", "data_torch_legacy.pt"])
def test_truncated_files_are_refused_at_any_length(tmp_path, name):
    whole = (FIXTURES / name).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pt.*download it again"):
            torch_files.load_torch(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n",
        b"hello",
        b"<html>Quota exceeded</html>",
        pickle.dumps({}, protocol=2),
        pickle.dumps({"epoch": 3}),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    message = (
        rf"x\.pt \({len(content)} bytes\) is not a readable PyTorch file.*error page"
    )
    with pytest.raises(ValueError, match=message):
        torch_files.load_torch(path)


def test_other_archives_and_missing_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"a zip archive with 0 data\.pkl"):
        torch_files.load_torch(tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        torch_files.load_torch(tmp_path / "nowhere.pt")


def test_views_of_storages_are_refused(tmp_path):
    """PyTorch before 0.4 wrote them; without their offset they would be wrong."""
    path = tmp_path / "x.pt"
    whole = storage_opcodes(4, None)
    stored = {"0": (4, FLOATS.tobytes())}
    write_legacy(path, pickle_of(tensor_opcodes(whole, 1, (2,), (1,))), **stored)
    np.testing.assert_array_equal(torch_files.load_torch(path), [1, 2])
    view = storage_opcodes(4, ("1", 2, 2))
    write_legacy(path, pickle_of(tensor_opcodes(view, 0, (2,), (1,))), **stored)
    with pytest.raises(ValueError, match="an unknown reference"):
        torch_files.load_torch(path)


@pytest.mark.parametrize(
    ("place", "value", "message"), [(8, 1, "encrypted"), (10, 99, "compression method")]
)
def test_damaged_archives_are_refused(tmp_path, place, value, message):
    """Flags and compression in the directory at the end, where zipfile is strict."""
    content = bytearray((FIXTURES / "data_torch.pt").read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="download it again") as caught:
        torch_files.load_torch(path)
    assert message in str(caught.value)


def test_sizes_beyond_all_integers_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    cases = {
        "announces 1180591620717411303424": (2**70, (4,)),
        "Overflow": (4, (0, 2**70)),
    }
    for message, (numel, shape) in cases.items():
        tensor = tensor_opcodes(storage_opcodes(numel), 0, shape, (1,) * len(shape))
        write_zip(path, pickle_of(tensor), **{"data/0": FLOATS.tobytes()})
        with pytest.raises(InputError, match=rf"x\.pt .*{message}"):
            torch_files.load_torch(path)


@pytest.mark.parametrize("numel", [3, 5, 2**40])
def test_storages_hold_what_they_announce(tmp_path, numel):
    path = tmp_path / "x.pt"
    tensor = pickle_of(tensor_opcodes(storage_opcodes(numel), 0, (2,), (1,)))
    write_zip(path, tensor, **{"data/0": FLOATS.tobytes()})
    with pytest.raises(InputError, match=f"announces {numel} elements"):
        torch_files.load_torch(path)
    write_legacy(path, tensor, **{"0": (4, FLOATS.tobytes())})
    with pytest.raises(InputError, match=r"is stored as 4|too short for a storage"):
        torch_files.load_torch(path)


def test_legacy_files_store_every_storage(tmp_path):
    path = tmp_path / "x.pt"
    tensor = pickle_of(tensor_opcodes(storage_opcodes(4), 0, (4,), (1,)))
    for stored in ({}, {"1": (4, FLOATS.tobytes())}, {"0": (4, FLOATS[:3].tobytes())}):
        write_legacy(path, tensor, **stored)
        with pytest.raises(InputError, match=r"x\.pt "):
            torch_files.load_torch(path)


def test_one_storage_has_one_type(tmp_path):
    path = tmp_path / "x.pt"
    kinds = (storage_opcodes(4), storage_opcodes(4, kind="IntStorage"))
    tensors = b"".join(tensor_opcodes(kind, 0, (4,), (1,)) for kind in kinds)
    write_zip(path, pickle_of(tensors + b"\x86"), **{"data/0": FLOATS.tobytes()})
    with pytest.raises(InputError, match="4 elements of int32 and holds 4 of float32"):
        torch_files.load_torch(path)


# What takes memory or time out of proportion, within the budget of tests/fuzz.
NESTED = b")" + b"".join(b"q%c0h%c\x86" % (i, i) for i in range(60))
BOMBS = {
    "text of 2**40": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    "a buffer of 2**40": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
    "a hash of 2**60 steps": b"\x80\x02}" + NESTED + b"Ns.",
    "a key that is text of 2**60 parts": b"(" + NESTED + b"tQ.",
    "one tuple again and again": b"(" + b"N" * 10**5 + b"tq\x00ctorch\nSize\nq\x01"
    + b"h\x01h\x00\x85R0" * 10**4 + b"N.",
    "ever new lists": b"(" + b"]" * (2**18 + 1) + b"l.",
    "a tensor of stride 0": pickle_of(
        tensor_opcodes(storage_opcodes(4), 0, (2**40,), (0,))
    ),
}  # fmt: skip


@both_formats
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_refuses_what_takes_memory_or_time(tmp_path, write, bomb):
    path = tmp_path / "x.pt"
    if write is write_zip:
        write(path, bomb, **{"data/0": FLOATS.tobytes()})
    else:
        write(path, bomb, **{"0": (4, FLOATS.tobytes())})

    def seconds():
        # Of this thread: others may have been left by other tests.
        started = time.thread_time()
        with pytest.raises(InputError, match=r"x\.pt "):
            torch_files.load_torch(path)
        return time.thread_time() - started

    # The longest takes half a second, and four times that where a machine is slow.
    assert any(seconds() < 2 for _ in range(3))


def test_a_place_in_the_memo_takes_no_memory(tmp_path):
    write_zip(tmp_path / "x.pt", b"\x80\x02K\x07r\x00\x00\x00\x40.")
    assert torch_files.load_torch(tmp_path / "x.pt") == 7


def test_a_limit_can_be_raised(tmp_path):
    path = tmp_path / "x.pt"
    zeros = np.zeros(2**24, np.float32)
    pickled = pickle_of(tensor_opcodes(storage_opcodes(zeros.size), 0, (5,), (1,)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/data/0", zeros.tobytes())
    with pytest.raises(unpacking.TooLargeError, match=r"x\.pt announces 67,"):
        torch_files.load_torch(path)
    read = torch_files.load_torch(path, max_bytes=2**27)
    np.testing.assert_array_equal(read, zeros[:5])


def test_pickles_change_nothing_of_the_reader(tmp_path):
    """By the state that they give to its functions and classes."""
    path = tmp_path / "x.pt"
    write_zip(path, b"\x80\x02cnumpy\ndtype\nN}X\x04\x00\x00\x00codeNs\x86b.")
    with pytest.raises(InputError, match="a state of what has none"):
        torch_files.load_torch(path)
    assert not hasattr(torch_files._NumpyDtype, "code")


arrays = st.sampled_from(
    [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_]
).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
    )
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def assert_same(found, expected):
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == expected
        assert type(found) is type(expected)


@hypothesis.settings(deadline=None)
@hypothesis.given(value=values)
def test_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("torch") / "x.pt"
    torch_files.save_torch(path, value)
    assert_same(torch_files.load_torch(path), value)


def test_equal_values_give_equal_bytes(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch_files.save_torch(tmp_path / name, CONTENT)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_save_replaces_once_complete(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(OSError, match="no space left"):
            torch_files.save_torch(path, CONTENT)
    assert path.read_bytes() == b"old"
    torch_files.save_torch(path, CONTENT)
    assert torch_files.load_torch(path).keys() == CONTENT.keys()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(
        FileNotFoundError, match=r"no directory .*absent to write x\.pt"
    ):
        torch_files.save_torch(tmp_path / "absent" / "x.pt", CONTENT)


@pytest.mark.parametrize("value", [object(), {"a": np.zeros(2, np.complex64)}, {1, 2}])
def test_save_refuses_what_torch_lacks(tmp_path, value):
    with pytest.raises(InputError, match="PyTorch"):
        torch_files.save_torch(tmp_path / "x.pt", value)
    assert not (tmp_path / "x.pt").exists()


def as_torch(torch, value):
    """The same with tensors in place of arrays."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, list | tuple):
        return type(value)(as_torch(torch, item) for item in value)
    if isinstance(value, dict):
        return {key: as_torch(torch, item) for key, item in value.items()}
    return value


def as_numpy(torch, value):
    """The same with arrays in place of tensors."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, list | tuple):
        return type(value)(as_numpy(torch, item) for item in value)
    if isinstance(value, dict):
        return {key: as_numpy(torch, item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("is_zip", [True, False])
def test_reads_what_torch_reads(tmp_path_factory, is_zip):
    torch = pytest.importorskip("torch")

    @hypothesis.settings(deadline=None)
    @hypothesis.given(value=values)
    def check(value):
        path = tmp_path_factory.mktemp("torch") / "x.pt"
        tensors = as_torch(torch, value)
        torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
        read_by_torch = torch.load(path, weights_only=True)
        assert_same(torch_files.load_torch(path), as_numpy(torch, read_by_torch))

    check()


def test_torch_reads_what_is_saved(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    content = {**CONTENT, "plain": {"name": "cifar10", "pair": (1, None), 3: [2.5]}}
    torch_files.save_torch(path, content)
    for options in ({}, {"mmap": True}):
        read = torch.load(path, weights_only=True, **options)
        assert read["plain"] == content["plain"]
        for key, expected in CONTENT.items():
            assert tuple(read[key].shape) == expected.shape
            np.testing.assert_array_equal(
                read[key].double().numpy(), expected.astype(np.float64)
            )


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_reads_published_checkpoints():
    resnet = torch_files.load_torch(SHARED / "data/teachers/resnet20-12fca82f.th")
    assert resnet["best_prec1"] == pytest.approx(91.78)
    assert resnet["state_dict"]["module.linear.weight"].shape == (10, 64)
    conv = torch_files.load_torch(SHARED / "data/teachers/cifar10_conv3.pth")
    assert conv["model"]["classifier.weight"].shape == (10, 2048)


# safetensors: a header of JSON behind its length, then the arrays.


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_reads_safetensors(tmp_path):
    path = tmp_path / "weights.bin"  # by their content
    values = np.array([1.5, -2.0], np.float32)
    header = {"__metadata__": {"format": "pt"}, "b": entry(2, 10)}
    header["a"] = entry(0, 2, (1, 2), "U8")
    path.write_bytes(safetensors(header, b"\x01\x02" + values.tobytes()))
    found = torch_files.load_torch(path)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], values)
    np.testing.assert_array_equal(found["a"], np.array([[1, 2]], np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": entry(0, 8)}, bytes(7)),
        safetensors({"a": entry(4, 12)}, bytes(12)),
        safetensors({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)),
        safetensors({"a": entry(0, 8, (3,))}, bytes(8)),
        safetensors({"a": entry(0, 8, (2,), "F4")}, bytes(8)),
        safetensors({"a": 3}),
        safetensors({"a": entry(0, 8)}, bytes(8))[:40],
        b"\xff" * 8 + b"{",
    ],
)
def test_refuses_damaged_safetensors(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors .*not a readable"):
        torch_files.load_torch(path)


def test_reads_the_file_of_the_safetensors_library():
    found = torch_files.load_torch(FIXTURES / "torch_checkpoint.safetensors")
    assert {array.dtype.name for array in found.values()} == {"bfloat16"}
    assert found["0.weight"].shape == (2, 3)
