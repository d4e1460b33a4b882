"""The figures of an evaluation as a Markdown page."""

TRACKING_COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1", "IDSW", "Frag", "FP", "FN")
ABLATION_NOTE = "reset: nothing is carried from frame to frame. uniform: α and β of the attention are uniform."


def evaluation_markdown(report: dict) -> str:
    """Tables of what `kinetrack.hub_scripts.evaluate.evaluate` returns."""
    lines = ["# Evaluation", "", f"Model: {report['model']}. Data: {report['data']}.", ""]
    if "tracking" in report:
        lines += _tracking_table(report["tracking"])
    for group, scores in report.get("actions", {}).items():
        lines += _action_table(group, scores)
    if any(key in report for key in ("people", "two_actors", "label_stability", "action_detection")):
        lines += _people_table(report)
    if "action_detection" in report:
        lines += _detection_table(report["action_detection"])
    if "people_labels" in report:
        lines += _labels_table(report["people_labels"])
    if "ablations" in report:
        table = _table(*ablation_table(report))
        lines += ["## Without parts of the model", "", ABLATION_NOTE, "", *table]
    speed = report["speed"]
    lines += ["## Speed", "", f"{speed['frames']} frames, {speed['frames_per_second']:.1f} frames a second end to end."]
    parts = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in speed["milliseconds"].items())
    lines += [f"Milliseconds a frame: {parts}.", ""]
    return "\n".join(lines)


def _table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table and an empty line after it."""
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _tracking_table(scores: dict) -> list[str]:
    rows = [
        [sequence, *(f"{row[key]:.1f}" if isinstance(row[key], float) else str(row[key]) for key in TRACKING_COLUMNS)]
        for sequence, row in scores.items()
    ]
    lines = ["## Tracking", "", *_table(["sequence", *TRACKING_COLUMNS], rows)]
    return [*lines, "By TrackEval, in per cent; MOTP is the mean IoU of matches, higher is better.", ""]


def _action_table(group: str, scores: dict) -> list[str]:
    summary = [
        str(scores["clips"]),
        *(f"{scores[key]:.1f}" for key in ("top1", "top5", "mean_class_accuracy")),
        f"{scores['expected_calibration_error']:.3f}",
    ]
    classes = [[name, f"{value:.1f}"] for name, value in scores["per_class"].items()]
    return [
        f"## Actions: {group}",
        "",
        *_table(["clips", "top-1", "top-5", "mean over classes", "calibration error"], [summary]),
        *_table(["class", "accuracy"], classes),
    ]


def _people_table(report: dict) -> list[str]:
    rows = []
    if people := report.get("people"):
        rows += [
            ["per-person top-1 on ground-truth boxes", f"{people['top1']:.1f} %"],
            ["… relative to the top-1 of the same clips", f"{people['relative_to_clip']:+.1f} points"],
        ]
    if pairs := report.get("two_actors"):
        rows += [
            [f"two actors side by side, both right ({pairs['pairs']} pairs)", f"{pairs['both_right']:.1f} %"],
            ["… against copying the clip's label to both", f"{pairs['gain']:+.1f} points"],
            ["… each of them right", f"{pairs['person_right']:.1f} %"],
        ]
        if "tracked_both_right" in pairs:
            rows.append(["… both right through the tracker's boxes", f"{pairs['tracked_both_right']:.1f} %"])
    if stability := report.get("label_stability"):
        top1 = ", ".join(f"{value:.1f} % at {rate} fps" for rate, value in stability["top1"].items())
        rows += [
            ["top-1 of the same clips played at other rates", top1],
            ["… spread", f"{stability['spread']:.1f} points"],
            ["… clips with one label at all rates", f"{stability['agreement']:.1f} %"],
        ]
    if detection := report.get("action_detection"):
        at = f"{detection['threshold']:g}"
        rows += [
            [f"frame-mAP@{at}", f"{detection['frame_map']:.3f}"],
            [f"video-mAP@{at}", f"{detection['video_map']:.3f}"],
        ]
    return ["## People's actions", "", *_table(["", ""], rows)]


def _detection_table(scores: dict) -> list[str]:
    rows = [[name, f"{value:.3f}", f"{scores['video_ap'][name]:.3f}"] for name, value in scores["frame_ap"].items()]
    note = (
        f"Tracks from a detection score of {scores['detection_threshold']:g} on; their boxes cover "
        f"{100 * scores['recall']:.1f} % of the labelled actors' boxes. People in the background count as false "
        "positives."
    )
    return ["## Action detection", "", note, "", *_table(["class", "frame AP", "video AP"], rows)]


def _labels_table(labels: dict) -> list[str]:
    rows = [
        [
            sequence,
            str(counts["identities"]),
            *(", ".join(f"{name} {count}" for name, count in counts[key].items()) for key in ("labels", "likeliest")),
        ]
        for sequence, counts in labels.items()
    ]
    return ["## Labels of the people followed", "", *_table(["sequence", "identities", "labels", "likeliest"], rows)]


def ablation_table(report: dict) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of HOTA, IDF1 and top-1 with everything, and without each part.

    Args:
        report: of an evaluation with ablations.
    """
    variants = {"as shipped": report, **report["ablations"]}
    sequences = list(report.get("tracking", {}))
    groups = list(report.get("actions", {}))
    rows = []
    for sequence in sequences:
        for key in ("HOTA", "IDF1"):
            rows.append([f"{sequence}, {key}", *(f"{v['tracking'][sequence][key]:.1f}" for v in variants.values())])
    for group in groups:
        rows.append([f"{group}, top-1", *(f"{v['actions'][group]['top1']:.1f}" for v in variants.values())])
    if "people" in report:
        rows.append(["per-person top-1", *(f"{v['people']['top1']:.1f}" for v in variants.values())])
    return ["", *variants], rows
