"""The pixels under a kernel, against sums written out."""

import numpy as np

from gift_jax.models.cpu.windows import windows


def test_every_entry_of_a_kernel_has_its_pixels():
    images = np.arange(2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)
    found = windows(images, (3, 2), (2, 1), ((1, 0), (0, 1)))
    padded = np.pad(images, ((0, 0), (1, 0), (0, 1), (0, 0)))
    assert [pixels.shape for pixels in found] == 6 * [(2, 2, 4, 3)]
    for index, pixels in enumerate(found):
        row, column = divmod(index, 2)
        for i in range(2):
            for j in range(4):
                expected = padded[:, 2 * i + row, j + column]
                np.testing.assert_array_equal(pixels[:, i, j], expected)
