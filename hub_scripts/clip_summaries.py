"""What a model says of labelled clips before its action head, and how much each part of what it says should count."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch.utils.data import DataLoader
from tqdm import tqdm

from .data.batches import collate
from .data.clips import ACTION_FORM, ActionClips, ClipSource, evaluation_form

_CANVAS = (256, 320)
# Clips that a part of a trained model is taught with.
VARIED = replace(ACTION_FORM, num_frames=24, canvas=_CANVAS, scale=(0.5, 1.3), frame_rate=(8.0, 15.0), backdrop=0.0)


def plain_clips(sources: Sequence[ClipSource], frame_rate: float) -> ActionClips:
    """Clips as they are, at one rate."""
    form = evaluation_form(replace(ACTION_FORM, num_frames=VARIED.num_frames), _CANVAS, frame_rate)
    return ActionClips(sources, form, train=False)


@torch.inference_mode()
def summarise_clips(model, clips: ActionClips, description: str) -> tuple[torch.Tensor, torch.Tensor]:
    """R and what follows it, (2, N, `config.summary_size`), and the classes (N,) of N clips.

    The first are seen in the actor's box, the second in the whole frame.

    Args:
        model: with an action head, in evaluation mode.
        clips: all of them with an actor.
        description: of the progress bar.
    """
    summaries, wanted = [], []
    for batch in tqdm(DataLoader(clips, collate_fn=collate), desc=description, unit="clip"):
        given = {name: batch[name] for name in ("pixel_values_videos", "frame_mask", "pixel_mask")}
        base = model.kinetrack(**given)
        inside, _ = model.describe_tubes(base, batch["region_boxes"], given["frame_mask"], given["pixel_mask"])
        summaries.append(torch.stack([inside, base.pooler_output]))
        wanted.append(batch["labels"])
    return torch.cat(summaries, 1), torch.cat(wanted)


def choose_weights(parts: torch.Tensor, wanted: torch.Tensor) -> np.ndarray:
    """The positive factors (P,) of P logits, added up, with the smallest negative log-likelihood.

    Args:
        parts: (P, V, N, C), each seen in V ways.
        wanted: (N,) classes.
    """

    def likelihood(logarithms):
        factors = torch.from_numpy(np.exp(logarithms)).to(parts.dtype)
        logits = torch.einsum("p,pvnc->vnc", factors, parts)
        return float(F.cross_entropy(logits.flatten(0, 1), wanted.repeat(parts.shape[1])))

    return np.exp(minimize(likelihood, np.zeros(len(parts)), method="Nelder-Mead").x)
