"""What a look at a data set found: what is there, what is broken and why."""

from dataclasses import dataclass, field

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file or folder.

    Attributes:
        severity: "error" where training or evaluation would fail or be wrong, else "warning".
        where: the file, the sequence or the class.
        what: what is wrong and what to do.
    """

    severity: str
    where: str
    what: str


@dataclass
class DataReport:
    """All that was found at a path.

    Attributes:
        path: where.
        lines: what is there, to be read.
        problems: what is wrong.
        healthy: what can be drawn: `ClipSource`s by task.
    """

    path: str
    lines: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    healthy: dict[str, list] = field(default_factory=dict)

    def error(self, where, what: str) -> None:
        """Notes something that would fail."""
        self.problems.append(Problem(ERROR, str(where), what))

    def warn(self, where, what: str) -> None:
        """Notes something that may be meant."""
        self.problems.append(Problem(WARNING, str(where), what))

    @property
    def failed(self) -> bool:
        """Whether anything is an error."""
        return any(problem.severity == ERROR for problem in self.problems)

    def text(self) -> str:
        """The report as text."""
        kinds = [problem.severity for problem in self.problems]
        lines = [f"{self.path}", *(f"  {line}" for line in self.lines), ""]
        lines += [f"{kind:8} {p.where}: {p.what}" for kind, p in zip(kinds, self.problems, strict=True)]
        lines.append(
            f"{kinds.count(ERROR)} errors, {kinds.count(WARNING)} warnings."
            if kinds
            else "Nothing is wrong with what was looked at."
        )
        return "\n".join(lines)


def spread(values, unit: str = "", digits: int = 0) -> str:
    """`12 to 75 frames`, or one number where all are alike."""
    low, high = round(min(values), digits), round(max(values), digits)
    number = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{number} {unit}".rstrip()
