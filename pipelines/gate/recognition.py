"""How alike an output may be to an original: the gate's limits, from the thresholds of the recogniser it asks."""

from statistics import NormalDist

from diffpriv.errors import ModelError
from diffpriv.recognizers import Recognizer

FALSE_ALARM = 0.001  # per output face, whatever the number of originals it is compared with
FALSE_ACCEPT = (0.01, 0.001)  # rates at which builtin recognisers are calibrated


def similarity_limits(recognizer: Recognizer, given: float | None, originals: int) -> tuple[float, float]:
    """(limit to a face's own original, limit to the most similar of `originals` others).

    The own limit is `given`, or the recogniser's threshold at a false-accept rate of 0.001. Among many strangers one is always
    somewhat alike: the second limit keeps the rate of false alarms per face at FALSE_ALARM, by the normal distribution through
    the recogniser's thresholds at 0.01 and 0.001. Where only one is known, or a limit was given, both are the same.
    """
    if given is not None:
        return given, given
    own = recognizer.threshold(FALSE_ACCEPT[1])
    try:
        loose = recognizer.threshold(FALSE_ACCEPT[0])
    except ModelError:
        return own, own
    normal = NormalDist()
    z_loose, z_own = (normal.inv_cdf(1 - rate) for rate in FALSE_ACCEPT)
    spread = max(0.0, own - loose) / (z_own - z_loose)
    z_many = normal.inv_cdf(1 - FALSE_ALARM / max(1, originals))
    return own, min(max(own, 0.999), own + spread * max(0.0, z_many - z_own))
