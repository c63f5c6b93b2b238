"""Places to store at, and what is said of bad ones."""

import os
import subprocess
import sys
import time

import pytest

from gift_jax.soft_labels import storage


@pytest.mark.parametrize(
    ("location", "spec"),
    [
        ("gs://bucket/a/b", {"driver": "gcs", "bucket": "bucket", "path": "a/b/"}),
        ("s3://bucket/a/", {"driver": "s3", "bucket": "bucket", "path": "a/"}),
        ("s3://bucket", {"driver": "s3", "bucket": "bucket"}),
    ],
)
def test_urls_name_clouds(location, spec, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert {k: v for k, v in storage.kvstore_spec(location).items() if v} == spec


def test_paths_are_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = {"driver": "file", "path": f"{tmp_path}/a b/"}
    assert storage.kvstore_spec(tmp_path / "a b") == spec
    assert storage.kvstore_spec("a b") == spec


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_other_s3_services_are_found_as_by_amazons_tools(variable, monkeypatch):
    monkeypatch.setenv(variable, "http://localhost:9000")
    assert storage.kvstore_spec("s3://bucket/x")["endpoint"] == "http://localhost:9000"
    assert "endpoint" not in storage.kvstore_spec("gs://bucket/x")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://host/x", "cannot be written to: expected a local path, gs://"),
        ("az://bucket/x", "cannot be written to: expected a local path, gs://"),
        ("gs://b/x", "no place to store at: .*Invalid GCS bucket name"),
    ],
)
def test_other_urls_are_refused(location, message):
    with pytest.raises(ValueError, match=message):
        storage.kvstore_spec(location)


def test_places_below_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.join("gs://bucket/a/", "b", "c") == "gs://bucket/a/b/c"
    assert storage.join("x", "b", "c") == f"{tmp_path}/x/b/c"


def test_a_cloud_that_does_not_answer_is_said_soon(monkeypatch):
    monkeypatch.setattr(storage, "_FIRST_ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    # Nobody listens at port 9.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(storage.StorageError, match=r"answer .* credentials \(S3: AWS_"):
        storage.check_reachable("s3://bucket/labels")
    assert time.monotonic() - began < 10


def test_free_bytes(tmp_path):
    here = storage.free_bytes(tmp_path)
    stat = os.statvfs(tmp_path)
    assert here == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.2)
    # What does not exist yet will lie where its nearest parent does.
    assert storage.free_bytes(tmp_path / "a" / "b") == pytest.approx(here, rel=0.2)
    assert storage.free_bytes("gs://bucket/x") is None


# Fake clouds: pip install "moto[s3]" flask flask-cors gcp-storage-emulator
_FAKE_S3 = """
import os, urllib.request
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0)
server.start()
url = "http://127.0.0.1:%d" % server.get_host_and_port()[1]
os.environ["AWS_ENDPOINT_URL"] = url
urllib.request.urlopen(urllib.request.Request(url + "/bucket", method="PUT"))
"""
_FAKE_GCS = """
import os, socket
from gcp_storage_emulator.server import create_server
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
server.start()
os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://localhost:{port}"
"""
_STORE_AND_FIND_AGAIN = """
import sys
import numpy as np
from gift_jax.soft_labels import codecs, storage, store as store_lib

cloud = sys.argv[1]
store_lib._CHUNK_BYTES = 4 * 6 * 2
logits = np.random.default_rng(0).normal(0, 5, (3, 10, 6))


def open_store(codec):
    return store_lib.open_store(
        f"{cloud}bucket/labels/{codec.name}",
        views=3,
        num_images=10,
        num_classes=6,
        codec=codec,
    )


for codec in (codecs.FLOAT16, codecs.get_codec("top3")):
    store = open_store(codec)
    chunks = store.missing_chunks()
    assert len(chunks) == 9
    for view, start, stop in chunks[:4]:
        store.write(view, start, logits[view, start:stop])
    store = open_store(codec)
    assert store.missing_chunks() == chunks[4:]
    for view, start, stop in chunks[4:]:
        store.write(view, start, logits[view, start:stop])
    assert open_store(codec).missing_chunks() == []
    for view in range(3):
        expected = codec.decode(codec.encode(logits[view]), 6)
        np.testing.assert_array_equal(store.read(view), expected)
try:
    storage.check_reachable(f"{cloud}another/x")
except storage.StorageError as error:
    assert "another/x cannot be used" in str(error), error
else:
    raise AssertionError("a bucket that does not exist")
server.stop()
"""


@pytest.mark.parametrize(
    ("cloud", "module", "server"),
    [
        ("s3://", "moto.server", _FAKE_S3),
        ("gs://", "gcp_storage_emulator.server", _FAKE_GCS),
    ],
)
def test_labels_are_stored_in_clouds_and_found_again(cloud, module, server):
    pytest.importorskip(module, reason="fake clouds are not installed")
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
    }
    # In a process of its own, as TensorStore reads credentials once.
    done = subprocess.run(
        [sys.executable, "-c", server + _STORE_AND_FIND_AGAIN, cloud],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
