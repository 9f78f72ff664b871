"""The API reference, made from the docstrings: `python -m docs.api OUT` (`make docs`). A warning is an error."""

import sys
import warnings
from pathlib import Path

import pdoc

import diffpriv

LEFT_OUT = ("!diffpriv.training",)  # done from a checkout, by who trains


def main() -> None:
    warnings.filterwarnings("error", module="pdoc")
    for name in diffpriv.__all__:  # they are imported when asked for, and pdoc does not ask
        getattr(diffpriv, name)
    pdoc.pdoc("diffpriv", *LEFT_OUT, output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
