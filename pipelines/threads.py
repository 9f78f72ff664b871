"""One thread for every library that computes: other thread counts sum in other orders, and bytes would differ."""

import contextlib
import os
import sys
from collections.abc import Iterator


def fix_threads() -> None:
    """Libraries loaded later read the environment; those already loaded must be told."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # never imported for its own sake: it takes seconds
        sys.modules["torch"].set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Around the loading of models, so that what is loaded in the block computes on one thread too."""
    fix_threads()
    yield
    fix_threads()
