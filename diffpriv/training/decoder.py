"""Train the autoencoder's decoder further, its encoder frozen: sharper pictures from the same latents.

`python -m diffpriv.training.decoder CROPS.npz AUTOENCODER OUT --minutes 20` can run beside or after the denoiser's training,
since the latents, and so the denoiser, stay as they are. Resumes from OUT/decoder.pt.
"""

import json
from pathlib import Path

import torch

from diffpriv.models.autoencoder import FaceAutoencoder
from diffpriv.training.autoencoder import measure_psnr, reconstruction_loss, to_batch
from diffpriv.training.dataset import load_crops
from diffpriv.training.loop import TrainingRun, read_arguments

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

    def write_model() -> None:
        finished = FaceAutoencoder.from_config(model.config)
        finished.load_state_dict(run.averages["model"].values)
        finished.half().save_pretrained(out / "autoencoder")

    run = TrainingRun(
        out / "decoder.pt", {"model": model}, optimizer, minutes=minutes, decay=0.998, seed=seed, write=write_model
    )
    for step in run.steps():
        generator = step.generator
        rows = training_rows[torch.randint(len(training_rows), (BATCH,), generator=generator).numpy()]
        crops, valid = to_batch(data, rows, generator, device)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * step.rate(50, floor=0.01)
        with torch.autocast(device, dtype=torch.bfloat16):
            with torch.no_grad():
                latent = model.encode(crops).latent
                latent = latent + LATENT_NOISE * torch.randn(latent.shape, generator=generator).to(device)
            loss = reconstruction_loss(model.decode(latent).float(), crops, valid)
        run.descend(loss)
    trained = FaceAutoencoder.from_pretrained(out / "autoencoder", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    psnr = measure_psnr(trained.to(device).eval(), data, held_out_rows, device)
    print(json.dumps({"steps": run.step, "minutes": round(run.spent / 60, 1), "held_out_psnr_db": round(psnr, 2)}))


def main() -> None:
    arguments = read_arguments(__doc__, "crops", "autoencoder", "out", minutes=20.0)
    train(arguments.crops, arguments.autoencoder, arguments.out, arguments.minutes, arguments.seed, arguments.device)


if __name__ == "__main__":
    main()
