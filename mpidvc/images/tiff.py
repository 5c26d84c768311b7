"""Images in TIFF files."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Ints, Triple
from mpidvc.errors import UserError
from mpidvc.images.files import PositionedFile, check_regular, one_line
from mpidvc.images.plain import PlainImage
from mpidvc.images.source import Box, Decoded, Source, stored_dtype, volume_shape

__all__ = ["SegmentedTiff", "WholeTiff", "open_tiff"]

#: A stack of more channels is a volume; ImageJ shows no more than 8.
MOST_CHANNELS = 8
#: Compressions of the JPEG kind: their tables stand apart from the segments.
JPEG = {6, 7, 33007, 34892}


class SegmentedTiff(Source):
    """Compressed, tiled or otherwise encoded TIFF with a page per plane; a box decodes the strips or tiles it meets.

    Parameters
    ----------
    path : str
        The file.
    shape : tuple of 3 ints
        (z, y, x).
    stored : dtype
        Dtype of the decoded values.
    segment : 2 ints
        Rows and columns of a strip or tile.
    offsets, counts : (planes, segments) int64
        Position and length in bytes of every strip or tile.
    """

    def __init__(
        self,
        path: str,
        shape: Triple,
        stored: np.dtype[Any],
        segment: tuple[int, int],
        offsets: Ints,
        counts: Ints,
    ) -> None:
        super().__init__(path, shape, stored)
        self.segment = segment
        self.offsets, self.counts = offsets, counts

    @property
    def grain(self) -> Triple:
        return (1, *self.segment)

    def _read(self, box: Box) -> NDArray[Any]:
        if self._opened is None:
            import tifffile

            with _quiet(), _reading(self.path):
                page: Any = tifffile.TiffFile(self.path).pages[0]
                page.parent.filehandle.close()
            self._opened = PositionedFile(self.path), page.decode, page.nodata, Decoded(self.cache_bytes)
        decoded: Decoded = self._opened[3]
        z, y, x = box
        part = np.empty([s.stop - s.start for s in box], self.dtype)
        rows, columns = self.segment
        across = -(-self.shape[2] // columns)
        for target, plane in zip(part, range(z.start, z.stop), strict=True):
            for i in range(y.start // rows, (y.stop - 1) // rows + 1):
                for j in range(x.start // columns, (x.stop - 1) // columns + 1):
                    index = i * across + j
                    values = decoded.get((plane, index), self._decode)
                    top, left = i * rows, j * columns
                    bottom, right = min(top + rows, y.stop), min(left + columns, x.stop)
                    first, start = max(top, y.start), max(left, x.start)
                    target[first - y.start : bottom - y.start, start - x.start : right - x.start] = values[
                        first - top : bottom - top, start - left : right - left
                    ]
        return part

    def _decode(self, place: tuple[int, int]) -> NDArray[Any]:
        """Strip or tile of a plane, perhaps without its part beyond the image."""
        plane, index = place
        file, decode, nodata, _ = self._opened
        count = int(self.counts[plane, index])
        if count == 0:
            return np.full(self.segment, nodata, self.dtype)
        data = np.empty(count, np.uint8)
        file.fill(data, self.offsets[plane, index])
        with _quiet(), _reading(self.path):
            values, _, shape = decode(data.tobytes(), index)
            values = values.reshape(values.shape[-3:-1])
            assert all(n >= least for n, least in zip(values.shape, shape[-3:-1], strict=True))
        return np.ascontiguousarray(values, self.dtype)


class WholeTiff(Source):
    """TIFF whose pages are not its planes; the first box decodes the whole image into memory."""

    @property
    def held(self) -> int:
        # during decoding the image may be in memory twice
        return 2 * self.nbytes

    @property
    def grain(self) -> Triple:
        return self.shape

    def _read(self, box: Box) -> NDArray[Any]:
        if self._opened is None:
            import tifffile

            with _quiet(), _reading(self.path):
                # one thread: all ranks of a machine may be decoding at this moment
                data = tifffile.imread(self.path, series=0, maxworkers=1)
            self._opened = np.asarray(data).astype(self.dtype, copy=False).reshape(self.shape)
        view: NDArray[Any] = self._opened[box]
        return view


def open_tiff(path: str, what: str = "image") -> PlainImage | SegmentedTiff | WholeTiff:
    """Open a TIFF file: unencoded values are read by position, others decoded piece by piece.

    Parameters
    ----------
    path : str
        The file.
    what : str
        Name of the image in messages.

    Returns
    -------
    PlainImage, SegmentedTiff or WholeTiff

    Raises
    ------
    UserError
        If the file is missing, damaged or truncated, or no single grey image of 2 or 3 dimensions and supported dtype.
    """
    import tifffile

    name = f"{what} {path}"
    check_regular(path, name)
    try:
        size = Path(path).stat().st_size
        _check_directories(path, size, name)
        with _quiet(), tifffile.TiffFile(path) as tif:
            return _image(tif, path, size, name)
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(
            f"{name}: cannot be opened ({error.strerror or error}); check the path and permissions"
        ) from error
    except Exception as error:  # tifffile raises exceptions of any kind at damaged files
        raise UserError(f"{name}: cannot be read as a TIFF image ({one_line(error)}); export it again") from error


def _image(tif: Any, path: str, size: int, name: str) -> PlainImage | SegmentedTiff | WholeTiff:
    images = [series for series in tif.series if not series.keyframe.is_reduced]
    if len(images) != 1:
        raise UserError(
            f"{name}: holds {len(images)} images of different shape or type; save the one to use in a file of its own"
        )
    series = tif.series[0]
    page = series.keyframe
    if page.samplesperpixel > 1:
        raise UserError(f"{name}: has {page.samplesperpixel} samples per pixel; convert it to grey first")
    _check_axes(series, name)
    if series.dtype is None:
        raise UserError(f"{name}: has an unknown type of values; convert it to 8, 16 or 32 bit integers or float32")
    stored = stored_dtype(series.dtype, name).newbyteorder(tif.byteorder)
    shape = volume_shape(series.shape, name)

    offset = series.dataoffset
    if any(piece is None for piece in series.pages):
        raise UserError(f"{name}: has planes in other files, which are missing; restore them, or export it again")
    segments = [
        segment
        for piece in series.pages
        if piece.parent is tif
        for segment in zip(piece.dataoffsets, piece.databytecounts, strict=True)
    ]
    # a strip or tile without values has neither position nor length
    if any(min(start, count) < 0 or (start == 0) != (count == 0) for start, count in segments):
        raise UserError(f"{name}: is damaged, its strips or tiles are nowhere; copy or export it again")
    ends = [start + count for start, count in segments]
    if offset is not None:
        ends.append(offset + series.nbytes)
    if tif.is_imagej and len(tif.pages) == 1 and page.is_final:
        # Above 4 GB ImageJ writes a directory for the first plane only; the other planes follow it without.
        start, planes = page.dataoffsets[0], int((tif.imagej_metadata or {}).get("images", 1))
        if page.offset < start and size > start + page.nbytes:
            ends.append(start + planes * page.nbytes)
    if max(ends, default=0) > size:
        raise UserError(_truncated(name, size))

    if offset is not None:
        return PlainImage(path, shape, stored, [offset])
    if page.is_final and all(_in_one_piece(piece, tif, page.nbytes) for piece in series.pages):
        starts = [piece.dataoffsets[0] for piece in series.pages]
        if len(starts) == shape[0]:
            return PlainImage(path, shape, stored, starts)
    try:
        next(page.segments(maxworkers=1))
    except Exception as error:
        raise UserError(_undecodable(name, error)) from error
    native = stored.newbyteorder("=")
    segment, offsets, counts = _segments(series, tif, shape)
    if segment is None:
        return WholeTiff(path, shape, native)
    return SegmentedTiff(path, shape, native, segment, offsets, counts)


def _check_axes(series: Any, name: str) -> None:
    """Refuse channels, and time steps of a volume.

    A single stack is a volume, whatever its axis is called: volumes written as ImageJ or OME files without naming their
    axes have their planes as channels, others as time steps.
    """
    stacks = {axis: n for axis, n in zip(series.axes, series.shape, strict=False) if axis not in "YXS" and n > 1}
    channels, steps = stacks.get("C", 1), stacks.get("T", 1)
    if channels > 1 and (len(stacks) > 1 or channels <= MOST_CHANNELS):
        raise UserError(f"{name}: has {channels} channels; save the one to use in a file of its own, with axes ZYX")
    if steps > 1 and len(stacks) > 1:
        raise UserError(f"{name}: has {steps} time steps; save the one to use in a file of its own")


def _segments(series: Any, tif: Any, shape: Triple) -> tuple[tuple[int, int] | None, Ints, Ints]:
    """Shape, positions and lengths of strips or tiles; the shape is None if pages cannot be decoded one by one."""
    page = series.keyframe
    pages: list[Any] = list(series.pages)
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    nothing = np.zeros((0, 0), np.int64)
    alone = (
        len(pages) == shape[0]
        and (page.imagelength, page.imagewidth) == shape[1:]
        and page.imagedepth == 1
        and int(page.compression) not in JPEG
        and all(piece is not None and piece.parent is tif for piece in pages)
        and tif.pages[0].hash == page.hash
    )
    if not alone:
        return None, nothing, nothing
    rows = min(rows, shape[1]) if not page.is_tiled else rows
    expected = -(-shape[1] // rows) * -(-shape[2] // columns)
    if any(len(piece.dataoffsets) != expected or len(piece.databytecounts) != expected for piece in pages):
        return None, nothing, nothing
    offsets = np.array([piece.dataoffsets for piece in pages], np.int64)
    counts = np.array([piece.databytecounts for piece in pages], np.int64)
    return (int(rows), int(columns)), offsets, counts


def _in_one_piece(page: Any, tif: Any, nbytes: int) -> bool:
    """Whether the strips of a page follow each other in this file."""
    if page is None or page.parent is not tif:
        return False
    offsets, counts = page.dataoffsets, page.databytecounts
    return sum(counts) >= nbytes and all(
        start + count == following
        for start, count, following in zip(offsets[:-1], counts[:-1], offsets[1:], strict=True)
    )


def _check_directories(path: str, size: int, name: str) -> None:
    """Follow the chain of image file directories; where it breaks, tifffile would silently return fewer planes."""
    with Path(path).open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) >= 8 else 0
        if version == 42:
            count, entry, pointer, start = "H", 12, "I", 4
        elif version == 43 and len(head) == 16:
            count, entry, pointer, start = "Q", 20, "Q", 8
        else:
            raise UserError(f"{name}: is not a TIFF file; give a TIFF, a directory of TIFF slices or file.h5::/dataset")
        wide, long = struct.calcsize(count), struct.calcsize(pointer)
        (offset,) = struct.unpack_from(order + pointer, head, start)
        if offset == 0:
            raise UserError(f"{name}: holds no image; export it again")
        seen = set()
        while offset:
            if offset in seen:
                raise UserError(f"{name}: is damaged, its directories lead in a circle; copy or export it again")
            seen.add(offset)
            file.seek(offset)
            entries = file.read(wide)
            end = offset + size
            if len(entries) == wide:
                end = offset + wide + entry * struct.unpack(order + count, entries)[0]
            if end + long > size:
                raise UserError(_truncated(name, size))
            file.seek(end)
            (offset,) = struct.unpack(order + pointer, file.read(long))


def _truncated(name: str, size: int) -> str:
    return f"{name}: is truncated, its {size} bytes are fewer than its header promises; copy or export it again"


def _undecodable(name: str, error: Exception) -> str:
    if "imagecodecs" in str(error):
        return f"{name}: its compression needs imagecodecs; run: pip install imagecodecs"
    return f"{name}: cannot be decoded ({one_line(error)}); copy or export it again"


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn a failure to decode into a `UserError`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # codecs raise exceptions of any kind
        raise UserError(_undecodable(f"image {path}", error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's remarks off the terminal: the refusals of this module replace them."""
    logger = logging.getLogger("tifffile")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
