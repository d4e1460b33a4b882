"""Pixels in, meaning out: decoding, processor, tracker, session, analysis."""
