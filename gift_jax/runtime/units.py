"""Quantities with their units, for reading."""


def readable_size(size: float) -> str:
    """A number of bytes for reading, in decimal units.

    >>> readable_size(12_345_678)
    '12.3 MB'
    """
    rounded = float(f"{size:.3g}")
    power = min(len(f"{rounded:.0f}") - 1, 14) // 3
    return f"{rounded / 1000**power:g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def readable_time(seconds: float) -> str:
    """A duration for reading.

    >>> readable_time(0.25), readable_time(600), readable_time(9_000)
    ('0.25 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
