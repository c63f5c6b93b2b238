"""How settings and numbers are written in tables and plots."""

from typing import Any

from gift_jax.report.groups import DEFAULT, FINGERPRINTS, TUNED, Group, is_at_edge
from gift_jax.report.statistics import Summary

ABSENT = "\N{EN DASH}"
_HEADINGS = {
    "distill": "distilled",
    "ipc": "IPC",
    "augment": "augmentation",
    "eval_every": "epochs between evaluations",
    "init_from": "initial weights",
    "protocol_changes": "changed of the protocol",
}


def heading(name: str) -> str:
    """Heading of a setting.

    >>> heading("ipc"), heading("soft_labels")
    ('IPC', 'soft labels')
    """
    return _HEADINGS.get(name, name.replace("_", " "))


def value_text(value: Any) -> str:
    """The value of a setting as text."""
    if value is None or value == "":
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def setting_text(group: Group, name: str, *, tuned: str = "") -> str:
    """A setting of a group as text; of a fingerprint its first six digits.

    Args:
      group: The group.
      name: Name of the setting.
      tuned: What to write for a tuned learning rate; by default the rate itself, and
        whether it is at the edge of what was tried.
    """
    text = value_text(group.settings[name])
    if name in FINGERPRINTS:
        return text[:6]
    if name != "learning_rate" or not group.rate:
        return text
    if group.rate == DEFAULT:
        return f"{text} ({DEFAULT})"
    at_edge = group.choice is not None and is_at_edge(group.choice)
    return tuned or f"{text} ({TUNED}{', edge' * at_edge})"


def signed_text(value: float) -> str:
    """A number with two decimals and a sign; minus is the true minus sign.

    >>> signed_text(1.25)
    '+1.25'
    """
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def signed_interval_text(interval: tuple[float, float]) -> str:
    """An interval of differences, its ends with their signs.

    >>> signed_interval_text((0.5, 2.0))
    '[+0.50, +2.00]'
    """
    return f"[{', '.join(map(signed_text, interval))}]"


def summary_text(summary: Summary) -> str:
    """Mean and standard deviation of accuracies."""
    if summary.mean is None:
        return ABSENT
    return f"{summary.mean:.2f}" + (f" ± {summary.sd:.2f}" if summary.n > 1 else "")
