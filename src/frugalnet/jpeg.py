"""What a JPEG file says of its picture, read without decoding it."""

import struct

START = b"\xff\xd8"  # of the file
_START_OF_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers; those three are tables, or reserved


def shape(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels (1, 3 or 4), as the header states them.

    None if there is anything but segments before that, or if it is not of eight bits: then Pillow knows more.
    """
    start = len(START)
    while start + 10 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker in _STARTS_OF_FRAME:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, start + 4)
            return (height, width, channels) if bits == 8 and channels in (1, 3, 4) else None
        start += 2 + int.from_bytes(data[start + 2 : start + 4])
    return None


def has_end(data: bytes) -> bool:
    """Whether a scan begins, and ends after that: otherwise the file is cut off.

    Entropy-coded data never holds the end-of-image marker by chance, but a thumbnail before it may: hence the last
    start of scan.
    """
    return data.rfind(_END) > data.rfind(_START_OF_SCAN) > 0
