"""Encoded pictures: decoding and encoding, metadata, embedded pictures."""
