"""One row of the table: what was done how often, and what was found."""

from dataclasses import dataclass, field

from pipeline.verify.audit import Audit

__all__ = ("Row",)


@dataclass(slots=True)
class Row:
    """A row; ``notes`` say what else was counted, ``failures`` each what went wrong in one run, with its seed."""

    name: str
    runs: int = 0
    audit: Audit = field(default_factory=Audit)
    failures: list[str] = field(default_factory=list[str])
    notes: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    ends_early: bool = False
    """Whether the first failure ends the row, by a RuntimeError."""

    @property
    def passed(self) -> bool:
        """Whether the promise held in every run."""
        return self.runs > 0 and not self.failures and self.audit.clean

    def count(self, note: str, number: int = 1) -> None:
        """Count something worth knowing."""
        self.notes[note] = self.notes.get(note, 0) + number

    def most(self, note: str, number: int) -> None:
        """Note the largest number seen; such notes end with "most". Nothing is noted of zeros."""
        if number > self.notes.get(note, 0):
            self.notes[note] = number

    def check(self, label: str, audit: Audit | None = None, problem: str = "") -> None:
        """Take one run into the row: what the auditor says of it, and what else was wrong."""
        self.runs += 1
        if audit is not None:
            self.audit.add(audit)
            problem = "; ".join(filter(None, (problem, "" if audit.clean else str(audit))))
        if problem:
            self.failures.append(f"{self.name} [{label}]: {problem}")
            if self.ends_early:
                raise RuntimeError("ended at the first failure, as was asked for")
