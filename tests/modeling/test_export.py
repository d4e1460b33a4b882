"""Export and compilation: the step form with its state in and out, and the clip form, are clean graphs."""

import torch
from kinetrack.modeling.modeling_kinetrack import KineTrackState
from torch import nn


class Step(nn.Module):
    """One frame and a flat state in, maps and a flat state out: what runs on an edge device."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, frame, hidden, cache, scores, features, motion):
        output = self.model(frame, state=KineTrackState(tuple(hidden), tuple(cache), scores, features, motion))
        state = output.state
        return (
            output.logits,
            output.heatmap_logits,
            output.distances,
            output.embeddings,
            list(state.hidden),
            list(state.cache),
            state.scores,
            state.features,
            state.motion,
        )


def flat(state):
    return list(state.hidden), list(state.cache), state.scores, state.features, state.motion


def test_exported_step_equals_the_model_over_a_stream(make_model, make_clip):
    model = make_model(attention_window=4, dtype=torch.float32)
    clip = make_clip(1, 7, dtype=torch.float32)
    with torch.no_grad():
        state = model(clip[:, :1]).state
        program = torch.export.export(Step(model), (clip[:, 1:2], *flat(state)))
        exported_state = flat(state)
        for t in range(1, 7):
            wanted = model(clip[:, t : t + 1], state=state)
            state = wanted.state
            logits, heatmap, distances, embeddings, *exported_state = program.module()(
                clip[:, t : t + 1], *exported_state
            )
            torch.testing.assert_close(logits, wanted.logits)
            torch.testing.assert_close(heatmap, wanted.heatmap_logits)
            torch.testing.assert_close(distances, wanted.distances)
            torch.testing.assert_close(embeddings, wanted.embeddings)


def test_clip_form_traces_as_one_graph(make_model, make_clip):
    model = make_model(attention_window=4, num_propagation_layers=1, dtype=torch.float32)
    clip, mask = make_clip(1, 8, dtype=torch.float32), torch.ones(1, 64, 96, dtype=torch.bool)
    mask[:, :, 72:] = False
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with torch.no_grad():
        got, wanted = compiled(clip, pixel_mask=mask), model(clip, pixel_mask=mask)
    torch.testing.assert_close(got.logits, wanted.logits)
    torch.testing.assert_close(got.heatmap_logits, wanted.heatmap_logits)
