"""Timing in turn, without imports that a timed command would have to wait for."""

from collections.abc import Callable, Mapping

# Seconds of each round, by the name of what was timed.
Samples = dict[str, list[float]]


def in_turn(
    contenders: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    on_round: Callable[[], object] = lambda: None,
) -> Samples:
    """Times all contenders in every round, every second round in reverse order.

    Args:
        contenders: Functions that return their seconds, by name.
        rounds: How often each is timed.
        on_round: Called after every round.
    """
    samples: Samples = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            samples[name].append(contenders[name]())
        on_round()
    return samples
