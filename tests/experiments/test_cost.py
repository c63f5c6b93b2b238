"""The table of what a loss costs."""

import numpy as np
import pytest
from scipy import stats

from experiments import cost
from experiments.benchmark import workloads


@pytest.mark.parametrize("n", [6, 10, 25, 100])
def test_the_interval_of_the_median_is_the_narrowest_of_order_statistics(n):
    low, high = cost.interval_of_median(list(np.random.default_rng(n).permutation(n)))
    assert high == n - 1 - low

    def coverage(rank):
        """Of the interval from the rank-th value to the rank-th from above."""
        return stats.binom.cdf(n - rank - 1, n, 0.5) - stats.binom.cdf(rank, n, 0.5)

    assert coverage(low) >= 0.95 > coverage(low + 1)


def test_ratios_are_those_of_rounds_to_the_base():
    samples = {"gift": [1.0, 2.0, 4.0], "ce": [1.1, 2.2, 4.4]}
    alone = {"gift": [0.01, 0.02, 0.5], "ce": [0.01, 0.01, 0.01]}
    memory = {"gift": 10**6, "ce": 2 * 10**6}
    workload = workloads.find(f"{cost.WORKLOAD}, 100 classes")
    lines = cost.table(workload, samples, alone, memory, "gift").splitlines()
    assert lines[2].startswith("| Loss | ms per step | over gift |")
    assert lines[-1] == (
        "| ce | 2200.0 | 1.1000 | [1.1000, 1.1000] | [1.1000, 1.1000] | 2.0 | "
        "0.500 [0.500, 0.500] |"
    )
    assert lines[-2].endswith("| 1.0 | 1.000 [0.500, 25.000] |")
