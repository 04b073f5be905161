"""TensorFlow Datasets, by name."""

import functools
import os
import re
from typing import Any

import numpy as np

from .. import contract, extras
from ..errors import PipelineError
from ..formats.arrays import dtype_of
from .base import Opened, RowSource
from .plan import Plan, Schema, concatenated, describe


class Tfds(RowSource):
    """A TensorFlow Datasets dataset by name, ``tfds:mnist``, with its own splits; it may be downloaded.

    It is prepared as ArrayRecord, the format with random access. ``--input`` may name TFDS's data folder. The
    observation is the feature ``x`` or ``image``, or the only array feature; the label is a ``label`` class.
    """

    needs_input = False
    takes = ("dtype",)

    @property
    def name(self) -> str:
        """See ``Source.name``."""
        return re.sub(r"\W", "_", self.kind.removeprefix("tfds:").split("/")[0].split(":")[0])

    @functools.cached_property
    def _builder(self) -> Any:
        with extras.needed("pipelines"):
            import tensorflow_datasets as tfds

        name = self.kind.removeprefix("tfds:")
        try:
            builder = tfds.builder(name, data_dir=self.input_path or None, file_format="array_record")
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:  # not registered, no network, no disk: TFDS has no common class
            reason = str(error).strip().splitlines()[:1]
            raise PipelineError(f"TFDS cannot prepare {name!r}: {type(error).__name__}: {' '.join(reason)}") from error
        return builder

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_builder"}

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        info = self._builder.info
        feature = info.features[self._observation]
        dtype = np.dtype(feature.np_dtype).name
        if None in feature.shape or dtype not in ("uint8", "float32"):
            raise PipelineError(
                f"{self.kind} has {self._observation} {dtype} {list(feature.shape)}, "
                "expected uint8 or float32 of one shape: resize it first, for example into a folder of images"
            )
        labels = tuple(info.features["label"].names) if self._has_label else None
        schema = Schema(tuple(feature.shape), dtype_of(dtype, self.fields.dtype), labels)
        parts = [(split, split, split, info.splits[split].num_examples) for split in sorted(info.splits)]
        inputs = [describe(os.fspath(path), os.fspath(self._builder.data_dir)) for path in self._shards()]
        unread = sorted({*info.features} - {self._observation, *([contract.LABEL] if self._has_label else [])})
        return concatenated(schema, parts, inputs, unread)

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``Source.open``."""
        data = self._builder.as_data_source(split=file)
        observation, has_label = self._observation, self._has_label

        def row(position: int) -> tuple[np.ndarray, int | None]:
            example = data[position]
            return np.asarray(example[observation], schema.dtype), int(example["label"]) if has_label else None

        return row

    def _shards(self) -> list[Any]:
        return [
            path for split in sorted(self._builder.info.splits) for path in self._builder.info.splits[split].filepaths
        ]

    @functools.cached_property
    def _observation(self) -> str:
        features = self._builder.info.features
        arrays = [name for name, feature in features.items() if len(getattr(feature, "shape", ())) > 0]
        for name in ("x", "image"):
            if name in arrays:
                return name
        if len(arrays) != 1:
            raise PipelineError(f"{self.kind} has the array features {arrays}, expected x, image or exactly one")
        return arrays[0]

    @property
    def _has_label(self) -> bool:
        features = self._builder.info.features
        return "label" in features and hasattr(features["label"], "names")
