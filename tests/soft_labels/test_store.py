"""Tests of the store: what is stored comes back, or is an error."""

import resource
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.soft_labels import storage
from gift_jax.soft_labels import store as store_lib
from gift_jax.soft_labels.base import prefetched
from gift_jax.soft_labels.codecs import get_codec
from gift_jax.soft_labels.store import DamagedStoreError

VIEWS, IMAGES, CLASSES, CHUNK_ROWS = 3, 10, 6, 4
CHUNKS = [(v, *rows) for v in range(VIEWS) for rows in ((0, 4), (4, 8), (8, 10))]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    # float16 has 2 bytes.
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", CHUNK_ROWS * CLASSES * 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "soft_labels" / "logits"


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 8, (VIEWS, IMAGES, CLASSES)).astype("f4")


def open_store(path, views=VIEWS, num_images=IMAGES, num_classes=CLASSES, **options):
    return store_lib.open_store(
        path,
        views=views,
        num_images=num_images,
        num_classes=num_classes,
        **options,
    )


def write(store, logits, chunks=CHUNKS):
    for view, start, stop in chunks:
        store.write(view, start, logits[view, start:stop])


def chunk_file(path, view, chunk):
    return path / "c" / str(view) / str(chunk) / "0"


# --- Writing and reading ------------------------------------------------------------


def test_logits_come_back_rounded_to_float16(path, logits):
    write(open_store(path), logits)
    store = open_store(path)
    assert store.views == VIEWS
    for view in (2, 0, 1):
        read = store.read(view)
        assert read.dtype == np.float16
        np.testing.assert_array_equal(read, logits[view].astype(np.float16))


def test_jax_arrays_may_be_written(path, logits):
    store = open_store(path, views=1)
    for _, start, stop in CHUNKS[:3]:
        store.write(0, start, jnp.asarray(logits[0, start:stop]))
    np.testing.assert_array_equal(store.read(0), logits[0].astype(np.float16))


def test_a_view_is_stored_in_chunks_of_its_own(path, logits):
    store = open_store(path)
    assert store.chunk_rows == CHUNK_ROWS
    write(store, logits)
    files = {str(f.relative_to(path)) for f in path.rglob("*") if f.is_file()}
    chunks = {f"c/{view}/{chunk}/0" for view in range(VIEWS) for chunk in range(3)}
    assert files == chunks | {"zarr.json"}


def test_a_small_view_is_one_chunk(path, monkeypatch):
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", 2**20)
    store = open_store(path)
    assert store.chunk_rows == IMAGES
    assert store.missing_chunks() == [(view, 0, IMAGES) for view in range(VIEWS)]


def test_a_row_larger_than_a_chunk_is_stored(path, monkeypatch, logits):
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", 1)
    store = open_store(path)
    chunks = [(v, row, row + 1) for v in range(VIEWS) for row in range(IMAGES)]
    assert store.missing_chunks() == chunks
    write(store, logits, chunks)
    np.testing.assert_array_equal(store.read(1), logits[1].astype(np.float16))


def test_a_relative_path_is_where_it_was_opened(tmp_path, monkeypatch, logits):
    monkeypatch.chdir(tmp_path)
    store = open_store(tmp_path.relative_to(tmp_path) / "logits")
    monkeypatch.chdir("/")
    write(store, logits)
    assert open_store(tmp_path / "logits").missing_chunks() == []


def test_logits_of_zero_count_as_written(path):
    store = open_store(path)
    write(store, np.zeros((VIEWS, IMAGES, CLASSES), np.float32))
    assert open_store(path).missing_chunks() == []
    np.testing.assert_array_equal(store.read(0), np.zeros((IMAGES, CLASSES)))


# --- Resumption ---------------------------------------------------------------------


def test_what_is_missing_is_what_was_not_written(path, logits):
    store = open_store(path)
    assert store.missing_chunks() == CHUNKS
    written = [CHUNKS[0], CHUNKS[5], CHUNKS[7]]
    write(store, logits, written)
    rest = [chunk for chunk in CHUNKS if chunk not in written]
    reopened = open_store(path)
    assert reopened.missing_chunks() == rest
    write(reopened, logits, rest)
    assert reopened.missing_chunks() == store.missing_chunks() == []
    np.testing.assert_array_equal(reopened.read(2), logits[2].astype(np.float16))


def test_a_view_that_is_incomplete_is_not_read(path, logits):
    store = open_store(path)
    write(store, logits, CHUNKS[:4])
    np.testing.assert_array_equal(store.read(0), logits[0].astype(np.float16))
    for view in (1, 2):
        with pytest.raises(DamagedStoreError, match=f"view {view} .* are incomplete"):
            store.read(view)


def test_a_deleted_chunk_is_missed_and_made_again(path, logits):
    store = open_store(path)
    write(store, logits)
    chunk_file(path, 1, 2).unlink()
    assert store.missing_chunks() == [(1, 8, 10)]
    with pytest.raises(DamagedStoreError, match=r"view 1 .* are incomplete; run the"):
        store.read(1)
    write(store, logits, [(1, 8, 10)])
    np.testing.assert_array_equal(store.read(1), logits[1].astype(np.float16))


# --- Damage -------------------------------------------------------------------------


def flip_a_byte(content):
    return content[:7] + bytes([content[7] ^ 1]) + content[8:]


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, lambda content: content[:-1], lambda content: b""],
    ids=["flipped byte", "cut short", "empty"],
)
def test_a_damaged_chunk_is_an_error_that_names_it(path, logits, damage):
    store = open_store(path)
    write(store, logits)
    file = chunk_file(path, 1, 2)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedStoreError) as caught:
        open_store(path).read(1)
    assert f"soft labels of view 1 in {path}" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "delete the chunk" in str(caught.value)
    np.testing.assert_array_equal(store.read(0), logits[0].astype(np.float16))


@pytest.mark.parametrize(
    "shape",
    [
        {"views": VIEWS + 1},
        {"num_images": IMAGES - 1},
        {"num_classes": CLASSES + 1},
    ],
    ids=str,
)
def test_a_store_of_another_shape_is_refused(path, logits, shape):
    write(open_store(path), logits)
    with pytest.raises(ValueError, match=r"logits holds no soft labels of shape") as e:
        open_store(path, **shape)
    assert "[3,10,6]" in str(e.value)
    assert len(str(e.value)) < 400
    np.testing.assert_array_equal(open_store(path).read(0), logits[0].astype("f2"))


def test_a_store_that_is_none_is_refused(path):
    path.mkdir(parents=True)
    (path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"holds no soft labels .* Invalid JSON"):
        open_store(path)


def test_what_is_only_opened_is_not_made(path, logits):
    with pytest.raises(storage.StorageError, match="cannot be used"):
        open_store(path, create=False)
    assert not path.exists()
    write(open_store(path), logits)
    assert open_store(path, create=False).missing_chunks() == []


# --- What is not written ------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65520.0, -1e9])
def test_what_float16_cannot_store_is_refused_before_writing(path, logits, value):
    store = open_store(path)
    logits[1, 5, 2] = value
    with pytest.raises(ValueError, match=r"view 1 hold .* \(image 5, class 2\), which"):
        write(store, logits)
    assert store.missing_chunks() == CHUNKS[4:]


def test_a_refused_chunk_leaves_the_old_one(path, logits):
    store = open_store(path)
    write(store, logits)
    with pytest.raises(ValueError, match="the teacher is broken or diverged"):
        store.write(0, 4, np.full((4, CLASSES), np.nan))
    np.testing.assert_array_equal(store.read(0), logits[0].astype(np.float16))


def test_the_largest_float16_is_stored(path, logits):
    store = open_store(path)
    logits[0, 0, :2] = 65504, -65519
    write(store, logits)
    np.testing.assert_array_equal(store.read(0)[0, :2], [65504, -65504])


@pytest.mark.parametrize(
    ("start", "shape"),
    [(0, (3, CLASSES)), (0, (4, 1)), (0, (4,)), (8, (4, CLASSES)), (2, (4, CLASSES))],
)
def test_what_is_no_whole_chunk_is_refused(path, start, shape):
    # A part of a chunk would count as written; a column would be repeated.
    store = open_store(path)
    with pytest.raises(ValueError, match=f"at row {start} are no whole chunk of"):
        store.write(0, start, np.ones(shape, np.float32))
    assert store.missing_chunks() == CHUNKS


# --- Reading ahead -----------------------------------------------------------------


def test_prefetched_yields_the_views_in_the_order_asked_for(path, logits):
    store = open_store(path)
    write(store, logits)
    numbers = [2, 0, 0, 1, 2]
    for order in (numbers, iter(numbers)):
        views = list(prefetched(store.start_reading, order))
        assert [int(view.number) for view in views] == numbers
        np.testing.assert_array_equal(
            [view.logits for view in views], logits[numbers].astype(np.float16)
        )
    assert list(prefetched(store.start_reading, [])) == []


def test_prefetched_reports_damage_when_its_turn_comes(path, logits):
    store = open_store(path)
    write(store, logits, CHUNKS[:3] + CHUNKS[6:])
    reader = prefetched(store.start_reading, [0, 1, 2])
    np.testing.assert_array_equal(next(reader).logits, logits[0].astype(np.float16))
    with pytest.raises(DamagedStoreError, match=f"view 1 in {path} are incomplete"):
        next(reader)


def test_chunks_of_a_view_are_equal_so_that_little_is_padded(path):
    # Four rows fit into a chunk: nine images are three chunks of three.
    assert open_store(path, num_images=9).chunk_rows == 3


# --- Formats ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "int8", "top2", "top6"])
def test_formats_come_back_as_their_codec_says(path, logits, name):
    codec = get_codec(name)
    store = open_store(path, codec=codec)
    assert store.missing_chunks() == CHUNKS
    write(store, logits)
    store = open_store(path, codec=codec)
    for view in range(VIEWS):
        read = store.read(view)
        assert read.dtype == np.float16
        expected = codec.decode(codec.encode(logits[view]), CLASSES)
        np.testing.assert_array_equal(read, expected)
    chunks = [f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json"]
    # Whole chunks of four rows, each with a checksum of four bytes.
    size = CHUNK_ROWS * codec.row_bytes(CLASSES)
    assert store.chunk_bytes == size
    assert {f.stat().st_size for f in chunks} == {size + 4}
    assert store.total_bytes == VIEWS * IMAGES * codec.row_bytes(CLASSES)


@pytest.mark.parametrize("name", ["int8", "top2"])
def test_a_view_of_another_format_that_is_incomplete_is_not_read(path, logits, name):
    store = open_store(path, codec=get_codec(name))
    write(store, logits, CHUNKS[:4])
    with pytest.raises(DamagedStoreError, match=r"view 1 .* are incomplete"):
        store.read(1)


@pytest.mark.parametrize("damage", [flip_a_byte, lambda content: content[:-1]])
def test_a_damaged_chunk_of_codes_is_an_error(path, logits, damage):
    store = open_store(path, codec=get_codec("int8"))
    write(store, logits)
    file = chunk_file(path, 1, 2)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedStoreError, match=r"view 1 .* delete the chunk"):
        store.read(1)


@pytest.mark.parametrize("name", ["int8", "top2"])
def test_a_store_of_another_format_is_refused(path, logits, name):
    write(open_store(path), logits)
    with pytest.raises(ValueError, match=f"holds no soft labels .* in {name}"):
        open_store(path, codec=get_codec(name))
    np.testing.assert_array_equal(open_store(path).read(0), logits[0].astype("f2"))


def test_topk_of_more_than_there_are_classes_is_refused(path):
    with pytest.raises(ValueError, match="'top7' is for 7 to 65536 classes"):
        open_store(path, codec=get_codec("top7"))
    assert not path.exists()


def test_the_default_format_is_what_it_has_always_been(path, logits):
    write(open_store(path), logits)
    # The rows that a chunk has more than the array are the fill value.
    rows = np.full((CHUNK_ROWS, CLASSES), np.nan, "<f2")
    rows[:2] = logits[2, 8:10]
    assert chunk_file(path, 2, 2).read_bytes()[:-4] == rows.tobytes()


# --- Storage that fails -------------------------------------------------------------


@pytest.fixture
def full_disk():
    """Files of 30 bytes at most, as on a disk that is full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_chunk_that_cannot_be_written_is_one_error_and_leaves_no_part(
    path, logits, full_disk
):
    store = open_store(path)
    write(store, logits, CHUNKS[:4])
    full_disk()
    with pytest.raises(storage.StorageError, match="cannot be written to") as caught:
        write(store, logits, CHUNKS[4:])
    message = str(caught.value)
    assert "File too large" in message and "What is written stays good" in message
    assert len(message) < 600
    assert open_store(path).missing_chunks() == CHUNKS[4:]
    np.testing.assert_array_equal(store.read(0), logits[0].astype(np.float16))


def test_a_chunk_that_cannot_be_read_is_not_called_damaged(path, logits):
    store = open_store(path)
    write(store, logits)

    class Fails:
        def result(self):
            raise ValueError("ABORTED: All 32 retry attempts failed [a='b']")

    with pytest.raises(storage.StorageError, match=r"view 1 .* All 32 retry attempts"):
        store._decoded(1, Fails())
