"""Convert dlib's recogniser from the XML of export.cpp to a `FaceRecognizer` folder.

`python -m diffpriv.training.dlib_export.convert MODEL.xml OUT`. The XML lists layers from the output down to the picture. Every
convolution is followed (above it) by an affine layer gamma * x + beta, which is folded in: W' = gamma W, b' = gamma b + beta.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diffpriv.errors import ModelError
from diffpriv.models.recognizer import FaceRecognizer

_LAYER = re.compile(r"<layer idx='\d+' type='comp'>\s*<(\w+)[^>]*>([^<]*)<", re.S)


def read_layers(xml: str) -> list[tuple[str, np.ndarray]]:
    """(kind, numbers) of every layer that has numbers, from the output down."""
    layers = [(kind, np.array(text.split(), np.float32)) for kind, text in _LAYER.findall(xml)]
    return [(kind, numbers) for kind, numbers in layers if len(numbers)]


def convert(xml: str) -> FaceRecognizer:
    """Raises ModelError when the file does not hold this network."""
    layers = read_layers(xml)
    if not layers or layers[0][0] != "fc_no_bias":
        raise ModelError("The XML does not begin with the embedding layer.", advice="Make it with export.cpp.")
    model = FaceRecognizer()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    head, rest = layers[0][1], layers[1:]
    if len(rest) != 2 * len(convolutions):
        raise ModelError(f"The XML has {len(rest) // 2} convolutions and the network {len(convolutions)}.")
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(head.reshape(-1, model.head.out_features).T.copy()))
        # From the picture up: convolution, then its affine layer.
        for module, (con, numbers), (affine, factors) in zip(convolutions, rest[::-2], rest[-2::-2], strict=True):
            if con != "con" or affine != "affine_con":
                raise ModelError(f"Expected a convolution and its affine layer, found {con} and {affine}.")
            count = module.out_channels
            gamma, beta = torch.from_numpy(factors[:count].copy()), torch.from_numpy(factors[count:].copy())
            weight = torch.from_numpy(numbers[:-count].copy()).view(module.weight.shape)
            bias = torch.from_numpy(numbers[-count:].copy())
            module.weight.copy_(weight * gamma.view(-1, 1, 1, 1))
            module.bias.copy_(bias * gamma + beta)  # type: ignore[union-attr]
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xml", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    convert(arguments.xml.read_text()).half().save_pretrained(arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
