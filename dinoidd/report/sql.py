"""Small pieces of SQL."""


def member(struct: str, field: str) -> str:
    """A field of a struct column."""
    return f'{struct}."{field.replace(chr(34), chr(34) * 2)}"'


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"
