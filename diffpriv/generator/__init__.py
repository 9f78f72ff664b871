"""The generator: from a style code to a photograph of a head (Belousov 2021, MobileStyleGAN, arXiv 2104.04767)."""
