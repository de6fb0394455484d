"""Format amounts of bytes for people."""


def size_text(size: float) -> str:
    """Format bytes in the largest unit of which there is at least one.

    >>> size_text(0), size_text(204_800), size_text(21_474_836_480)
    ('0 B', '200 KiB', '20 GiB')
    >>> size_text(1_534_000_000_000_000)
    '1395 TiB'
    """
    units = iter(("B", "KiB", "MiB", "GiB"))
    for unit in units:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
