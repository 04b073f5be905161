"""Packaging for tfvae. Beam's ``--setup_file ./setup.py`` ships this same package to its workers."""

import pathlib

from setuptools import find_packages, setup

README = pathlib.Path(__file__).with_name("README.md")

setup(
    name="tfvae",
    version="0.1.0",
    description="Variational autoencoders on TensorFlow: Keras training, Beam pipelines, TF Serving exports.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["tfvae", "tfvae.*"]),  # tfvae.pipelines is a link to pipelines
    package_data={"tfvae.experiments": ["reference/*.csv"]},
    install_requires=[
        "tensorflow==2.21.*",
        "keras==3.15.*",
        "tensorflow-probability[tf]==0.25.*",
        "tensorflow-datasets==4.9.10",
        "importlib_resources",  # TFDS imports it without asking for it
        "apache-beam==2.77.*",
        "protobuf>=6.31,<7",
        "numpy>=2.0",
        "pyarrow",
        "google-crc32c",  # Beam's TFRecord reader needs it
        "pillow",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "tensorboard",  # Keras writes its training logs through it
        "click",
        "tqdm",
    ],
    extras_require={
        "test": [
            "jax==0.8.*",  # runs the carried programs of benchmarks/gpu on its CPU client
            "optax",
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "requests",
            "orjson",
            "tensorflow-serving-api==2.21.*",
            "ruff",
            "mypy",
            "pre-commit",
        ],
        "serving": ["requests", "orjson", "urllib3>=2.3", "grpcio", "tensorflow-serving-api==2.21.*"],
        "gpu": ["jax[cuda12]", "optax", "torch"],
    },
    entry_points={"console_scripts": ["tfvae=tfvae.cli:main"]},
)
