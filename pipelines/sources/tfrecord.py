"""TFRecord files of ``tf.Example``, read without TensorFlow."""

import collections
import math
from collections.abc import Sequence

import numpy as np

from .. import contract
from ..errors import PipelineError, RowError
from ..formats import tfrecords
from ..formats.files import Found, find_files, folder_values, root_of, with_folders
from ..formats.images import encoded_limit, image_shape, pixels
from ..formats.text import EMPTY_KEY
from .base import Opened, RowSource
from .plan import Input, Plan, Schema, describe
from .table_rows import Classes, ClassIndex, TableRows, raw_layout

_NO_KEY = "no feature {!r}, expected the key"


class TfRecord(RowSource):
    """A TFRecord file, a folder of them, or a pattern; plain, gzip or zlib, whatever the name says.

    The feature ``column`` (by default ``x``) is one string of raw bytes (with ``shape``) or an encoded PNG or JPEG
    image (without), or a list of floats. ``key`` is a string or an integer; without it the feature ``key``, and where
    no record has one, ``FILE:NUMBER`` by the number of the record, as one that is rejected for its key is called too.
    ``label`` is an integer from 0 up, also as a float, or a string; without it the feature ``label``, where a record
    has one, or the folders ``label=VALUE``. The position of a row is the byte of its record, within the unpacked
    content where the file is gzip.
    """

    takes = ("key", "column", "label", "shape", "dtype", "missing")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, tfrecords.SUFFIXES)
        survey = _Survey(self)
        inputs: list[Input] = []
        names: list[str] = []
        for file in found.files:
            with tfrecords.open_records(found.path(file))[0] as stream:
                for offset, length, data in tfrecords.scan_records(stream, found.path(file), self._limit()):
                    names = names or tfrecords.feature_names(data)
                    survey.add(file, offset, length, data)
            inputs.append(describe(found.path(file), found.root))
        return survey.plan(inputs, found.beside(names, (self.key_name, self._column, self.label_name)))

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``RowSource.open``; the position is the offset of a record."""
        found = Found(root_of(self.input_path), (file,))
        stream, index, limit = tfrecords.open_records(found.path(file))[0], ClassIndex(schema.labels), self._limit()
        encoded = raw_layout(self.fields) is None

        def row(position: int) -> tuple[np.ndarray, int | None]:
            data = tfrecords.read_record(stream, found.path(file), position, limit)
            features = self.features(data, file)
            x = self._observation(features)
            if isinstance(x, bytes) and encoded:
                x = pixels(x, self.max_pixels)
            else:
                x = _shaped(_raw(x, self.fields.dtype or "uint8") if isinstance(x, bytes) else x, schema)
            return x, index.of(self.label(features)) if schema.labels else None

        return row

    def _limit(self) -> int:
        """Most bytes of a record: an observation, and room for other features."""
        raw = raw_layout(self.fields)
        limit = encoded_limit(self.max_pixels)
        return max(limit, int(np.prod(raw[0])) * 4 + (1 << 20)) if raw else limit

    @property
    def key_name(self) -> str:
        """The feature that is the key, if there is one."""
        return self.fields.key or contract.KEY

    @property
    def label_name(self) -> str:
        """The feature that is the label, if there is one."""
        return self.fields.label or contract.LABEL

    def features(self, data: bytes, file: str) -> dict[str, tfrecords.Feature]:
        """The features of a record that mean something here, and the label that the folders of its file say."""
        found = tfrecords.parse_example(data, (self.key_name, self._column, self.label_name))
        if self.label_name in (values := folder_values(file)):
            said = values[self.label_name]
            with_folders(found, file, {self.label_name: said})
            found[self.label_name] = [] if said is None else [said] if isinstance(said, int) else [said.encode()]
        return found

    def label(self, features: dict[str, tfrecords.Feature]) -> int | str | None:
        """The label of a record, also of a whole number that is a float.

        Raises:
            PipelineError: It is a number that is no class.
            RowError: There are several.
        """
        feature = features.get(self.label_name)
        if feature is not None and len(feature) > 1:
            raise RowError(f"{len(feature)} values in {self.label_name!r}, expected one")
        if not isinstance(feature, np.ndarray) or feature.size != 1 or math.isnan(feature[0]):
            return _scalar(feature)
        if not float(feature[0]).is_integer():
            raise PipelineError(
                f"feature {self.label_name!r} holds {feature[0]:g}, a number that is no class: name another --label"
            )
        return int(feature[0])

    def layout(self, features: dict[str, tfrecords.Feature]) -> tuple[tuple[int, ...], str]:
        """Shape and dtype that the observation of a record will have.

        Raises:
            RowError: There is none that can be read.
        """
        x, raw = self._observation(features), raw_layout(self.fields)
        if isinstance(x, np.ndarray):
            shape = self.fields.shape or x.shape
            if x.size != np.prod(shape) or x.size == 0:
                raise RowError(f"{x.size} values, expected {list(shape)}")
            return shape, "float32"
        return raw or (image_shape(x, self.max_pixels), "uint8")

    def fault(self, data: bytes, shape: Sequence[int], dtype: str, keyed: bool) -> tuple[str | None, str]:
        """The key of a record, where it has one, and why it is no row of that shape and dtype; empty if it is one."""
        key = None
        try:
            features = self.features(data, "")
            key = _key(features.get(self.key_name)) if keyed else None
            if keyed and key is None:
                raise RowError(_NO_KEY.format(self.key_name))
            x = self._observation(features)
            if isinstance(x, np.ndarray):
                _shaped(x, Schema(tuple(shape), dtype, None))
        except RowError as error:
            return key, str(error)
        return key, ""

    @property
    def _column(self) -> str:
        return self.fields.column or contract.X

    def _observation(self, features: dict[str, tfrecords.Feature]) -> bytes | np.ndarray:
        x = features.get(self._column)
        if isinstance(x, np.ndarray) and self.fields.dtype != "uint8":
            return x
        if isinstance(x, list) and len(x) == 1 and isinstance(x[0], bytes):
            return x[0]
        what = "no feature" if x is None else f"{len(x)} values, floats or not, in"
        raise RowError(f"{what} {self._column!r}, expected one string of bytes or a list of floats")


class _Survey:
    """What the records of all files have in common, and which are bad already."""

    def __init__(self, source: TfRecord):
        self._source = source
        self._rows: dict[str, tuple[list[str | None], list[int], dict[int, str]]] = {}
        self._layouts: collections.Counter[tuple[tuple[int, ...], str]] = collections.Counter()
        self._classes = Classes()
        self._labels = self._keys = 0
        self._fault = ""  # of the first record that has one

    def add(self, file: str, offset: int, length: int, data: bytes | None) -> None:
        keys, offsets, reasons = self._rows.setdefault(file, ([], [], {}))
        row = len(keys)
        keys.append(None)
        offsets.append(offset)
        if data is None:
            reasons[row] = f"a record of {length} bytes, which is too many for an image (--max-pixels)"
            return
        try:
            features = self._source.features(data, file)
            keys[row] = _key(features.get(self._source.key_name))
            self._keys += keys[row] is not None
            label = self._source.label(features)
        except RowError as error:
            reasons[row] = str(error)
            self._fault = self._fault or str(error)
            return
        self._look(features, label)

    def _look(self, features: dict[str, tfrecords.Feature], label: int | str | None) -> None:
        self._classes.add([label])
        self._labels += label is not None
        try:
            self._layouts[self._source.layout(features)] += 1
        except RowError as error:  # the worker that meets the row says why
            self._fault = self._fault or str(error)

    def plan(self, inputs: list[Input], found: Found) -> Plan:
        source = self._source
        numbered = source.fields.key is None and not self._keys
        table = TableRows()
        for file, (keys, offsets, reasons) in self._rows.items():
            for row, key in enumerate(keys):
                if key is None and not numbered:
                    reasons.setdefault(row, _NO_KEY.format(source.key_name))
                keys[row] = f"{file}:{row}" if key is None else key  # one that is rejected is called so too
            table.add(file, keys, offsets, reasons)
        if not self._layouts:
            why = f", the first for this: {self._fault}" if self._fault else ": there are no records"
            raise PipelineError(
                f"no record of {source.input_path} can be read as a tf.Example with an observation{why}"
            )
        shape, dtype = self._layouts.most_common(1)[0][0]
        labels = self._classes.names(source.input_path) if self._labels or source.fields.label else None
        return table.plan(Schema(shape, dtype, labels), inputs, found)


def _scalar(feature: tfrecords.Feature | None) -> int | str | None:
    """The only value of a feature, an integer or text."""
    if not isinstance(feature, list) or len(feature) != 1:
        return None
    value = feature[0]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return None


def _key(feature: tfrecords.Feature | None) -> str | None:
    key = _scalar(feature)
    if key is None and feature is not None:
        raise RowError("the key is not one integer or one string of UTF-8")
    if key == "":
        raise RowError(EMPTY_KEY)
    return None if key is None else str(key)


def _raw(content: bytes, dtype: str) -> np.ndarray:
    width = np.dtype(dtype).itemsize
    if len(content) % width:
        raise RowError(f"x has {len(content)} bytes, expected a multiple of {width} for {dtype}")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def _shaped(x: np.ndarray, schema: Schema) -> np.ndarray:
    if x.size != math.prod(schema.shape) or x.dtype != schema.dtype:
        raise RowError(f"x has {x.size} values of {x.dtype}, expected {schema.dtype} {list(schema.shape)}")
    return x.reshape(schema.shape)
