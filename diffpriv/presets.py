"""Settings of the method by name. Each number was measured with `benchmarks/privacy.py`, or is the paper's.

`paper` keeps the released code's reference settings where they carry over to the builtin model (steps, strength, thresholds and
energy weights); `quality` and `fast` are ours.
"""

from dataclasses import dataclass, replace
from typing import Any

from diffpriv.errors import MisuseError
from diffpriv.generator.style_generator import StyleSettings


@dataclass(frozen=True)
class Preset:
    """One task's settings.

    Attributes:
        few_steps: steps of protection by a model that is trained to need few (`diffpriv.training.adversarial`), one UNet
            evaluation each, from keyed noise alone and with new keyed noise at each; 0 samples from it as from any other.
        steps: steps of protection by any other model, one or two UNet evaluations each.
        order: 1 steps by DDIM, 2 by DPM-Solver++ (2M), which needs half as many steps for the same picture.
        strength: share of the schedule protection starts at; 1 starts from the keyed noise alone.
        temperature: factor on the keyed noise; below 1 gives smoother, more ordinary faces (1 is the model's own spread).
        conditional_from: key-E conditions timesteps at or above this one; 1000 is never.
        contrast: weight of the stage tokens' effect (classifier-free guidance); other than 1 it takes two evaluations for each
            step in the middle of the schedule.
            With 1 the lower timesteps are unconditional; with others, and in few steps, they are told of somebody who does not
            exist.
        guidance_scale: length of a guided step as a share of the latent's RMS.
        guidance_every: guide each k-th step, counted from the last that may be guided.
        guidance_above: no step below this timestep is guided: what guidance does to a face that is nearly done, no later step
            makes part of it.
        guidance_last: further guided steps on the finished latent, without the denoiser: what a recogniser is to know has to be
            there at the end.
        margin: similarity to the original below which anonymize stops pushing.
        inversion_steps, inversion_refinements: of key-I; recovery runs the same number of steps.
        micro_batch: faces to a batch, whose shape is fixed because bits depend on it.
        refinement_steps: of key-E for each face, by gradient descent from what amortised MSI gives (`diffpriv.refinement`).
        candidates: of each face, sampled side by side, in `anonymize` repelling each other; the first that passes is published.
    """

    few_steps: int
    steps: int
    order: int
    strength: float
    temperature: float
    conditional_from: int
    contrast: float
    guidance_scale: float
    guidance_every: int
    guidance_above: int
    margin: float
    inversion_steps: int
    inversion_refinements: int
    micro_batch: int
    guidance_last: int = 0
    refinement_steps: int = 0
    candidates: int = 1


_OURS = Preset(
    few_steps=6,
    steps=12,
    order=2,
    strength=1.0,
    temperature=1.0,
    conditional_from=1000,
    contrast=2.0,
    guidance_scale=0.08,
    guidance_every=2,
    guidance_above=300,
    margin=0.25,
    inversion_steps=4,
    inversion_refinements=2,
    micro_batch=8,
)
_FAST = replace(_OURS, few_steps=4, steps=5, inversion_refinements=1, micro_batch=16)
_PAPER = replace(
    _OURS,
    few_steps=0,
    order=1,
    contrast=1.0,
    guidance_every=1,
    guidance_above=0,
    margin=0.0,
    inversion_refinements=0,
    refinement_steps=30,
)
# Hiding is an optimisation: it needs more and smaller steps than a new face does.
_HIDE: dict[str, Any] = {"conditional_from": 600, "guidance_scale": 0.05, "guidance_every": 1, "guidance_above": 0}

PRESETS: dict[tuple[str, str], Preset] = {
    ("quality", "anonymize"): _OURS,
    ("quality", "hide"): replace(_OURS, few_steps=12, guidance_last=10, **_HIDE),
    ("fast", "anonymize"): _FAST,
    ("fast", "hide"): replace(_FAST, few_steps=8, guidance_last=8, **_HIDE),
    ("paper", "anonymize"): replace(
        _PAPER,
        steps=50,
        strength=0.6,
        conditional_from=400,
        guidance_scale=0.01,
        inversion_steps=50,
        micro_batch=4,
        candidates=2,
    ),
    ("paper", "hide"): replace(
        _PAPER, steps=100, strength=0.8, conditional_from=600, guidance_scale=0.015, inversion_steps=100
    ),
}


def load_preset(name: str, task: str) -> Preset:
    """The settings of a preset for a task.

    Raises:
        MisuseError: no such preset or task.
    """
    try:
        return PRESETS[name, task]
    except KeyError:
        known = sorted({preset for preset, _ in PRESETS})
        raise MisuseError(f'No preset "{name}" for the task "{task}".', advice=f"Choose one of: {', '.join(known)}.") from None


STYLE_SETTINGS = {
    "quality": StyleSettings(draws=4, guidance_last=40),
    "fast": StyleSettings(draws=4, drawings=2, steps=20, guidance_last=32, largest_side=256),
}


def load_style_settings(name: str) -> StyleSettings | None:
    """How a preset samples style codes; None of one that draws from spatial latents (`paper`)."""
    return STYLE_SETTINGS.get(name)
