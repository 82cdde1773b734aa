"""Encoded pictures: which are taken, wherever they come in. Needs no torch."""

import io

import PIL.Image

from salun_core import errors

MAX_PIXELS = 80_000_000  # a small file can unpack to gigabytes; Pillow warns just above
_FORMATS = ("PNG", "JPEG", "WEBP")
# 16-bit and float pictures have no agreed scale, so they are refused instead of clipped.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La"})
_OF_A_PALETTE = ("P", "PA")
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,  # where warnings are errors
)


def picture(content: bytes) -> PIL.Image.Image:
    """A whole PNG, JPEG or WebP picture of 8 bits a channel, decoded.

    Raises:
        InvalidDataError: the bytes are none; says what was got, not whose they are.
    """
    try:
        with PIL.Image.open(io.BytesIO(content), formats=_FORMATS) as found:
            _check(found)
            found.load()
            return found
    except PIL.UnidentifiedImageError as error:  # whose text names an address in memory
        raise _broken(content, "of another kind") from error
    except _UNREADABLE as error:
        raise _broken(content, str(error)) from error


def _broken(content: bytes, why: str) -> errors.InvalidDataError:
    return errors.InvalidDataError(
        f"got {len(content)} bytes that do not decode, expected a whole PNG, JPEG or WebP picture "
        f"({why})"
    )


def _check(found: PIL.Image.Image) -> None:
    if found.width * found.height > MAX_PIXELS:
        raise errors.InvalidDataError(
            f"got {found.width}x{found.height} pixels, expected at most {MAX_PIXELS}"
        )
    if found.mode not in _MODES:
        raise errors.InvalidDataError(
            f"got a picture of mode {found.mode}, expected 8 bits a channel"
        )
    if found.mode in _OF_A_PALETTE and found.palette is None:
        raise errors.InvalidDataError("got numbers of colours without a palette, expected one")
