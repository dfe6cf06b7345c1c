"""Elements of inline SVG, escaped. Widths are percentages and heights are pixels (see plots.py)."""

import math

from markupsafe import Markup, escape

from textlift.escaping import visible


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element; children and attribute values are escaped unless they are elements themselves."""
    opening = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{name}{opening}>{inner}</{name}>")  # noqa: S704 (each part is escaped above, or is our own name)


def text_at(content: str, x: str, y: float, **attributes: object) -> Markup:
    """Text whose base line begins at x (a percentage) and y (pixels)."""
    return tag("text", content, x=x, y=short(y), **attributes)


def short(number: float) -> str:
    """A number with at most two decimals."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def at(share: float) -> str:
    """A share as a percentage of the width, kept between 0 and 100."""
    inside = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return f"{short(100 * inside)}%"


def figure(key: str, height: float, *children: object, title: str, description: str, style: str = "") -> Markup:
    """The outer svg, named and described for those who do not see it; key makes its ids unique on the page."""
    styled = {"style": style} if style else {}
    return tag(
        "svg",
        tag("title", visible(title), id=f"{key}-title"),
        tag("desc", description, id=f"{key}-desc"),
        *children,
        class_="plot",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        width="100%",
        height=short(height),
        **styled,
    )
