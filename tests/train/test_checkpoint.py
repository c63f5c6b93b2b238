"""Checkpoints: exact round trips, what is kept, and what is refused."""

import functools
import multiprocessing
import resource
import shutil
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models, optimizers
from gift_jax.train import checkpoint
from gift_jax.train.step import TrainState, create_train_state

SIDE = 8


# Equal arguments give the same object, so that states share compiled functions.
create_model = functools.lru_cache(models.create_model)


def make_state(optimizer="adamw", width=8, seed=0) -> TrainState:
    model = create_model("conv1", num_classes=3, image_size=SIDE, width=width)
    return create_train_state(
        model,
        optimizers.OptimizerSpec(optimizer, 1e-3),
        (SIDE, SIDE, 1),
        epochs=4,
        steps_per_epoch=2,
        init_key=jax.random.key(seed),
        dropout_key=jax.random.key(seed),
    )


@jax.jit
def stepped(state: TrainState) -> TrainState:
    """After one step, so that the optimizer's state is not all zeros."""
    gradients = jax.tree.map(lambda p: jnp.cos(p * 7), state.params)
    return state.apply_gradients(gradients, state.batch_stats)


def open_checkpoints(path, identity=None, keep=1):
    return checkpoint.Checkpoints(path, keep=keep, identity=identity or {"a": "adamw"})


def assert_trees_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_an_orbax_that_seals_nothing_is_found_before_much_is_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint.Checkpoints, "_seal", lambda self: None)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {})
        with pytest.raises(checkpoint.CheckpointError, match=r"1 .*has no checksums"):
            checkpoints.wait()
        with pytest.raises(checkpoint.CheckpointError, match=r"1 .*has no checksums"):
            checkpoints.save(2, make_state(), {})


@pytest.mark.parametrize("optimizer", sorted(optimizers.OPTIMIZERS))
def test_round_trip_is_exact(tmp_path, optimizer):
    state = stepped(make_state(optimizer))
    with open_checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, state, {"top1_last": None, "seconds": 2.5})
    with open_checkpoints(tmp_path / "c") as checkpoints:
        restored = checkpoints.restore_latest(make_state(optimizer, seed=1))
    assert restored is not None
    assert restored[1] == {"top1_last": None, "seconds": 2.5}
    assert restored[0].step == 1
    assert_trees_equal(restored[0].variables, state.variables)
    assert_trees_equal(restored[0].opt_state, state.opt_state)
    # And it trains on exactly as the state that was saved.
    assert_trees_equal(stepped(restored[0]).params, stepped(state).params)


def test_nothing_to_restore(tmp_path):
    with open_checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_latest(make_state()) is None


def test_the_latest_and_the_best_are_kept(tmp_path):
    state = make_state()
    with open_checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for epoch, top1 in enumerate([10.0, 50.0, 30.0, 20.0, None], start=1):
            checkpoints.save(epoch, state, {}, top1=top1)
    kept = {int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit()}
    assert kept == {2, 4, 5}


def test_relative_directories_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import pathlib

    with open_checkpoints(pathlib.Path("c")) as checkpoints:
        checkpoints.save(1, make_state(), {})
    assert (tmp_path / "c" / "1").is_dir()


def test_saving_twice_is_an_error(tmp_path):
    state = make_state()
    with open_checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(2, state, {})
        with pytest.raises((RuntimeError, ValueError)):
            checkpoints.save(1, state, {})


def test_another_optimizers_state_is_never_restored_by_accident(tmp_path):
    with open_checkpoints(tmp_path / "c", {"optimizer": "adamw"}) as checkpoints:
        checkpoints.save(1, make_state("adamw"), {})
    with (
        open_checkpoints(tmp_path / "c", {"optimizer": "sgd"}) as checkpoints,
        pytest.raises(
            checkpoint.CheckpointMismatchError, match=r"adamw.*sgd.*init_from"
        ),
    ):
        checkpoints.restore_latest(make_state("sgd"))


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory):
    """A run's directory and its last state, of two optimizers."""
    runs = {}
    for name in ("adamw", "schedule_free_adamw"):
        directory = tmp_path_factory.mktemp(name)
        state = stepped(stepped(stepped(make_state(name))))
        with open_checkpoints(directory / "checkpoints") as checkpoints:
            checkpoints.save(1, state, {})
        runs[name] = directory, state
    return runs


# All evaluate the weights that they train, but for the last.
@pytest.mark.parametrize("first", ["adamw", "schedule_free_adamw"])
@pytest.mark.parametrize(
    "second", ["adamw", "sgd", "muon", "prodigy", "schedule_free_adamw"]
)
def test_weights_go_over_to_another_optimizer_with_a_fresh_state(
    trained_runs, first, second
):
    directory, trained = trained_runs[first]
    fresh = make_state(second, seed=1)
    state = checkpoint.restore_weights(directory, fresh)
    assert_trees_equal(state.variables, trained.evaluation_variables)
    # As a run does that starts from these weights.
    started = optimizers.with_learning_rate(
        state.tx.init(state.params), optimizers.peak_learning_rate(fresh.opt_state)
    )
    assert_trees_equal(state.opt_state, started)
    assert state.step == 0
    stepped(state)


def test_the_average_is_handed_over_and_training_goes_on_from_the_iterate(trained_runs):
    directory, trained = trained_runs["schedule_free_adamw"]
    average = trained.evaluation_variables["params"]["classifier"]["kernel"]
    iterate = trained.params["classifier"]["kernel"]
    assert np.abs(average - iterate).max() > 1e-5
    handed_over = checkpoint.restore_weights(directory, make_state("sgd", seed=1))
    np.testing.assert_array_equal(handed_over.params["classifier"]["kernel"], average)
    with open_checkpoints(directory / "checkpoints") as checkpoints:
        resumed = checkpoints.restore_latest(make_state("schedule_free_adamw", seed=1))
    np.testing.assert_array_equal(resumed[0].params["classifier"]["kernel"], iterate)


def test_weights_of_another_model_are_refused(tmp_path):
    with open_checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(1, make_state(width=8), {})
    with pytest.raises(checkpoint.CheckpointMismatchError, match="do not fit"):
        checkpoint.restore_weights(tmp_path / "run", make_state(width=16))


def test_a_run_without_checkpoints_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint.latest_weights(tmp_path)


def test_an_interrupted_save_is_passed_over(tmp_path):
    state = stepped(make_state())
    with open_checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, state, {})
    # What Orbax leaves of a save that was killed.
    (tmp_path / "c" / "2.orbax-checkpoint-tmp" / "variables").mkdir(parents=True)
    with open_checkpoints(tmp_path / "c") as checkpoints:
        restored = checkpoints.restore_latest(make_state())
    assert restored is not None and restored[0].step == 1


# --- Damage, full disks, restarts ---------------------------------------------------


def progress_of(path, epochs=(), keep=2):
    """What the latest checkpoint says, after more are saved."""
    with open_checkpoints(path, keep=keep) as checkpoints:
        restored = checkpoints.restore_latest(make_state())
        for epoch in epochs:
            checkpoints.save(epoch, stepped(make_state()), {"epoch": epoch})
    return restored and restored[1]


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """Their directory, and all files of the later one."""
    directory = tmp_path_factory.mktemp("two")
    with open_checkpoints(directory, keep=2) as checkpoints:
        for step in (1, 2):
            state = stepped(make_state(seed=step))
            checkpoints.save(step, state, {"epoch": step}, top1=float(step))
    found = sorted(p for p in (directory / "2").rglob("*") if p.is_file())
    return directory, [path.relative_to(directory) for path in found]


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
def test_damage_of_any_file_sets_a_checkpoint_aside(
    two_checkpoints, tmp_path, caplog, how
):
    directory, files = two_checkpoints
    # Orbax's own, in which nothing of a state stands.
    own = {"2/_CHECKPOINT_METADATA", "2/commit_success.txt"}
    rng = np.random.default_rng(0)
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(directory, copy)
        content = (copy / file).read_bytes()
        if how == "deleted":
            (copy / file).unlink()
        elif how == "truncated":
            (copy / file).write_bytes(content[: len(content) // 2])
        else:
            bit = int(rng.integers(8 * len(content)))
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            (copy / file).write_bytes(changed)
        open_checkpoints(copy, keep=2).__exit__(None, None, None)
        is_damaged = str(file) not in own
        assert (copy / "unreadable-2").is_dir() == is_damaged, file
        assert (f"{copy / '2'} cannot be read" in caplog.text) == is_damaged
    # One that Orbax does not see is no checkpoint; then the one before is used, too.
    assert len(files) > 20


def test_the_checkpoint_before_a_damaged_one_is_used(two_checkpoints, tmp_path):
    shutil.copytree(two_checkpoints[0], tmp_path / "c")
    (tmp_path / "c" / "2" / "metrics" / "metrics").write_text("{")
    with open_checkpoints(tmp_path / "c", keep=2) as checkpoints:
        restored = checkpoints.restore_latest(make_state())
        assert restored is not None and restored[1] == {"epoch": 1}
        assert_trees_equal(restored[0].params, stepped(make_state(seed=1)).params)
        # The same step is saved again.
        checkpoints.save(2, restored[0], {"epoch": 2})
    assert progress_of(tmp_path / "c") == {"epoch": 2}


def test_damaged_weights_start_no_other_run(two_checkpoints, tmp_path):
    shutil.copytree(two_checkpoints[0], tmp_path / "run" / "checkpoints")
    (file,) = (tmp_path / "run" / "checkpoints" / "2" / "variables" / "d").iterdir()
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(checkpoint.CheckpointError, match="delete it to start from"):
        checkpoint.restore_weights(tmp_path / "run", make_state())


def test_if_all_are_damaged_nothing_is_touched(tmp_path):
    progress_of(tmp_path, [1, 2])
    for step in "12":
        (tmp_path / step / "progress" / "metadata").write_text("{")
    with pytest.raises(checkpoint.CheckpointError) as caught:
        progress_of(tmp_path)
    assert f"no checkpoint in {tmp_path} can be read:\n  2: " in str(caught.value)
    assert f"Delete {tmp_path} to train from the start" in str(caught.value)
    assert (tmp_path / "1").is_dir() and (tmp_path / "2").is_dir()


def test_the_best_is_kept_after_a_restart(tmp_path):
    state = make_state()
    for epochs in ((1, 50.0), (2, 10.0)), ((3, 20.0), (4, 30.0)):
        with open_checkpoints(tmp_path) as checkpoints:
            for epoch, top1 in epochs:
                checkpoints.save(epoch, state, {}, top1=top1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "4"]


def save_where_files_cannot_grow(path):
    """What a full disk is to a writer."""
    hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard_limit))
    progress_of(path, [2])


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(tmp_path):
    progress_of(tmp_path, [1])
    # A process of its own, as it is for a user: Orbax's writers of the other items
    # go on after the first has failed.
    spawn = multiprocessing.get_context("spawn")
    with (
        futures.ProcessPoolExecutor(1, mp_context=spawn) as pool,
        pytest.raises(checkpoint.CheckpointError) as caught,
    ):
        pool.submit(save_where_files_cannot_grow, tmp_path).result()
    message = str(caught.value)
    assert message.startswith(f"a checkpoint could not be saved in {tmp_path}: ")
    assert "File too large" in message and "run the same command again" in message
    assert len(message.splitlines()) == 1 and len(message) < 600
    assert progress_of(tmp_path, [2]) == {"epoch": 1}
    assert progress_of(tmp_path) == {"epoch": 2}
