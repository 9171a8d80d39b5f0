"""Draw reliability diagrams and shares over time as inline SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from daso.errors import how_many
from daso.evaluate.reliability import Bins
from daso.report.charts import FEW_CLASSES
from daso.report.html.svg import LEFT, RIGHT, RIGHT_END, TOP, Scale, axes, frame, short, text
from daso.report.reliability import FEW_IMAGES
from daso.report.runs import Array
from daso.report.wording import shortened

HEAT_WIDTH = 330


def reliability(title: str, bins: Bins) -> Markup:
    """Return accuracy and number of images for each bin of confidence."""
    edges, accuracy, confidence, counts = bins
    x, y = Scale(0, 1, LEFT, RIGHT_END), Scale(0, 1, TOP + 190.0, TOP)
    body = axes(None, y, "", "accuracy", percent=True)
    diagonal = f"M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"
    body += f'<path class="truth line" d="{diagonal}"><title>calibrated</title></path>'
    base, most = y.start + 52.0, max(float(counts.max()), 1)
    for i in np.flatnonzero(counts):
        left, width = x(edges[i]) + 1, x(edges[i + 1]) - x(edges[i]) - 2
        middle, top, high = left + width / 2, y(accuracy[i]), 34 * counts[i] / most
        low, high_edge = 100 * edges[i : i + 2]
        hint = (
            f"confidence {low:.0f} to {high_edge:.0f}%: {how_many(counts[i], 'image')}, mean "
            f"confidence {100 * confidence[i]:.1f}%, accuracy {100 * accuracy[i]:.1f}%"
        )
        faint = " faint" if counts[i] < FEW_IMAGES else ""
        body += (
            f'<g class="bin{faint}"><title>{hint}</title>'
            f'<rect class="bar final" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{y(0) - top:.1f}"/>'
            f'<path class="gap" d="M{middle:.1f} {top:.1f}V{y(confidence[i]):.1f}"/>'
            f'<rect class="bar labeled" x="{left:.1f}" y="{base - high:.1f}" width="{width:.1f}" '
            f'height="{high:.1f}"/></g>'
        )
    body += f'<path class="axis" d="M{LEFT} {base}H{RIGHT_END}"/>'
    for value in x.ticks(5):
        style = "tick end" if value > 0.95 else "tick mid"
        body += text(x(value), base + 14, f"{100 * value:g}%", style)
    body += text(LEFT - 5, base - 24, short(most), "tick end")
    label = "confidence, and images by confidence"
    body += text((LEFT + RIGHT_END) / 2, base + 29, label, "label mid")
    return frame(body, title, "bars: accuracy; dotted: calibrated", base + 36)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """Return an RGBA image (H, W, 4) as a data address of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def heat(title: str, names: Sequence[str], steps: Array, ratio: Array) -> Markup:
    """Return over- (blue) and under-representation (orange) of each class over time.

    *ratio*, (T, K), is 1 without bias; the colors deepen from 1/4 to 4.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.nan_to_num(np.clip(np.log2(ratio) / 2, -1, 1)).T
    pixels = np.zeros((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, (0, 114, 178), (213, 94, 0))
    pixels[..., 3] = np.round(235 * np.abs(strength))
    few = len(names) <= 2 * FEW_CLASSES
    row = 15 if len(names) <= FEW_CLASSES else 9 if few else 240 / len(names)
    height = row * len(names)
    left, right = LEFT + (44 if few else 0), HEAT_WIDTH - RIGHT
    area = f'x="{left}" y="{TOP}" width="{right - left}" height="{height:g}"'
    body = (
        f'<rect class="panel" {area}/><image {area} preserveAspectRatio="none" class="pixels" '
        f'href="{picture(pixels)}"/>'
    )
    if few:
        style = "tick end" if row > 10 else "tick end tiny"
        for place, name in enumerate(names):
            body += text(left - 5, TOP + row * (place + 0.5) + 3.5, shortened(name), style)
    else:
        body += text(left - 5, TOP + 9, "many", "tick end")
        body += text(left - 5, TOP + height, "few", "tick end")
    x = Scale(float(steps.min()), float(steps.max()), left, right)
    for value in x.ticks(4):
        style = "tick end" if x(value) > right - 12 else "tick mid"
        body += text(x(value), TOP + height + 14, short(value), style)
    described = "one row per class, one column per evaluation"
    return frame(body, title, described, TOP + height + 20, HEAT_WIDTH)
