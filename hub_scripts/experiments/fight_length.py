"""The same question on longer clips: surveillance video of two seconds or more, fight or not."""

from .experiment import Variant
from .features import FIGHTS
from .sequence_length import SequenceLength
from .sequence_length_report import CLIPS


class FightLength(SequenceLength):
    """See the module's text."""

    name = "sequence-length-fights"
    question = (
        "`sequence-length` on clips that last longer: is it a fight or not, from T = 8, 16 and 32 frames spread over a "
        "clip, and from all of its frames? (Five neighbours in number, which share a camera, count as one film.)"
    )
    variants = {
        name: Variant(SequenceLength.variants[name].about, minutes)
        for name, minutes in zip(CLIPS, (0.4, 0.6, 1.0, 2.0), strict=True)
    }
    _labelled = FIGHTS
