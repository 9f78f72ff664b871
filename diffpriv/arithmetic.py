"""Which number format a device computes fast in."""

import torch


def resolve_arithmetic(name: str, device: torch.device) -> torch.dtype:
    """What "auto" means on this machine: bfloat16 where its instructions exist, float32 elsewhere."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        name = "bfloat16" if fast else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32
