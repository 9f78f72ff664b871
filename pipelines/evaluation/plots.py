"""The report's plots, as SVG text to stand inside the page: no script, no font file, axes labelled with their units."""

import io
import re
from itertools import pairwise
from typing import Any

from diffpriv.pipelines.evaluation.faces import ORIGINAL, PROTECTED

SIZE = (5.4, 3.5)  # inches: near one to one on a telephone, so that labels stay readable
COLOURS = ("#1f5fa8", "#c8501e", "#2e7d4f", "#7b4fa3", "#8a6d1d", "#555555")
MARKS = ("o", "s", "^", "D", "v", "P")


def plots(document: dict[str, Any]) -> dict[str, str]:
    """Name -> SVG element; a plot that has nothing to show is missing."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    matplotlib.rcParams.update({"grid.color": "#e4e4e4", "svg.fonttype": "path", "figure.dpi": 100})
    drawn = {
        "trade-off": _trade_off(document),
        "similarity": _similarity(document),
        "attackers": _attackers(document),
        "recovery": _recovery(document),
        "utility": _utility(document),
    }
    return {name: svg for name, svg in drawn.items() if svg}


def _figure() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, name: str, told: str) -> str:
    """One inline element: sized by the page, its ids its own, its content told in words."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for old in set(re.findall(r'id="([^"]+)"', text)):
        text = re.sub(rf'(id="|href="#|url\(#){re.escape(old)}(?=["\)])', rf"\g<1>{name}-{old}", text)
    text = re.sub(r'<svg ([^>]*?)\s*height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)\s*width="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{told}" ', 1)


def _trade_off(document: dict[str, Any]) -> str:
    figure, axes = _figure()
    judge = next(iter(document["privacy"]))
    variants = document["privacy"][judge]["variants"]
    for place, (name, used) in enumerate(document["utility"].items()):
        tar = variants[name]["tar"]["0.01"]
        rate = tar["naive other photo"] if tar["naive other photo"]["count"] else tar["naive own photo"]
        kept = used["downstream"]["kept"]
        useful = kept if kept is not None else used["landmarks near"]["value"]
        if rate["value"] is None or useful is None:
            continue
        label = "this output" if name == PROTECTED else name
        axes.plot(100 * (1 - rate["value"]), 100 * useful, MARKS[place % 6], color=COLOURS[place % 6], ms=9, label=label)
    axes.set(xlim=(-5, 105), ylim=(-5, 110))
    axes.set_xlabel(f"faces not matched at FAR 1 %, {judge} (%)")
    axes.set_ylabel("learned from it, of what clean faces teach (%)")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, "trade-off", "Privacy against utility, one mark per variant")


def _similarity(document: dict[str, Any]) -> str:
    figure, axes = _figure()
    judge, found = next(iter(document["privacy"].items()))
    edges = found["distributions"]["edges"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    for place, (name, densities) in enumerate(found["distributions"]["densities"].items()):
        axes.plot(middles, densities, color=COLOURS[place % 6], lw=1.8, ls=("-", "--", "-", ":")[place % 4], label=name)
    if (threshold := found["thresholds"].get("0.001")) is not None:
        axes.axvline(threshold, color="#222222", lw=1)
        axes.annotate("FAR 0.1 %", (threshold, 0.97), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, va="top")
    axes.set_xlabel(f"similarity, {judge} (cosine)")
    axes.set_ylabel("density (pairs per unit of similarity)")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "similarity", "How alike pairs of faces are, clean and protected")


def _attackers(document: dict[str, Any]) -> str:
    variants = document["adaptive"].get("variants")
    if not variants:
        return ""
    figure, axes = _figure()
    for place, (name, found) in enumerate(variants.items()):
        label = "this output" if name == PROTECTED else name
        far, tar = ([max(100 * value, 0.05) for value in found["roc"][side]] for side in ("far", "tar"))
        axes.plot(far, tar, color=COLOURS[(place + 1) % 6], lw=1.8, ls=("-", "--", "-.", ":")[place % 4], label=label)
    axes.plot([0.1, 100], [0.1, 100], color="#222222", lw=1, label="chance")
    axes.plot([0.1, 50], [0.2, 100], color="#222222", lw=1, ls=":", label="2 × chance")
    axes.set(xscale="log", yscale="log", xlim=(0.1, 100), ylim=(0.05, 110))
    axes.set_xlabel("strangers accepted, FAR (%)")
    axes.set_ylabel("genuine pairs accepted, TAR (%)")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "attackers", "Trained attackers: genuine pairs accepted against strangers accepted")


def _recovery(document: dict[str, Any]) -> str:
    tiers = document["recovery"].get("tiers")
    if not tiers:
        return ""
    figure, axes = _figure()
    for place, (tier, found) in enumerate(tiers.items()):
        named = {name: one["PSNR / dB"] for name, one in found.items() if one.get("recovered")}
        places = [list(found).index(name) + (place - 1) * 0.27 for name in named]
        axes.bar(places, list(named.values()), 0.25, color=COLOURS[place % 6], label=f"tier {tier}")
    names = list(next(iter(tiers.values())))
    axes.set_xticks(range(len(names)), [name.replace(" and ", "\nand ").replace(" ", "\n", 1) for name in names], fontsize=8)
    axes.set_xlabel("how the published picture was stored")
    axes.set_ylabel("PSNR of the recovered crop (dB)")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure, "recovery", "Closeness of recovered faces per tier and storage")


def _utility(document: dict[str, Any]) -> str:
    figure, axes = _figure()
    names = [name for name in document["utility"] if name != ORIGINAL]
    bars = {
        "face found": lambda used: used["detection rate"]["value"],
        "landmarks in place": lambda used: used["landmarks near"]["value"],
        "learned from it": lambda used: used["downstream"]["kept"],
    }
    for place, (label, value) in enumerate(bars.items()):
        heights = [100 * (value(document["utility"][name]) or 0) for name in names]
        axes.bar([row + (place - 1) * 0.27 for row in range(len(names))], heights, 0.25, color=COLOURS[place], label=label)
    axes.set_xticks(range(len(names)), ["this output" if name == PROTECTED else name for name in names])
    axes.set_ylim(0, 110)
    axes.set_xlabel("transformation")
    axes.set_ylabel("share (%)")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure, "utility", "What is left to use: faces found, landmarks in place, downstream accuracy kept")
