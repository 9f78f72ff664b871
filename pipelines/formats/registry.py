"""Which reader and writer stands behind a shard's `format`. Each is imported when it is asked for."""

from diffpriv.pipelines.formats.base import ShardFormat


def shard_format(name: str) -> ShardFormat:
    """The format behind a shard's `format`."""
    if name == "webdataset":
        from diffpriv.pipelines.formats.webdataset import WebDatasetFormat

        return WebDatasetFormat()
    if name == "parquet":
        from diffpriv.pipelines.formats.parquet import ParquetFormat

        return ParquetFormat()
    if name == "folder":
        from diffpriv.pipelines.formats.folder import FolderFormat

        return FolderFormat()
    raise ValueError(f"no shard format is called {name!r}")
