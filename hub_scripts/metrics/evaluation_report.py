"""The figures of an evaluation as a Markdown page."""

TRACKING_COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1", "IDSW", "Frag", "FP", "FN")


def evaluation_markdown(report: dict) -> str:
    """Tables of what `kinetrack.hub_scripts.evaluate.evaluate` returns."""
    lines = ["# Evaluation", "", f"Model: {report['model']}. Data: {report['data']}.", ""]
    if "tracking" in report:
        lines += _tracking_table(report["tracking"])
    for group, scores in report.get("actions", {}).items():
        lines += _action_table(group, scores)
    speed = report["speed"]
    lines += ["## Speed", "", f"{speed['frames']} frames, {speed['frames_per_second']:.1f} frames a second end to end."]
    parts = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in speed["milliseconds"].items())
    lines += [f"Milliseconds a frame: {parts}.", ""]
    return "\n".join(lines)


def _tracking_table(scores: dict) -> list[str]:
    lines = ["## Tracking", "", "| sequence | " + " | ".join(TRACKING_COLUMNS) + " |"]
    lines.append("|---" * (len(TRACKING_COLUMNS) + 1) + "|")
    for sequence, row in scores.items():
        cells = [f"{row[key]:.1f}" if isinstance(row[key], float) else str(row[key]) for key in TRACKING_COLUMNS]
        lines.append(f"| {sequence} | " + " | ".join(cells) + " |")
    return [*lines, "", "By TrackEval, in per cent; MOTP is the mean IoU of matches, higher is better.", ""]


def _action_table(group: str, scores: dict) -> list[str]:
    lines = [
        f"## Actions: {group}",
        "",
        "| clips | top-1 | top-5 | mean over classes | calibration error |",
        "|---" * 5 + "|",
    ]
    lines.append(
        f"| {scores['clips']} | {scores['top1']:.1f} | {scores['top5']:.1f} | {scores['mean_class_accuracy']:.1f} "
        f"| {scores['expected_calibration_error']:.3f} |"
    )
    lines += ["", "| class | accuracy |", "|---|---|"]
    return [*lines, *(f"| {name} | {value:.1f} |" for name, value in scores["per_class"].items()), ""]
