"""The report's first sentences: what a reader who reads nothing else must know."""

from typing import Any

from diffpriv.pipelines.evaluation.adaptive import TIMES_CHANCE, beats_chance
from diffpriv.pipelines.evaluation.faces import PROTECTED

KINDS = {"own photo": "the very photo an output was made from", "other photo": "other photos of the person"}


def verdict(document: dict[str, Any]) -> dict[str, Any]:
    """{"sentences": [...], "adaptive attacker beats twice chance": true | false | None, "independent judge": bool}"""
    sentences = [*_adaptive(document), *_naive(document), _utility(document)]
    judges = document["made"]["judges"]
    independent = any(one["independent"] for one in judges)
    if not independent:
        named = "; ".join(f"{one['name']}: {one['flag']}" for one in judges)
        sentences.append(
            f"No independent judge looked ({named}). Give one with --judge before you rely on the privacy figures."
        )
    if not document["data"]["identities known"]:
        sentences.append("Nobody said who is who, so every face counted as a person of its own: linkage was not measured.")
    found = document["adaptive"].get("variants", {}).get(PROTECTED)
    beaten = beats_chance(found["tar"]) if found else None
    return {
        "sentences": [one for one in sentences if one],
        "adaptive attacker beats twice chance": None if beaten is None else bool(beaten),
        "beaten": beaten,
        "independent judge": independent,
    }


def _adaptive(document: dict[str, Any]) -> list[str]:
    adaptive = document["adaptive"]
    if "skipped" in adaptive:
        return [f"No adaptive attacker was tried: {adaptive['skipped']}."]
    found = adaptive["variants"][PROTECTED]
    beaten = beats_chance(found["tar"])
    who = f"An attacker trained on {adaptive['attacker']['pairs']} pairs of other people ({found['chosen']})"
    if not beaten:
        return [f"{who} does not beat {TIMES_CHANCE:g} × chance on people it never saw: {_rates(found['tar'])}."]
    sentences = [f"{who} BEATS {TIMES_CHANCE:g} × chance on people it never saw: {_rates(found['tar'])}."]
    parts = adaptive["parts"]
    shown = [f"{view} {_percent(one['tar']['0.01'][kind])}" for kind in list(beaten)[:1] for view, one in parts.items()]
    kind = next(iter(beaten))
    sentences.append(f"What it was shown, and its TAR at FAR 1 % ({KINDS[kind]}): {', '.join(shown)}.")
    return sentences


def _rates(tar: dict[str, Any]) -> str:
    said = []
    for kind, words in KINDS.items():
        values = [
            f"{_percent(kinds[kind])} at FAR {float(far):.1%}" for far, kinds in tar.items() if kinds[kind]["value"] is not None
        ]
        if values:
            said.append(f"TAR {', '.join(values)} against {words}")
    return "; ".join(said)


def _naive(document: dict[str, Any]) -> list[str]:
    """The most that any judge still sees."""
    said = []
    for name, judged in document["privacy"].items():
        tar = judged["variants"][PROTECTED]["tar"]["0.001"]
        clean = judged["variants"]["original"]["tar"]["0.001"]["naive other photo"]
        own, other = tar["naive own photo"], tar["naive other photo"]
        if own["value"] is None:
            continue
        more = (
            f", {_percent(other)} match other photos of the person (clean photos: {_percent(clean)})" if other["count"] else ""
        )
        said.append(f"{name}, untrained, at FAR 0.1 %: {_percent(own)} of outputs match their own original{more}.")
    return said


def _utility(document: dict[str, Any]) -> str:
    used = document["utility"][PROTECTED]
    kept = used["downstream"]["kept"]
    learned = "" if kept is None else f"; models trained on the output keep {kept:.0%} of what they learn from clean faces"
    near = _percent(used["landmarks near"])
    return (
        f"A face is found in {_percent(used['detection rate'])} of the outputs, with its landmarks in place in {near}{learned}."
    )


def _percent(rate: dict[str, Any]) -> str:
    return "–" if rate["value"] is None else f"{rate['value']:.1%}"
