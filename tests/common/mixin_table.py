"""Which of Transformers' common tests KineTrack does not run as they are, and why. Nothing else skips or differs."""

OVERRIDES = {}
SKIPS = {}
LIBRARY_SKIPS = {}
