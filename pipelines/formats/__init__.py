"""Shards as they are stored (WebDataset, Parquet, folders): listed, read, and written again with some pictures changed."""
