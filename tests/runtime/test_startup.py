"""What is set up for a process of CPUs, and what for one with accelerators."""

import jax
import pytest

from gift_jax.runtime import allocator, devices, startup, xla


@pytest.mark.parametrize(
    ("has_accelerators", "runs_own_code", "expected"),
    [
        (False, False, ["memory"]),
        (False, True, ["memory", "flag"]),
        (True, True, []),
    ],
)
def test_what_is_for_cpus_is_set_on_machines_of_cpus(
    has_accelerators, runs_own_code, expected, monkeypatch
):
    called = []
    monkeypatch.setattr(devices, "may_have_accelerators", lambda: has_accelerators)
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: called.append("memory"))
    flag = "leave_reductions_out_of_fusions"
    monkeypatch.setattr(xla, flag, lambda: called.append("flag"))
    try:
        jax.config.update("jax_enable_x64", True)
        startup.prepare(runs_own_code=runs_own_code)
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)
    assert called == expected
