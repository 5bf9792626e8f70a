"""A robustness record as text."""

from __future__ import annotations

from harness.record import Record
from harness.report.format import percent


def to_text(record: Record) -> str:
    """The table of a robustness record."""
    whole = {name: value for name, value in record.metrics.items() if "/" not in name}
    (split, summary), *_ = whole.items()
    lines = [f"{record.run_id}: {split} split, {record.cost.test_forwards} forwards", ""]
    lines.append(f"{'variant':16} {'accuracy':>22} {'change':>22} {'same answer':>22}")
    lines.append(f"{'clean':16} {percent(summary['accuracy']):>22}")
    for name, values in record.metrics.items():
        if "/" in name:
            cells = (percent(values[key]) for key in ("accuracy", "change", "same_answer"))
            lines.append(f"{name.partition('/')[2]:16} " + " ".join(f"{cell:>22}" for cell in cells))
    lines.append("")
    for name, value in summary.items():
        if name.startswith(("order_", "paraphrase_", "damaged_")):
            lines.append(f"{name:24} {f'{value.value:.2f}' if name.endswith('_alpha') else percent(value)}")
    lines += [
        f"{'parse_failures':24} {percent(summary['parse_failures'])}",
        "In per cent, 95 % intervals over images. consistency: same answer in all forms; right: correct in all forms;",
        "alpha: Krippendorff's alpha, agreement beyond chance: 1 if all forms agree, 0 for agreement by chance.",
    ]
    return "\n".join(lines)
