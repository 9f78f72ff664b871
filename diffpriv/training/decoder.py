"""Train the autoencoder's decoder further, its encoder frozen: sharper pictures from the same latents.

`python -m diffpriv.training.decoder CROPS.npz AUTOENCODER OUT --minutes 20` can run beside or after the denoiser's training,
since the latents, and so the denoiser, stay as they are. Resumes from OUT/decoder.pt.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.training.autoencoder import measure_psnr, reconstruction_loss, to_batch
from diffpriv.training.checkpoint import ParameterAverage, load_checkpoint, save_checkpoint
from diffpriv.training.dataset import load_crops

BATCH = 16
LEARNING_RATE = 4e-4
LATENT_NOISE = 0.02  # of the unit variance: what quantised keys and an imperfect denoiser bring


def train(crops_path: Path, autoencoder: Path, out: Path, minutes: float, seed: int, device: str) -> None:
    data = load_crops(crops_path)
    training_rows, held_out_rows = data.split()
    torch.manual_seed(seed)
    model = FaceAutoencoder.from_pretrained(autoencoder, torch_dtype=torch.float32, low_cpu_mem_usage=False).to(device)
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    average = ParameterAverage(model, 0.998)
    step, spent = 0, 0.0
    state = load_checkpoint(out / "decoder.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, step, spent = state["average"], state["step"], state["spent"]

    def write_model() -> None:
        contents = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        save_checkpoint(out / "decoder.pt", {**contents, "step": step, "spent": spent})
        finished = FaceAutoencoder.from_config(model.config)
        finished.load_state_dict(average.values)
        finished.half().save_pretrained(out / "autoencoder")

    budget, last, last_saved = minutes * 60, time.monotonic(), time.monotonic()
    while spent < budget:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_000_000 + step)
        rows = training_rows[torch.randint(len(training_rows), (BATCH,), generator=generator).numpy()]
        crops, valid = to_batch(data, rows, generator, device)
        warm = min(1.0, (step + 1) / 50)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent / budget)))
        with torch.autocast(device, dtype=torch.bfloat16):
            with torch.no_grad():
                latent = model.encode(crops).latent
                latent = latent + LATENT_NOISE * torch.randn(latent.shape, generator=generator).to(device)
            loss = reconstruction_loss(model.decode(latent).float(), crops, valid)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        step += 1
        now = time.monotonic()
        spent, last = spent + min(now - last, 5.0), now  # a pause (SIGSTOP) is not training time
        if step % 200 == 0:
            print(
                json.dumps({"step": step, "minutes": round(spent / 60, 2), "loss": round(float(loss.detach()), 5)}), flush=True
            )
        if now - last_saved > 180:
            last_saved = now
            write_model()
    write_model()
    trained = FaceAutoencoder.from_pretrained(out / "autoencoder", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    psnr = measure_psnr(trained.to(device).eval(), data, held_out_rows, device)
    print(json.dumps({"steps": step, "minutes": round(spent / 60, 1), "held_out_psnr_db": round(psnr, 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(arguments.crops, arguments.autoencoder, arguments.out, arguments.minutes, arguments.seed, arguments.device)


if __name__ == "__main__":
    main()
