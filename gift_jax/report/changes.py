"""What changed between two work directories: their groups, paired.

A setting that has one value in each directory, and not the same, is a change of the
whole. It is stated once, and groups are paired in spite of it. Fingerprints may differ
where the other settings leave no doubt.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gift_jax.report import formatting
from gift_jax.report.groups import (
    FIELDS,
    FINGERPRINTS,
    Group,
    distinguishing,
    sort,
    verdict,
)
from gift_jax.report.markup import Cell, Table
from gift_jax.report.statistics import Summary, pair
from gift_jax.report.tables import difference_cells

_MOST_NAMED = 5


class Change(NamedTuple):
    """A group, its counterpart in the other directory, and new minus old by seed."""

    new: Group
    old: Group
    difference: Summary

    @property
    def verdict(self) -> int:
        """Verdict on the difference; see `groups.verdict`."""
        return verdict(self.difference, self.new, self.old)


def changed_settings(
    new: Sequence[Group], old: Sequence[Group]
) -> dict[str, tuple[Any, Any]]:
    """Settings that all groups of a side share, and the sides do not: old and new."""
    values = {
        name: tuple({g.settings[name] for g in side} for side in (old, new))
        for name in FIELDS
    }
    return {
        name: (*before, *after)
        for name, (before, after) in values.items()
        if len(before) == len(after) == 1 and before != after
    }


def pair_groups(new: Sequence[Group], old: Sequence[Group]) -> list[Change]:
    """Pairs groups that agree in all settings but those that changed as a whole.

    What is left is paired without fingerprints, and that of a loss's own code, where
    there is one on each side.
    """
    fields = [name for name in FIELDS if name not in changed_settings(new, old)]
    words = [name for name in fields if name not in (*FINGERPRINTS, "loss_code")]
    found: dict[Group, Group] = {}
    for names in (fields, words):
        left = [g for g in new if g not in found]
        others = [g for g in old if g not in found.values()]
        by_new, by_old = _by(left, names), _by(others, names)
        for key in by_new.keys() & by_old.keys():
            if len(by_new[key]) == len(by_old[key]) == 1:
                found[by_new[key][0]] = by_old[key][0]
    return [
        Change(g, found[g], pair(g.finished, found[g].finished))
        for g in new
        if g in found
    ]


def _by(groups: Iterable[Group], names: Sequence[str]) -> Mapping[tuple, list[Group]]:
    members = collections.defaultdict(list)
    for g in groups:
        members[tuple(g.settings[n] for n in names)].append(g)
    return members


def changes_table(
    new: Sequence[Group], old: Sequence[Group], *, names: tuple[str, str]
) -> Table:
    """One row per pair: accuracy there and here, and the difference.

    Args:
      new: Groups that are reported on, before they are compared with a baseline.
      old: Groups of the other work directory, likewise.
      names: Names of the two, the new one first.
    """
    changes = pair_groups(new, old)
    paired = [change.new for change in changes]
    by_group = {change.new: change for change in changes}
    settings = distinguishing(paired) if paired else []
    losses = list(dict.fromkeys(g.loss for g in paired))
    here, there = names
    return Table(
        "changes",
        f"What changed against {there}",
        "Top-1 test accuracy after the last epoch in percent, mean ± sample standard "
        f"deviation over seeds; difference: {here} minus {there}, paired over seeds "
        "that finished in both, with its 95% t-interval, in bold (better) or italic "
        "(worse) where it excludes zero and no run of either diverged. "
        f"{_said(changed_settings(new, old))}"
        f"{_alone(new, paired, here)}{_alone(old, [c.old for c in changes], there)}",
        [*map(formatting.heading, settings), "loss"],
        [there, here, "difference", "95% interval", "pairs"],
        [_row(by_group[g], settings) for g in sort(paired, losses)],
    )


def _row(change: Change, settings: Sequence[str]) -> list[Cell | str]:
    old, new = (
        formatting.summary_text(g.summary("top1_last"))
        for g in (change.old, change.new)
    )
    return [
        *(formatting.setting_text(change.new, name) for name in settings),
        change.new.loss,
        old,
        new,
        *difference_cells(change.difference, change.verdict),
    ]


def _said(changed: Mapping[str, tuple[Any, Any]]) -> str:
    if not changed:
        return "No setting of the whole differs."
    found = [
        f"{formatting.heading(name)} {formatting.value_text(old)} before and "
        f"{formatting.value_text(new)} now"
        for name, (old, new) in changed.items()
    ]
    return f"The settings that differ: {'; '.join(found)}."


def _alone(groups: Sequence[Group], paired: Sequence[Group], where: str) -> str:
    left = [g for g in groups if g not in paired]
    if not left:
        return ""
    named = [f"{g.loss} under {g.settings['optimizer']}" for g in left[:_MOST_NAMED]]
    more = ", ..." * (len(left) > _MOST_NAMED)
    return f" In {where} only: {len(left)} ({', '.join(named)}{more})."
