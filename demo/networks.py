"""The models of a demo: loaded once, shared by all visitors."""

import threading

from ..processing.loading import load_model
from .options import DemoOptions


class Networks:
    """Loads each model when it is first wanted; sessions share nothing but its weights.

    Args:
        options: which models there are.
    """

    def __init__(self, options: DemoOptions):
        self.options = options
        self._loaded: dict[str, tuple] = {}
        self._lock = threading.Lock()

    def get(self, name: str | None = None) -> tuple:
        """`(model, processor)` of a name from `options.models`; the first one when None.

        Raises:
            ValueError: another name. A visitor cannot make the server load anything else.
            FileNotFoundError, ValueError: see `load_model`.
        """
        name = name or self.options.models[0]
        if name not in self.options.models:
            raise ValueError(f"There is no model {name!r} here; there is {', '.join(self.options.models)}.")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_model(name, self.options.device)
            return self._loaded[name]
