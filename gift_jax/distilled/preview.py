"""A picture of a distilled dataset: one row per class."""

import pathlib
from typing import BinaryIO

import numpy as np
from PIL import Image

_MAX_ROWS = 20
_MAX_COLUMNS = 10
_MIN_TILE = 32
_MAX_TILE = 1024
_SEPARATOR = 2
_BACKGROUND = 255


def save_preview(
    pixels: np.ndarray, labels: np.ndarray, path: pathlib.Path | BinaryIO
) -> None:
    """Writes a PNG grid of the first images of the first classes.

    Rows are classes in ascending order, at most 20; columns are images of the
    class in the order of the dataset, at most 10. Pixels are clipped to [0, 1].

    Args:
      pixels: (N, H, W, C) float.
      labels: (N,) integer classes.
      path: The PNG file, or an open one.
    """
    grid = picture(pixels, labels)
    Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid).save(path, "PNG")


def picture(
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    rows: int = _MAX_ROWS,
    columns: int = _MAX_COLUMNS,
) -> np.ndarray:
    """The grid of `save_preview` as pixels.

    Args:
      pixels: (N, H, W, C) float.
      labels: (N,) integer classes.
      rows: Most classes to show.
      columns: Most images of a class to show.

    Returns:
      (height, width, C) uint8.
    """
    classes = np.unique(labels)[:rows]
    members = [np.flatnonzero(labels == c)[:columns] for c in classes]
    shown = np.concatenate(members)
    tiles = np.rint(np.clip(pixels[shown], 0, 1) * 255).astype(np.uint8)
    lengths = [len(of_class) for of_class in members]
    return _grid(np.split(_enlarge(tiles), np.cumsum(lengths)[:-1]))


def _enlarge(tiles: np.ndarray) -> np.ndarray:
    """Repeats pixels until both sides are at least 32, unless one would exceed 1024."""
    shorter, longer = sorted(tiles.shape[1:3])
    factor = min(-(-_MIN_TILE // shorter), max(1, _MAX_TILE // longer))
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)


def _grid(rows: list[np.ndarray]) -> np.ndarray:
    """Lays out rows of (n, h, w, C) tiles with thin separators."""
    height, width, channels = rows[0].shape[1:]
    step_y, step_x = height + _SEPARATOR, width + _SEPARATOR
    columns = max(len(row) for row in rows)
    grid = np.full(
        (len(rows) * step_y + _SEPARATOR, columns * step_x + _SEPARATOR, channels),
        _BACKGROUND,
        np.uint8,
    )
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = i * step_y + _SEPARATOR, j * step_x + _SEPARATOR
            grid[top : top + height, left : left + width] = tile
    return grid
