"""A frame's key as every draw that follows from it reads it."""


def key_bytes(key: str) -> bytes:
    """The key in UTF-8; of a file name that is not UTF-8, the name's own bytes."""
    return key.encode(errors="surrogateescape")
