"""KineTrack: one real-time video model that recognises actions, tracks objects and says who does what.

Importing this package is cheap: PyTorch and Transformers load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .hub_scripts.registration import register_when_needed

__version__ = "0.1.0"

_HOME_OF = {
    "KineTrackConfig": ".configuration.configuration_kinetrack",
    "KineTrackModel": ".modeling.modeling_kinetrack",
    "KineTrackForVideoClassification": ".modeling.modeling_kinetrack",
    "KineTrackForObjectTracking": ".modeling.modeling_kinetrack",
    "KineTrackForVideoAnalysis": ".modeling.modeling_kinetrack",
    "KineTrackVideoProcessor": ".processing.video_processing_kinetrack",
    "KineTrackSession": ".processing.session_kinetrack",
    "KineTracker": ".processing.tracking_kinetrack",
    "VideoAnalysis": ".processing.results",
    "analyze": ".processing.analyze",
    "load_model": ".processing.loading",
    "stream": ".processing.streaming",
}

if TYPE_CHECKING:  # the same names for editors and type checkers, which do not run __getattr__
    from .configuration.configuration_kinetrack import KineTrackConfig as KineTrackConfig
    from .modeling.modeling_kinetrack import KineTrackForObjectTracking as KineTrackForObjectTracking
    from .modeling.modeling_kinetrack import KineTrackForVideoAnalysis as KineTrackForVideoAnalysis
    from .modeling.modeling_kinetrack import KineTrackForVideoClassification as KineTrackForVideoClassification
    from .modeling.modeling_kinetrack import KineTrackModel as KineTrackModel
    from .processing.analyze import analyze as analyze
    from .processing.loading import load_model as load_model
    from .processing.results import VideoAnalysis as VideoAnalysis
    from .processing.session_kinetrack import KineTrackSession as KineTrackSession
    from .processing.streaming import stream as stream
    from .processing.tracking_kinetrack import KineTracker as KineTracker
    from .processing.video_processing_kinetrack import KineTrackVideoProcessor as KineTrackVideoProcessor

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    """Loads a public name from its home the first time it is used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


register_when_needed()
