"""Quantities with their units, for reading."""


def readable_size(size: float) -> str:
    """A number of bytes for reading, in decimal units.

    >>> readable_size(12_345_678)
    '12.3 MB'
    """
    rounded = float(f"{size:.3g}")
    power = min(len(f"{rounded:.0f}") - 1, 14) // 3
    return f"{rounded / 1000**power:g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
