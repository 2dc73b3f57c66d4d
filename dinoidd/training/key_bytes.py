"""A frame's key as every draw that follows from it reads it, and as files keep it."""


def key_bytes(key: str) -> bytes:
    """The key in UTF-8; of a file name that is not UTF-8, the name's own bytes."""
    return key.encode(errors="surrogateescape")


def key_of(data: bytes) -> str:
    """The key of `key_bytes`."""
    return data.decode(errors="surrogateescape")


def printable(key: str) -> str:
    """The key as text for libraries that want UTF-8: other bytes as `\\xff`."""
    return key_bytes(key).decode(errors="backslashreplace")
