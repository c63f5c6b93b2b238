"""What published images were standardised with, whatever a config says."""

from gift_jax.data import info, preprocess

# `get_dataset` of DC, DSA and DM, where it has others than GIFT, and so `info`.
_OF_DC = {
    "cifar100": preprocess.Normalization(
        (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    )
}


def of_gift(dataset: info.DatasetInfo) -> preprocess.Normalization:
    """GIFT's, MTT's and DATM's; those given for a dataset that these do not have."""
    return info.DATASETS.get(dataset.name, dataset).normalization


def of_dc(dataset: info.DatasetInfo) -> preprocess.Normalization:
    """Those of DC's family."""
    return _OF_DC.get(dataset.name, of_gift(dataset))
