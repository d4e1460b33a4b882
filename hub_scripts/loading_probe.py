"""Loads a Hub folder as a stranger would and writes what comes out; run as a program by `loading_proof`.

    python loading_probe.py alone|package MODEL OUTPUT.json [SAVE_TO]

`alone` makes the package kinetrack impossible to import and trusts the folder's own code; `package` uses the installed
package on the same folder. This file imports nothing of KineTrack, so that it runs in either way.
"""

import hashlib
import json
import sys


class Without:
    """A finder of modules that does not find some packages, as if they were not installed."""

    def __init__(self, finder, names: tuple[str, ...]):
        self.finder, self.names = finder, names

    def find_spec(self, fullname, path=None, target=None):
        """What the finder finds, or None for the packages left out."""
        return None if fullname.partition(".")[0] in self.names else self.finder.find_spec(fullname, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def hide(*names: str) -> None:
    """Makes packages impossible to import, and proves it."""
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
    for name in names:
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can still be imported, so nothing would be proved.")


def digest(tensor) -> str:
    """Shape, type and every bit of a tensor."""
    array = tensor.detach().contiguous().numpy()
    return f"{tuple(array.shape)} {array.dtype} {hashlib.sha256(array.tobytes()).hexdigest()}"


def probe(model: str, trust: bool, save_to: str | None = None) -> dict[str, object]:
    """Loads everything the folder offers and runs it on made-up frames.

    Args:
        model: folder or Hub id.
        trust: `trust_remote_code`.
        save_to: folder into which everything is saved and loaded from again.

    Returns:
        Digests of the outputs, and the pipelines' answers, by name.
    """
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline

    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = np.random.default_rng(0).integers(0, 256, (20, 96, 128, 3), dtype=np.uint8)
    config = AutoConfig.from_pretrained(model, trust_remote_code=trust)
    whole = AutoModel.from_pretrained(model, trust_remote_code=trust).eval()
    classifier = AutoModelForVideoClassification.from_pretrained(model, trust_remote_code=trust).eval()
    processor = AutoVideoProcessor.from_pretrained(model, trust_remote_code=trust)
    found: dict[str, object] = {"classes": [type(item).__name__ for item in (config, whole, classifier, processor)]}
    inputs = processor(list(frames[:4]), size={"height": 96, "width": 128}, return_tensors="pt")
    with torch.no_grad():
        for name, network in (("model", whole), ("classifier", classifier)):
            output = network(**{key: inputs[key] for key in ("pixel_values_videos", "frame_mask", "pixel_mask")})
            for field in ("logits", "heatmap_logits", "distances", "embeddings", "spatial_attention"):
                if output.get(field) is not None:
                    found[f"{name}.{field}"] = digest(output[field])
    found["pixels"] = digest(inputs["pixel_values_videos"])
    # Whether an untrained model may be shared is for others to say; here it is to load.
    options = {"model": model, "trust_remote_code": trust, "allow_untrained": not config.trained}
    # A Hub folder says which task is meant when none is named.
    analyze = pipeline(None if trust else "video-analysis", **options)
    classify = pipeline("video-classification", **options)
    found["tasks"] = [analyze.task, classify.task]
    # So low that a trained model sees objects in noise: without any, tracker and people's actions would not run at all.
    found["video-analysis"] = analyze(frames, fps=12.5, threshold=1e-3)
    found["video-analysis"]["model"].pop("name")  # the place it was loaded from
    found["video-classification"] = classify(frames, fps=12.5)
    if save_to is not None:
        analyze.save_pretrained(save_to)
        if probe(save_to, trust) != found:
            raise SystemExit(f"Saved with save_pretrained and loaded again, {model} gives something else.")
    return found


if __name__ == "__main__":
    way, location, answer, *rest = sys.argv[1:]
    # The folder of this file is no place to import from: it holds modules named like libraries.
    sys.path.pop(0)
    if way == "alone":
        hide("kinetrack")
    else:
        import kinetrack  # noqa: F401
    result = probe(location, way == "alone", *rest)
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(result, file, sort_keys=True)
