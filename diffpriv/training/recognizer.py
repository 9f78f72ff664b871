"""Train the builtin recogniser: distilled from teacher embeddings, and told apart by the identities of the training crops.

`python -m diffpriv.training.recognizer CROPS.npz TEACHER.npy OUT --minutes 20` resumes from OUT/checkpoint.pt when it is there.
Loss: 1 - cosine to the teacher's (centred, normalised) embedding, plus the same for the matrix of cosines inside the batch
(relational distillation, Park et al. 2019), which carries who is like whom. Crops are mirrored, shifted, scaled, rotated,
recoloured, blurred and re-sampled at random, since the recogniser also judges synthetic and recompressed faces.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from diffpriv.models.recognizer import INPUT_SIZE, SCALE, SHIFT, FaceRecognizer
from diffpriv.training.checkpoint import ParameterAverage, load_checkpoint, save_checkpoint
from diffpriv.training.dataset import load_crops


@dataclass(frozen=True)
class RecognizerTraining:
    batch: int = 64
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    relation_weight: float = 2.0
    average_decay: float = 0.998
    seed: int = 0


def augmented(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(n, 3, 128, 128) in [-1, 1] -> (n, 3, 112, 112) with random geometry, colour and sharpness."""
    count = len(crops)

    def draw(low: float, high: float) -> torch.Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator)).to(crops.device)

    angle, scale = draw(-0.08, 0.08), draw(0.95, 1.06)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    grid = torch.arange(INPUT_SIZE, device=crops.device).float()
    x = ((grid - SHIFT[0]) / SCALE - 63.5)[None, None, :].expand(count, INPUT_SIZE, -1) * mirror[:, None, None]
    y = ((grid - SHIFT[1]) / SCALE - 63.5)[None, :, None].expand(count, -1, INPUT_SIZE)
    cosine, sine = (angle.cos() * scale)[:, None, None], (angle.sin() * scale)[:, None, None]
    source_x = cosine * x - sine * y + draw(-3, 3)[:, None, None]
    source_y = sine * x + cosine * y + draw(-3, 3)[:, None, None]
    faces = functional.grid_sample(
        crops, torch.stack([source_x, source_y], -1) / 63.5, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    tint = torch.stack([draw(0.92, 1.08) for _ in range(3)], 1)[:, :, None, None]
    faces = ((faces + 1) * draw(0.75, 1.25)[:, None, None, None] * tint - 1).clamp(-1, 1)
    small = functional.interpolate(faces, scale_factor=0.5, mode="area")
    soft = functional.interpolate(small, size=INPUT_SIZE, mode="bilinear", align_corners=False)
    blend = (draw(0, 1) * (draw(0, 1) < 0.3))[:, None, None, None]
    faces = faces + blend * (soft - faces)
    grey = faces.mean(1, keepdim=True).expand_as(faces)
    return torch.where((draw(0, 1) < 0.1)[:, None, None, None], grey, faces)


def train(crops_path: Path, teacher_path: Path, out: Path, minutes: float, config: RecognizerTraining, device: str) -> None:
    data = load_crops(crops_path)
    teacher = torch.from_numpy(np.load(teacher_path))
    training_rows, held_out_rows = (rows[rows < len(teacher)] for rows in data.split())
    centre = teacher[training_rows].mean(0)
    teacher = functional.normalize(teacher - centre, dim=1)
    torch.manual_seed(config.seed)
    model = FaceRecognizer(dim=teacher.shape[1]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.05)
    average = ParameterAverage(model, config.average_decay)
    step, spent = 0, 0.0
    state = load_checkpoint(out / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, step, spent = state["average"], state["step"], state["spent"]
    print(
        json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "rows": len(training_rows), **asdict(config)}),
        flush=True,
    )

    def write_state() -> None:
        contents = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        save_checkpoint(out / "checkpoint.pt", {**contents, "step": step, "spent": spent})

    budget, last, last_saved = minutes * 60, time.monotonic(), time.monotonic()
    while spent < budget:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = training_rows[torch.randint(len(training_rows), (config.batch,), generator=generator).numpy()]
        crops = torch.from_numpy(data.crops[rows]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        goal = teacher[rows].to(device)
        progress = min(1.0, spent / budget)
        warm = min(1.0, (step + 1) / config.warmup_steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        with torch.autocast(device, dtype=torch.bfloat16):
            embedded = model(augmented(crops, generator))
        embedded = embedded.float()
        alike = 1 - (embedded * goal).sum(1)
        relation = (embedded @ embedded.T - goal @ goal.T).square()
        loss = alike.mean() + config.relation_weight * relation.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        step += 1
        now = time.monotonic()
        spent, last = spent + min(now - last, 5.0), now  # a pause (SIGSTOP) is not training time
        if step % 100 == 0:
            print(
                json.dumps({"step": step, "minutes": round(spent / 60, 2), "distance": round(float(alike.mean().detach()), 4)}),
                flush=True,
            )
        if now - last_saved > 180:
            last_saved = now
            write_state()
    write_state()
    finished = FaceRecognizer(dim=teacher.shape[1]).to(device)
    finished.load_state_dict(average.values)
    finished.eval()
    with torch.no_grad():
        crops = torch.from_numpy(data.crops[held_out_rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
        agreement = (finished.embed_canonical(crops.to(device)).cpu() * teacher[held_out_rows]).sum(1).mean()
    finished.half().save_pretrained(out / "recognizer")
    print(
        json.dumps({"steps": step, "minutes": round(spent / 60, 1), "held_out_cosine_to_teacher": round(float(agreement), 4)})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(
        arguments.crops,
        arguments.teacher,
        arguments.out,
        arguments.minutes,
        RecognizerTraining(seed=arguments.seed),
        arguments.device,
    )


if __name__ == "__main__":
    main()
