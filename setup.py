"""Distribution `diffpriv`; everything about it stands in pyproject.toml."""

from setuptools import setup

setup()
