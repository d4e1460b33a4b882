"""The experiments by name, each loaded only when it is wanted."""

from importlib import import_module

from .experiment import Experiment

_PLACES = {
    "temporal-module": ("temporal_module", "TemporalModule"),
    "arrow-of-time": ("arrow_of_time", "ArrowOfTime"),
    "identity": ("identity", "Identity"),
    "attention": ("attention", "Attention"),
    "multitask": ("multitask", "Multitask"),
    "long-video": ("long_video", "LongVideo"),
    "attention-window": ("attention_window", "AttentionWindow"),
    "backbone": ("backbone", "Backbone"),
    "backbone-tracking": ("backbone_tracking", "BackboneTracking"),
    "sequence-length": ("sequence_length", "SequenceLength"),
    "sequence-length-fights": ("fight_length", "FightLength"),
    "sequence-length-tracking": ("tracking_length", "TrackingLength"),
    "captioning": ("captioning", "Captioning"),
}
NAMES = tuple(_PLACES)


def load_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _PLACES:
        raise ValueError(f"There is no experiment {name!r}. Choose one of {', '.join(NAMES)}.")
    module, kind = _PLACES[name]
    return getattr(import_module(f".{module}", __package__), kind)()
