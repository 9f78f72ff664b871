"""The Python API for other people's pipelines."""
