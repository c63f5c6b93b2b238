"""Speed of this package beside a PyTorch loop of the official protocol.

    python -m experiments.benchmark [--out=DIR] [--quick] [--check]

Every contender is a process of its own that waits while another runs, so that the
thread pools of JAX and PyTorch never compete. All of them run in turn, round after
round; medians and ratios are over the rounds.
"""
