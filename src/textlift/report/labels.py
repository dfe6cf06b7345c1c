"""Names beside points so that none covers another name or a point, at every width that a plot may have.

A point lies at a share of the width, its name at a distance in pixels from it. The gap between two of them is a linear
function of the width, so whether they ever meet is decided for all widths at once. Knows no SVG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, hypot

_LINE = 14  # px: height of a line of text
_GAP = 8  # px between a point and its name
_RADIUS = 5  # px that a point takes to each side


@dataclass(frozen=True)
class Spot:
    """A point to be named: share of the width, y in pixels, width of its name, and the ends of its interval in y."""

    x: float
    y: float
    name_width: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Place:
    """Where a name stands: pixels from its point to the middle of the text, and whether a line leads there."""

    dx: float
    dy: float
    has_leader: bool


@dataclass(frozen=True)
class _Box:
    x: float  # share of the width
    dx: float  # px from there to the middle
    y: float
    half_width: float
    half_height: float


def place_names(
    spots: Sequence[Spot], *, widths: tuple[float, float], heights: tuple[float, float], order: Sequence[int]
) -> list[Place]:
    """A place for the name of each spot; where none is free, the one that covers least.

    Args:
        spots: In any order.
        widths: Least and greatest width of the plot, in pixels.
        heights: Uppermost and lowest y that a name may reach.
        order: Indices of the spots; the first choose first.
    """
    points = [_Box(spot.x, 0, spot.y, _RADIUS, _RADIUS) for spot in spots]
    whiskers = [_Box(spot.x, 0, (spot.top + spot.bottom) / 2, 1, (spot.bottom - spot.top) / 2) for spot in spots]
    placed: dict[int, Place] = {}
    names: list[_Box] = []
    leaders: list[_Box] = []
    for index in order:
        spot = spots[index]
        best: tuple[float, Place, _Box] | None = None
        for place in _places(spot):
            box = _Box(spot.x, place.dx, spot.y + place.dy, spot.name_width / 2, _LINE / 2)
            cost = _distance(spot, place)
            if (best is not None and cost >= best[0]) or not _is_inside(box, widths, heights):
                continue
            line = _leader(spot, place)
            cost += 1000 * sum(_meet(box, other, widths) for other in (*names, *points))
            cost += 9 * sum(_meet(box, other, widths) for other in (*whiskers, *leaders))
            cost += 9 * sum(_meet(piece, other, widths) for piece in line for other in (*names, *points))
            if best is None or cost < best[0]:
                best = (cost, place, box)
        if best is None:  # a name wider than the plot
            best = (0, Place(0, -_LINE, False), _Box(spot.x, 0, spot.y - _LINE, spot.name_width / 2, _LINE / 2))
        placed[index] = best[1]
        names.append(best[2])
        leaders += _leader(spot, best[1])
    return [placed[index] for index in range(len(spots))]


def _places(spot: Spot) -> list[Place]:
    """Beside the point, above and below it, then ever farther with a line that leads there."""
    side = _GAP + spot.name_width / 2
    near: list[tuple[float, float]] = [(side, 0), (-side, 0), (0, -_LINE), (0, _LINE)]
    near += [(side, -9), (-side, -9), (side, 9), (-side, 9)]
    above = spot.top - spot.y - 9  # beyond the ends of its own interval
    below = spot.bottom - spot.y + 9
    near += [(0, above), (0, below)] if above > -60 and below < 60 else []
    places = [Place(dx, dy, abs(dy) > 2 * _LINE) for dx, dy in near]
    for steps in range(1, 22):
        for dx in (side + 8, -side - 8, 0, side + 44, -side - 44):
            places += [Place(dx, sign * (6 + 9 * steps), True) for sign in (-1, 1)]
    return places


def _distance(spot: Spot, place: Place) -> float:
    """What a place costs that covers nothing: its distance from the point, and more where a line must lead there."""
    line = 12 + hypot(*leader_end(spot, place)) if place.has_leader else 0.0
    return abs(place.dy) + abs(place.dx) / 8 + line


def _leader(spot: Spot, place: Place) -> list[_Box]:
    """The line from a point to its name, in pieces."""
    if not place.has_leader:
        return []
    dx, dy = leader_end(spot, place)
    return [_Box(spot.x, dx * part / 6, spot.y + dy * part / 6, 1, abs(dy) / 12) for part in range(1, 6)]


def leader_end(spot: Spot, place: Place) -> tuple[float, float]:
    """Where the line to a name ends, in pixels from its point: at the near edge of the text."""
    side = (place.dx > 1) - (place.dx < -1)
    return place.dx - side * (spot.name_width / 2 + 1), place.dy - (0 if side else copysign(6, place.dy))


def _is_inside(box: _Box, widths: tuple[float, float], heights: tuple[float, float]) -> bool:
    fits_across = all(
        box.x * width + box.dx - box.half_width >= 0 and box.x * width + box.dx + box.half_width <= width
        for width in widths
    )
    return fits_across and heights[0] <= box.y - box.half_height and box.y + box.half_height <= heights[1]


def _meet(a: _Box, b: _Box, widths: tuple[float, float]) -> bool:
    """Whether two boxes cover each other at any width."""
    if abs(a.y - b.y) >= a.half_height + b.half_height:
        return False
    gaps = [(a.x - b.x) * width + a.dx - b.dx for width in widths]
    reach = a.half_width + b.half_width
    return min(gaps) < reach and max(gaps) > -reach
