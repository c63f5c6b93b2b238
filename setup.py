"""Installation of gift_jax."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "gift_jax" / "__init__.py").read_text()
)[1]

NOTEBOOKS = ["ipykernel>=6.29", "jupytext>=1.16", "nbclient>=0.10"]
# The guides and the API as one site (`mkdocs build --strict`), and rendered notebooks.
DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5",
    "mkdocstrings-python>=2",
    "nbconvert>=7.16",
    "ruff>=0.9",  # lays out signatures
]

setup(
    name="gift_jax",
    version=VERSION,
    description="Training students on distilled datasets with refined soft labels",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # Configs and studies lie beside the package and are installed inside it.
    packages=[
        *find_packages(include=["gift_jax", "gift_jax.*"]),
        "gift_jax.configs",
        "gift_jax.configs.protocols",
        "gift_jax.experiments",
    ],
    package_dir={
        "gift_jax.configs": "configs",
        "gift_jax.experiments": "experiments",
    },
    package_data={"gift_jax": ["py.typed"]},
    entry_points={"console_scripts": ["gift-jax = gift_jax.main:run"]},
    keywords="dataset distillation, soft labels, knowledge distillation, JAX, GIFT",
    project_urls={
        "Paper": "https://arxiv.org/abs/2405.14736",
        "Official code": "https://github.com/LINs-lab/GIFT",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # The oldest and the newest that were tried: docs/versions.md.
    install_requires=[
        "absl-py>=1.4",
        "array_record>=0.8.1",  # reads TFDS without TensorFlow
        "flax>=0.10.7",
        "grain>=0.2.12",  # reads large test splits ahead
        "jax>=0.6.2",
        "matplotlib>=3.10",
        "ml_collections>=1.1.0",
        "ml_dtypes>=0.5.1",
        "numpy>=2.0.2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.19,<1",  # 1.0 moves the names that are used here
        "pillow>=11",
        "scikit-learn>=1.6",  # the digits
        "scipy>=1.15",
        "tensorboardX>=2.6.2.2",
        "tensorflow-datasets>=4.9.9",
        "tensorstore>=0.1.74",
        "tqdm>=4.67",
    ],
    extras_require={
        "docs": [*DOCS, *NOTEBOOKS],
        "test": [
            *DOCS,
            *NOTEBOOKS,
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pyarrow>=15",
            "pytest>=8",
            "pytest-xdist>=3.7",
            "setuptools>=70.1",
        ],
        # PyTorch is not needed to read its files, only for torchvision's weights and
        # for teachers that it runs.
        "torch": ["torch>=2.4", "torchvision>=0.19"],
        "timm": ["timm>=1.0", "torch>=2.4", "torchvision>=0.19"],
        # To download and prepare a TFDS dataset for the first time.
        "prepare": ["tensorflow>=2.18"],
        "parquet": ["datasets>=3", "pyarrow>=15"],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda12]"],
    },
)
