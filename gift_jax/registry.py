"""The error for a name that is not known."""

import difflib
from collections.abc import Iterable


def unknown_name(
    what: str, name: str, known: Iterable[str], *, or_else: str = ""
) -> ValueError:
    """An error that names the nearest known name, and all of them.

    Args:
      what: The kind of thing that is named.
      name: What was found.
      known: What would have been understood.
      or_else: What else would have been, for the end of the message.

    >>> unknown_name("loss", "gfit", ["gift", "kl"])
    ValueError("unknown loss 'gfit' (did you mean 'gift'?); expected one of gift, kl")
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return ValueError(
        f"unknown {what} {name!r}{hint}; expected one of {', '.join(known)}{or_else}"
    )
