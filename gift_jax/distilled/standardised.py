"""Channel statistics of published standardised images, whatever a config says."""

from gift_jax.data import info, preprocess

# Those in `get_dataset` of DC, DSA and DM that differ from GIFT's, and so from `info`.
_OF_DC = {
    "cifar100": preprocess.Normalization(
        (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    )
}


def of_gift(dataset: info.DatasetInfo) -> preprocess.Normalization:
    """Statistics of GIFT, MTT and DATM, or the given ones for other datasets."""
    return info.DATASETS.get(dataset.name, dataset).normalization


def of_dc(dataset: info.DatasetInfo) -> preprocess.Normalization:
    """Statistics of DC's family."""
    return _OF_DC.get(dataset.name, of_gift(dataset))
