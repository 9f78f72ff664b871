"""Steps 4 to 6 of `make train-styles`: reader, synthetic people, prototypes and the denoiser of style codes.

    python -m diffpriv.training.style_models LABELS_OF_DRAWN LABELS_OF_PHOTOS GENERATOR OUT [--minutes M]

The reader learns from drawn heads and their labels. The denoiser then needs no more drawings: it learns from fresh codes, which
the reader tells the looks of. Prints what is reached on codes, and photos, that were held out.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from sklearn.cluster import KMeans
from torch.nn import functional

from diffpriv.faces.appearance import NAMES, TOLD, coarse
from diffpriv.generator.codes import CODE_STYLES, StyleSpace
from diffpriv.generator.mapping import MappingNetwork
from diffpriv.generator.people import SPREAD_RANK, SyntheticPeople
from diffpriv.generator.prototypes import MOST_BITS, LookPrototypes
from diffpriv.generator.reader import StyleReader
from diffpriv.generator.style_denoiser import StyleDenoiser
from diffpriv.generator.traits import READ, TRAITS, read_traits
from diffpriv.models.msi import MultiScaleInverter
from diffpriv.training.style_labels import load_labels

SEED = 11
DROPPED = 0.25  # share of rows whose looks, and of a tenth whose places too, are not told
RIDGE = 3.0
# How much a trait counts when the nearest prototype is sought.
WEIGHTS = {"male": 1.6, "age": 1.0, "beard": 0.7, "fringe": 0.5, "crown": 0.5, "long_hair": 0.9, "hair_light": 0.8}
OTHER_WEIGHT = 0.4
DENOISER_BATCH, READER_BATCH = 192, 256
STYLES, TRUNCATION = 40_000, 0.85  # that the denoiser learns from


def trait_columns() -> list[int]:
    """Where the numbers of TRAITS stand in READ."""
    return [READ.index(name) for name in TRAITS]


def train_reader(labels: dict[str, np.ndarray], minutes: float) -> StyleReader:
    """On nine tenths of the codes; prints R² of each number, and the embedding's cosine, on the others."""
    numbers = torch.from_numpy(read_traits(labels))
    codes, embeddings = torch.from_numpy(labels["codes"]), torch.from_numpy(labels["embedding"])
    reader = StyleReader(embedding_dim=embeddings.shape[1])
    reader.code_mean.copy_(codes.mean(0))
    reader.code_scale.copy_(codes.std(0))
    reader.number_mean.copy_(numbers.mean(0))
    reader.number_scale.copy_(numbers.std(0))
    reader.embedding_mean.copy_(embeddings.mean(0))
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(SEED))
    learn, held = order[: -len(order) // 10], order[-len(order) // 10 :]
    optimiser = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.1)
    begun, seconds, best, kept = time.monotonic(), 60 * minutes, float("inf"), dict(reader.state_dict())
    step = 0
    while (elapsed := time.monotonic() - begun) < seconds:
        rows = learn[torch.randint(len(learn), (READER_BATCH,))]
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - elapsed / seconds))
        # Styles near a code look nearly as it does: a little noise is more data.
        near = codes[rows] + 0.1 * reader.code_scale * torch.randn(len(rows), *codes.shape[1:])
        loss = _reader_loss(reader, near, numbers[rows], embeddings[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            with torch.no_grad():
                now = float(_reader_loss(reader, codes[held], numbers[held], embeddings[held]))
            if now < best:
                best, kept = now, {name: value.clone() for name, value in reader.state_dict().items()}
    reader.load_state_dict(kept)
    with torch.no_grad():
        read = reader(codes[held])
    unexplained = (read.numbers - numbers[held]).square().mean(0) / numbers[held].var(0)
    told = ", ".join(f"{name} {1 - float(value):.2f}" for name, value in zip(READ, unexplained, strict=True))
    cosine = float((read.embedding * embeddings[held]).sum(1).mean())
    alone = float((functional.normalize(reader.embedding_mean, dim=0) * embeddings[held]).sum(1).mean())
    print(f"reader: {step} steps on {len(learn)} codes; R² {told}; cosine {cosine:.3f} (of the mean alone {alone:.3f})")
    return reader.eval()


def _reader_loss(reader: StyleReader, codes: torch.Tensor, numbers: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    read = reader(codes)
    error = (read.numbers - numbers) / reader.number_scale
    spread = 1 - float(reader.embedding_mean.square().sum()) + 1e-3  # of embeddings about their mean
    return functional.huber_loss(error, torch.zeros_like(error)) + (1 - (read.embedding * embeddings).sum(1)).mean() / spread


def fit_people(labels: dict[str, np.ndarray], prototypes: LookPrototypes) -> SyntheticPeople:
    traits = torch.from_numpy(read_traits(labels))[:, trait_columns()]
    standard = (traits - prototypes.trait_mean) / prototypes.trait_scale
    embeddings = torch.from_numpy(labels["embedding"])
    people = SyntheticPeople(embedding_dim=embeddings.shape[1])
    inputs = torch.cat([torch.ones(len(standard), 1), standard], 1)
    fitted = torch.linalg.solve(inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1]), inputs.T @ embeddings)
    people.mean.copy_(fitted[0])
    people.by_traits.copy_(fitted[1:])
    left = embeddings - inputs @ fitted
    _, deviations, directions = torch.linalg.svd(left, full_matrices=False)
    people.spread.copy_((directions * (deviations / len(left) ** 0.5)[:, None])[:SPREAD_RANK])
    return people


def fit_prototypes(photos: dict[str, np.ndarray]) -> LookPrototypes:
    """Ridge regression from key-E to traits, then k-means of what the regression says of the training photos."""
    keys = MultiScaleInverter.dequantise(torch.from_numpy(photos["key_e"])).flatten(1)
    traits = torch.from_numpy(read_traits(photos))[:, trait_columns()]
    prototypes = LookPrototypes(keys.shape[1])
    prototypes.key_mean.copy_(keys.mean(0))
    prototypes.key_scale.copy_(keys.std(0) + 1e-3)
    prototypes.trait_mean.copy_(traits.mean(0))
    prototypes.trait_scale.copy_(traits.std(0))
    standard = (traits - traits.mean(0)) / traits.std(0)
    inputs = (keys - prototypes.key_mean) / prototypes.key_scale
    learn = torch.arange(len(keys)) % 10 != 0
    penalty = 0.1 * len(keys)

    def ridge(rows: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(
            rows_of(rows).T @ rows_of(rows) + penalty * torch.eye(inputs.shape[1]), rows_of(rows).T @ standard[rows]
        )

    def rows_of(rows: torch.Tensor) -> torch.Tensor:
        return inputs[rows]

    left = standard[~learn] - inputs[~learn] @ ridge(learn)
    told = ", ".join(f"{name} {1 - float(value):.2f}" for name, value in zip(TRAITS, left.square().mean(0), strict=True))
    male = TRAITS.index("male")
    centre = prototypes.trait_mean[male] / prototypes.trait_scale[male]
    agree = ((inputs[~learn] @ ridge(learn))[:, male] + centre > 0) == (standard[~learn][:, male] + centre > 0)
    print(f"key-E to traits, {int(learn.sum())} photos: R² {told}; apparent gender agrees in {float(agree.float().mean()):.1%}")
    prototypes.projection.copy_(ridge(torch.ones(len(keys), dtype=torch.bool)))
    prototypes.weights.copy_(torch.tensor([WEIGHTS.get(name, OTHER_WEIGHT) for name in TRAITS]))
    projected = inputs @ prototypes.projection
    for bits in range(MOST_BITS + 1):
        fitted = KMeans(2**bits, n_init=3, random_state=SEED).fit((projected * prototypes.weights).numpy())
        # Passed on is the mean of the measured traits of a cell, not of the shrunken estimates.
        labels = torch.from_numpy(fitted.labels_.astype(np.int64))
        means = torch.stack([standard[labels == cell].mean(0) for cell in range(2**bits)])
        prototypes.centres[2**bits - 1 : 2 ** (bits + 1) - 1] = means
    return prototypes


def condition_scales(reader: StyleReader) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale by which places are standardised: those of drawn heads."""
    columns = [NAMES.index(name) for name in TOLD]
    return reader.number_mean[columns], reader.number_scale[columns]


def train_denoiser(
    styles: torch.Tensor,
    space: StyleSpace,
    reader: StyleReader,
    prototypes: LookPrototypes,
    scheduler: DDIMScheduler,
    minutes: float,
) -> StyleDenoiser:
    """v-prediction on codes of two mapped styles each, told what the reader reads of them, in steps and with a prototype's
    blur.

    Args:
        styles: (n, dim) of the mapping network; any two make a code.
    """
    denoiser = StyleDenoiser()
    torch.nn.init.zeros_(denoiser.out.weight)  # of standard normal latents nothing is known: the best v is 0
    torch.nn.init.zeros_(denoiser.skip.weight)
    average = {name: value.clone() for name, value in denoiser.state_dict().items()}
    optimiser = torch.optim.AdamW(denoiser.parameters(), 1e-3, weight_decay=0.01)
    place_mean, place_scale = condition_scales(reader)
    alphas = scheduler.alphas_cumprod
    begun, seconds, step = time.monotonic(), 60 * minutes, 0
    losses: list[float] = []
    while (elapsed := time.monotonic() - begun) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2.5 * (1 - elapsed / seconds), (step + 1) / 100)
        with torch.no_grad():
            codes = styles[torch.randint(len(styles), (DENOISER_BATCH, CODE_STYLES))]
            clean = space.latent(codes)
            numbers = reader(codes).numbers
            places = torch.from_numpy(coarse(numbers[:, : len(NAMES)].numpy()))
            places = (places - place_mean) / place_scale
            looks = (numbers[:, trait_columns()] - prototypes.trait_mean) / prototypes.trait_scale
            looks = looks + 0.3 * torch.randn_like(looks)  # a prototype is near, not at, what it stands for
            dropped = torch.rand(DENOISER_BATCH)
            looks[dropped < DROPPED] = float("nan")
            places[dropped < DROPPED / 10] = float("nan")
        timestep = torch.randint(0, 1000, (DENOISER_BATCH,))
        signal, spread = alphas[timestep].sqrt()[:, None, None], (1 - alphas[timestep]).sqrt()[:, None, None]
        noise = torch.randn_like(clean)
        predicted = denoiser(signal * clean + spread * noise, timestep, places, looks)
        loss = (predicted - (signal * noise - spread * clean)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(0.998, (1 + step) / (10 + step))
        for name, value in denoiser.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        losses.append(float(loss.detach()))
    denoiser.load_state_dict(average)
    print(f"denoiser: {step} steps of {DENOISER_BATCH}, loss {np.mean(losses[-200:]):.4f}")
    return denoiser.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("generator", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of the denoiser; the reader takes half of it")
    given = parser.parse_args()
    torch.manual_seed(SEED)
    drawn, photos = load_labels(given.drawn), load_labels(given.photos)
    mapping = MappingNetwork.from_pretrained(given.generator / "mapping").float().eval()
    reader = train_reader(drawn, given.minutes / 2)
    prototypes = fit_prototypes(photos)
    people = fit_people(drawn, prototypes)
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    with torch.no_grad():
        normal = torch.randn(STYLES, int(mapping.config["dim"]), generator=torch.Generator().manual_seed(SEED))
        styles = torch.cat([mapping(part, TRUNCATION) for part in normal.split(1000)])
    space = StyleSpace()
    space.fit(styles)
    denoiser = train_denoiser(styles, space, reader, prototypes, scheduler, given.minutes)
    made = {"space": space, "reader": reader, "prototypes": prototypes, "people": people, "denoiser": denoiser}
    for name, part in made.items():
        part.half().save_pretrained(given.out / name)
    scheduler.save_pretrained(given.out / "scheduler")


if __name__ == "__main__":
    main()
