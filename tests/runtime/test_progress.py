"""Tests of `gift_jax.progress`: what is shown, and what outlives an interruption."""

import json
import math
import socket
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from gift_jax.runtime import progress
from gift_jax.runtime.progress import MetricsWriter, ProgressBar


def lines(directory):
    return (directory / progress.METRICS_FILE).read_text().splitlines()


def rows(directory):
    return [json.loads(line) for line in lines(directory)]


def events(directory):
    """The TensorBoard events of a directory, their checksums verified."""
    for path in sorted(directory.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length, checksum = struct.unpack("<QI", content[:12])
            assert checksum == masked_crc32c(content[:8])
            record, content = content[12 : 12 + length], content[12 + length :]
            assert struct.unpack("<I", content[:4]) == (masked_crc32c(record),)
            content = content[4:]
            yield Event.FromString(record)


def scalars(directory):
    """{(name, step): value} as TensorBoard shows them, which purges on a restart."""
    shown = {}
    for event in events(directory):
        if event.session_log.status == SessionLog.START:
            shown = {key: value for key, value in shown.items() if key[1] < event.step}
        for value in event.summary.value:
            shown[value.tag, event.step] = value.simple_value
    return shown


def train(directory, epochs, *, finished=0, offset=0.0):
    with MetricsWriter(directory, finished_epochs=finished) as writer:
        for epoch in range(finished, epochs):
            writer.write(epoch, loss=epoch + offset, top1=0.5)


# --- Metrics ------------------------------------------------------------------------


def test_metrics_are_written_as_lines_and_as_events(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, loss=0.75, top1=0.25)
        writer.write(1, loss=0.5, top1=0.5, test_top1=61.125)
    assert rows(tmp_path) == [
        {"epoch": 0, "loss": 0.75, "top1": 0.25},
        {"epoch": 1, "loss": 0.5, "top1": 0.5, "test_top1": 61.125},
    ]
    assert scalars(tmp_path) == {
        ("loss", 0): 0.75,
        ("top1", 0): 0.25,
        ("loss", 1): 0.5,
        ("top1", 1): 0.5,
        ("test_top1", 1): 61.125,
    }


def test_the_events_begin_with_the_version_that_tensorboard_reads(tmp_path):
    train(tmp_path, 1)
    assert next(events(tmp_path)).file_version == "brain.Event:2"


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for epoch in range(3):
            writer.write(epoch, loss=1.0)
            assert len(rows(tmp_path)) == epoch + 1


def test_lines_after_the_checkpoint_are_dropped_on_resumption(tmp_path, monkeypatch):
    train(tmp_path, 5)
    # Event files are told apart by the second and the host.
    monkeypatch.setattr(socket, "gethostname", lambda: "zz-another-host")
    train(tmp_path, 4, finished=3, offset=0.5)
    expected = [0.0, 1.0, 2.0, 3.5]
    assert [row["epoch"] for row in rows(tmp_path)] == list(range(4))
    assert [row["loss"] for row in rows(tmp_path)] == expected
    losses = {
        epoch: v for (name, epoch), v in scalars(tmp_path).items() if name == "loss"
    }
    assert losses == dict(enumerate(expected))


def test_a_run_that_starts_again_forgets_everything(tmp_path):
    train(tmp_path, 5)
    train(tmp_path, 2, offset=0.25)
    assert [row["loss"] for row in rows(tmp_path)] == [0.25, 1.25]


@pytest.mark.parametrize("half", ['{"epoch": 3, "lo', "{", '{"loss": 1.0}', ""])
def test_the_half_line_of_a_killed_run_is_dropped(tmp_path, half):
    train(tmp_path, 3)
    with (tmp_path / progress.METRICS_FILE).open("a") as stream:
        stream.write(half)
    train(tmp_path, 4, finished=3)
    assert [row["epoch"] for row in rows(tmp_path)] == [0, 1, 2, 3]


def test_a_resumption_that_fails_keeps_the_old_lines(tmp_path, monkeypatch):
    train(tmp_path, 3)
    before = lines(tmp_path)

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        MetricsWriter(tmp_path, finished_epochs=2)
    assert lines(tmp_path) == before


def test_the_files_are_closed_when_the_training_fails(tmp_path):
    with pytest.raises(RuntimeError), MetricsWriter(tmp_path) as writer:
        writer.write(0, loss=1.0)
        raise RuntimeError
    assert rows(tmp_path) == [{"epoch": 0, "loss": 1.0}]
    assert scalars(tmp_path) == {("loss", 0): 1.0}
    with pytest.raises(ValueError, match="closed file"):
        writer.write(1, loss=1.0)


def test_metrics_that_are_not_finite_can_be_read_again(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, loss=float("nan"))
    assert math.isnan(rows(tmp_path)[0]["loss"])
    train(tmp_path, 2, finished=1)
    assert len(rows(tmp_path)) == 2


# --- The bar ------------------------------------------------------------------------


def test_the_bar_shows_where_it_is_and_the_latest_metrics(capsys):
    with ProgressBar("rded_gift_s0", total=10, unit="epoch") as bar:
        bar.update(2, loss=0.5, top1=0.25)
        bar.update(3, loss=0.123456, test_top1=61.98765)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert last.startswith("rded_gift_s0:  50%")
    assert "5/10" in last
    assert "epoch/s" in last or "s/epoch" in last
    assert "loss=0.1235, test_top1=61.99" in last


def test_the_bar_shows_counts_as_they_are(capsys):
    with ProgressBar("sre2l", total=10, unit="it") as bar:
        bar.update(10, images=50_000, ce=50_000.0)
    assert "images=50000, ce=5e+04" in capsys.readouterr().err


def test_a_resumed_bar_starts_where_it_was(capsys):
    with ProgressBar("relabel", total=8, unit="view", done=6) as bar:
        bar.update(1)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "88%" in last
    assert "7/8" in last


def test_a_bar_may_be_told_later_where_it_starts(capsys):
    with ProgressBar("teacher", total=100, unit="img") as bar:
        bar.start(60)
        bar.update(0, loss=0.5)
        bar.update(10)
        bar.update(10)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "80%" in last and "80/100" in last
    # Metrics stay until there are others.
    assert "img/s, loss=0.5]" in last


def test_the_bar_is_closed_when_the_work_fails(capsys):
    with (
        pytest.raises(RuntimeError),
        ProgressBar("relabel", total=8, unit="view") as bar,
    ):
        bar.update(4)
        raise RuntimeError
    assert capsys.readouterr().err.endswith("\n")
