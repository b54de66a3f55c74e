"""Metrics as Prometheus reads them: text format 0.0.4 (pure)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable

from bot.contract import Metric

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def render(metrics: Iterable[Metric]) -> str:
    """The page: for each name one HELP, one TYPE and its samples together, in the order
    in which the names first appear. Of two samples with the same name and labels the
    later one stands. A sample with a name that the format forbids is left out, because
    it would spoil the whole page."""
    families: dict[str, list[Metric]] = {}
    for metric in metrics:
        if _valid(metric):
            families.setdefault(metric.name, []).append(metric)
        else:
            log.error("metric left out, its name or a label's is invalid: %r", metric)
    return "".join(_family(name, samples) for name, samples in families.items())


def _valid(metric: Metric) -> bool:
    names = [name for name, _ in metric.labels]
    labels = all(_LABEL.fullmatch(name) and not name.startswith("__") for name in names)
    return bool(_NAME.fullmatch(metric.name)) and labels and len(set(names)) == len(names)


def _family(name: str, samples: list[Metric]) -> str:
    first = samples[0]
    lines = {_series(sample): _number(sample.value) for sample in samples}
    return "".join(
        [
            f"# HELP {name} {_escaped(first.help)}\n",
            f"# TYPE {name} {first.kind}\n",
            *(f"{series} {value}\n" for series, value in lines.items()),
        ]
    )


def _series(metric: Metric) -> str:
    pairs = [f'{name}="{_escaped(value, quote=True)}"' for name, value in sorted(metric.labels)]
    return f"{metric.name}{{{','.join(pairs)}}}" if pairs else metric.name


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    text = text.replace('"', r"\"") if quote else text
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
