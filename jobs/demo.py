"""placeholder until the driver is there"""


def demo() -> None:
    """Not yet."""
