"""What every model card says in the same words."""

HEADINGS = (
    "Architecture",
    "How to use",
    "Labels",
    "Training",
    "Results",
    "Speed",
    "Intended use and limits",
    "Bias and privacy",
    "Citation",
)

USE = """\
With Transformers and no package of KineTrack: `pip install {packages}`.
`MODEL` is the Hub name of this repository, or the folder that `kinetrack bundle` made.

```python
import torch
from transformers import AutoModel, AutoVideoProcessor, pipeline

model = AutoModel.from_pretrained("MODEL", trust_remote_code=True)
processor = AutoVideoProcessor.from_pretrained("MODEL", trust_remote_code=True)
with torch.no_grad():
    outputs = model(**processor("video.mp4", num_frames=16))  # one clip; without `num_frames` every frame of the video

# The pipelines go through a video of any length, frame by frame, in bounded memory.
classify = pipeline("video-classification", model="MODEL", trust_remote_code=True)
print(classify("video.mp4", top_k=3))
analyze = pipeline("video-analysis", model="MODEL", trust_remote_code=True)  # tracks, actions, who does what
print(analyze("video.mp4")["tracks"])
```

With the package:

```python
import kinetrack

analysis = kinetrack.analyze("video.mp4", model="{name}", output="results")
```

On the command line:

```sh
kinetrack analyze video.mp4 --model {name}
```"""

PRIVACY = """\
Tracking people is sensitive: have a lawful basis, keep no more than needed, and do not use it to identify, rate or
discriminate against individuals, or to make decisions about them. The model recognises no faces and cannot say who
somebody is; its embeddings compare people within one video. All processing is local.

It does worse on views, light, clothing and bodies unlike those in its training data. How its errors differ between
groups of people was not measured."""

CITATION = """\
The architecture is that of the paper; the weights and the code are those of KineTrack.

```bibtex
@misc{kinetrack_paper,
  title = {Efficient Spatial-Temporal Modeling for Real-Time Video Analysis},
  eprint = {2507.22421},
  archivePrefix = {arXiv},
  year = {2025}
}

@software{kinetrack,
  title = {KineTrack: one video model for actions and tracks},
  year = {2026}
}
```"""
