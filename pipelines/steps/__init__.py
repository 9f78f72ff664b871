"""What happens to a sample: faces found, chosen and replaced. No engine, no files."""
