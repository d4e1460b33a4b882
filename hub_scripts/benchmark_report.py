"""A benchmark's report as Markdown tables, one a part."""


def format_report(report: dict) -> str:
    """All parts that a report has."""
    machine = report["machine"]
    load = " to ".join(f"{value:.1f}" for value in machine.get("load") or [] if value is not None)
    lines = [
        f"{report['model']}, {machine['date'][:10]}: {device_name(machine)}, "
        f"{machine['threads']} threads on {machine['cores']} cores, torch {machine['torch']}, load {load or 'unknown'}."
    ]
    for part, table in _TABLES.items():
        if part in report:
            lines += ["", *table(report[part])]
    return "\n".join(lines)


def device_name(machine: dict) -> str:
    """What a report's figures were measured on; of a GPU only where it was used."""
    on_gpu = machine.get("device", "cpu").startswith("cuda")
    return machine["accelerator"] if on_gpu else machine["processor"]


def _row(*cells) -> str:
    return "| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.2f}" for cell in cells) + " |"


def _head(*names: str, words: int = 1) -> list[str]:
    """Two lines; the first `words` columns hold words, the others figures."""
    return [_row(*names), "|---" * words + "|---:" * (len(names) - words) + "|"]


def model_input(row: dict) -> str:
    """How large the input of a row was, as it is written everywhere."""
    return "×".join(map(str, row["model_input"]))


def _speed(rows: list[dict]) -> list[str]:
    stages = list(rows[0]["milliseconds"])
    lines = _head(
        "video",
        "model input",
        "backend",
        "frames/s",
        "a result every, ms",
        "p95, ms",
        *(f"{s}, ms" for s in stages),
        words=3,
    )
    for row in rows:
        latency = row["latency_ms"]
        figures = [row["frames_per_second"], latency["p50"], latency["p95"], *row["milliseconds"].values()]
        lines.append(_row(row["video"], model_input(row), row["backend"], *(f"{figure:.1f}" for figure in figures)))
    return lines


def _drawing(entry: dict) -> list[str]:
    height, width = entry["size"]
    return [f"Drawing {entry['objects']} tracks: {entry['ms']['p50']:.1f} ms a frame of {width}×{height}."]


def _backends(rows: list[dict]) -> list[str]:
    lines = _head("step by", "model input", "p50, ms", "p95, ms", "processor time, ms", "difference", words=2)
    for row in rows:
        figures = [f"{row['ms'][name]:.1f}" for name in ("p50", "p95", "cpu")]
        lines.append(_row(row["backend"], model_input(row), *figures, f"{row['difference']:.0e}"))
    return lines


def _parts(rows: list[dict]) -> list[str]:
    names = list(rows[0]["parts"])
    lines = _head(
        "preset",
        "model input",
        "parameters, M",
        "numbers",
        "form",
        "p50, ms",
        "p95, ms",
        "ms a frame",
        *(f"{name}, ms" for name in names),
        "GFLOPs",
        "peak, MiB",
        words=5,
    )
    for row in rows:
        form = f"T = {row['frames']}" if row["frames"] else "step"
        about = (row["preset"], model_input(row), f"{row['parameters']:.1f}", row["dtype"], form)
        peak = "–" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        figures = [row["ms"]["p50"], row["ms"]["p95"], row["ms_per_frame"], *row["parts"].values(), row["gflops"]]
        lines.append(_row(*about, *(f"{figure:.1f}" for figure in figures), peak))
    return lines


def _comparisons(report: dict) -> list[str]:
    lines = _head("ratio", "value", "of, ms", "our goal", "met", words=1)
    for goal in report["goals"]:
        lines.append(_row(goal["name"], goal["value"], goal["ms"], goal["limit"], "yes" if goal["met"] else "no"))
    lines += ["", *_head("16 frames", "parameters, M", "own input, ms", "at 224², ms", "KineTrack-base, ms", "ratio")]
    for row in report["rivals"]:
        times = row["ms"]
        same = f"{times['rival']['p50']:.0f}" if "rival" in times else "–"
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        own = f"{times['own input']['p50']:.0f} ({'×'.join(map(str, row['input']))})"
        lines.append(_row(row["name"], row["parameters"], own, same, f"{times['KineTrack']['p50']:.0f}", ratio))
    return lines


def _trackers(entry: dict) -> list[str]:
    lines = _head("tracking, one frame", "model input", "p50, ms", "processor time, ms", words=2)
    for name, row in entry.items():
        lines.append(_row(name, model_input(row), row["ms"]["p50"], row["ms"]["cpu"]))
    return lines


def _memory(entry: dict) -> list[str]:
    lines = _head("1080p file, all outputs on", "peak memory, MiB")
    lines += [f"| {seconds} s | {peak:.0f} |" for seconds, peak in entry["peak_mib"].items()]
    return [*lines, f"| ratio | {entry['ratio']:.3f} |"]


def _recurrence(rows: list[dict]) -> list[str]:
    lines = _head(
        "T", "scan, ms", "`unbind` loop, ms", "ratio", "scan keeps, KiB/frame", "loop keeps, KiB/frame", words=0
    )
    for row in rows:
        lines.append(
            f"| {row['frames']} | {row['scan_ms']:.2f} | {row['loop_ms']:.2f} | {row['ratio']:.2f} "
            f"| {row['scan_bytes_per_frame'] / 1024:.0f} | {row['loop_bytes_per_frame'] / 1024:.0f} |"
        )
    return lines


def _association(entry: dict) -> list[str]:
    from . import benchmark_association

    if "scores" in entry:
        return benchmark_association.format_report(entry).splitlines()
    times = entry["milliseconds"]
    names = list(next(iter(times.values())))
    lines = _head("objects", *(f"{name}, ms" for name in names), words=0)
    return lines + [_row(str(count), *(row[name] for name in names)) for count, row in times.items()]


_TABLES = {
    "speed": _speed,
    "drawing": _drawing,
    "backends": _backends,
    "parts": _parts,
    "comparisons": _comparisons,
    "trackers": _trackers,
    "memory": _memory,
    "recurrence": _recurrence,
    "association": _association,
}
