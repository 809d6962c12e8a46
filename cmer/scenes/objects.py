"""Objects seen from above. Sizes are in units of the view, whose side is 256; angles are in degrees, 0 along x."""

from __future__ import annotations

import numpy as np

from cmer.scenes.canvas import Box, Canvas, Colour, Point, along, arc, band, rectangle, shade, turn, winding

WHITE: Colour = (238, 238, 234)
DARK: Colour = (40, 44, 50)


def tree(c: Canvas, x: float, y: float, radius: float, light: float = 1) -> None:
    """A crown with its shadow and a lit side."""
    colour = shade(c.paint("tree", 18), light)
    c.disc(x + radius * 0.45, y + radius * 0.45, radius, (12, 18, 14), 110)
    c.disc(x, y, radius, colour)
    c.disc(x - radius * 0.22, y - radius * 0.22, radius * 0.6, shade(colour, 1.28))


def trees(c: Canvas, count: int, box: Box, radius: float = 6, light: float = 1) -> None:
    """Tree crowns scattered over a box, drawn from top to bottom."""
    xs, ys = c.rng.uniform(box[0], box[2], count), np.sort(c.rng.uniform(box[1], box[3], count))
    for x, y in zip(xs, ys, strict=True):
        tree(c, float(x), float(y), radius * c.between(0.7, 1.25), light)


def road(c: Canvas, line: list[Point], width: float = 13, colour: Colour | None = None) -> None:
    """A road with light edges and a dashed middle line."""
    colour = colour or c.paint("asphalt")
    c.line(line, shade(colour, 1.45), width + 2.4)
    c.line(line, colour, width)
    dashes(c, line, 1.1)


def dashes(c: Canvas, line: list[Point], width: float, dash: float = 6) -> None:
    """A dashed white line along another."""
    ends = along(line, dash)
    for start, stop in zip(ends[::2], ends[1::2], strict=False):
        c.line([start, stop], WHITE, width, 200)


def house(c: Canvas, x: float, y: float, width: float, height: float, angle: float, roof: Colour) -> None:
    """A house with a gable roof: one slope lit, one in shade."""
    outline = rectangle(x, y, width, height, angle)
    c.shadow(outline, min(width, height) * 0.42)
    c.polygon(outline, shade(roof, 1.08))
    a, b, d, e = outline
    ridge = (((a[0] + e[0]) / 2, (a[1] + e[1]) / 2), ((b[0] + d[0]) / 2, (b[1] + d[1]) / 2))
    c.polygon([ridge[0], ridge[1], d, e], shade(roof, 0.74))
    c.line(ridge, shade(roof, 1.3), 0.9)


def building(c: Canvas, x: float, y: float, width: float, height: float, angle: float, roof: Colour) -> None:
    """A larger building with a flat roof, a parapet and boxes on top."""
    outline = rectangle(x, y, width, height, angle)
    c.shadow(outline, 9)
    c.polygon(outline, shade(roof, 0.78))
    c.polygon(rectangle(x, y, width - 3, height - 3, angle), roof)
    for _ in range(3):
        dx, dy = c.between(-0.34, 0.34) * width, c.between(-0.28, 0.28) * height
        spot = turn([(dx, dy)], angle, (x, y))[0]
        c.polygon(rectangle(*spot, c.between(3, 7), c.between(3, 5), angle), shade(roof, c.pick(0.7, 1.15)))


def car(c: Canvas, x: float, y: float, angle: float, colour: Colour, length: float = 11) -> None:
    """A car: body, and dark front and rear windows."""
    width = length * 0.48
    c.polygon(rectangle(x + 1, y + 1, length, width, angle), DARK, 120)
    c.polygon(rectangle(x, y, length, width, angle), colour)
    for dx in (-0.24, 0.2):
        spot = turn([(dx * length, 0)], angle, (x, y))[0]
        c.polygon(rectangle(*spot, length * 0.14, width * 0.8, angle), DARK, 210)


def bus(c: Canvas, x: float, y: float, angle: float, colour: Colour) -> None:
    """A bus: a long body with a light roof strip and hatches."""
    c.shadow(rectangle(x, y, 27, 9, angle), 3)
    c.polygon(rectangle(x, y, 27, 9, angle), colour)
    c.polygon(rectangle(x, y, 23, 4.4, angle), shade(colour, 1.22))
    for dx in (-7, 6):
        c.polygon(rectangle(*turn([(dx, 0)], angle, (x, y))[0], 3, 3, angle), shade(colour, 0.72))
    c.polygon(rectangle(*turn([(12, 0)], angle, (x, y))[0], 2, 7.4, angle), DARK)


def plane(c: Canvas, x: float, y: float, angle: float, colour: Colour, span: float = 38) -> None:
    """An airliner that heads in the direction `angle`."""
    half = span / 2
    body = [(1.02, 0), (0.88, 0.09), (-0.8, 0.08), (-1.0, 0), (-0.8, -0.08), (0.88, -0.09)]
    wings = [(0.3, 0.07), (-0.22, 1.0), (-0.42, 1.0), (-0.12, 0), (-0.42, -1.0), (-0.22, -1.0), (0.3, -0.07)]
    tail = [(-0.68, 0.05), (-0.92, 0.38), (-1.04, 0.38), (-0.94, 0), (-1.04, -0.38), (-0.92, -0.38), (-0.68, -0.05)]
    engines = [(0.02, 0.42), (0.02, -0.42)]
    parts = [[(px * half, py * half) for px, py in part] for part in (wings, tail, body)]
    for part in parts:
        c.polygon(turn(part, angle, (x + 3, y + 3)), DARK, 110)
    for part, light in zip(parts, (0.9, 0.86, 1.1), strict=True):
        c.polygon(turn(part, angle, (x, y)), shade(colour, light))
    for ex, ey in engines:
        c.polygon(rectangle(*turn([(ex * half, ey * half)], angle, (x, y))[0], 5, 2.6, angle), shade(colour, 0.6))


def boat(c: Canvas, x: float, y: float, angle: float, colour: Colour, length: float = 27, wake: bool = False) -> None:
    """A boat that heads in the direction `angle`: hull, deck, cabin, and optionally a wake."""
    half, beam = length / 2, length * 0.17
    hull = [(half, 0), (half * 0.5, beam), (-half, beam), (-half, -beam), (half * 0.5, -beam)]
    if wake:
        foam = [(-half, 0.0), (-half * 3.2, beam * 2.2), (-half * 2.2, 0.0), (-half * 3.2, -beam * 2.2)]
        c.polygon(turn(foam, angle, (x, y)), WHITE, 130)
    c.polygon(turn(hull, angle, (x + 1.6, y + 1.6)), DARK, 120)
    c.polygon(turn(hull, angle, (x, y)), colour)
    c.polygon(turn([(px * 0.72, py * 0.6) for px, py in hull], angle, (x, y)), shade(colour, 1.18))
    cabin = turn([(-half * 0.3, 0)], angle, (x, y))[0]
    c.polygon(rectangle(*cabin, length * 0.3, beam * 1.2, angle), shade(colour, 0.66))


def train(c: Canvas, x: float, y: float, length: float, colour: Colour) -> None:
    """A train along x: cars with gaps and a light roof line."""
    cars = round(length / 24)
    for number in range(cars):
        at = x + (number - (cars - 1) / 2) * 24
        c.shadow(rectangle(at, y, 22.5, 8), 2.4)
        c.polygon(rectangle(at, y, 22.5, 8), colour)
        c.polygon(rectangle(at, y, 20, 3), shade(colour, 1.25))


def tank(c: Canvas, x: float, y: float, radius: float, colour: Colour) -> None:
    """A cylindrical storage tank: shadow, lit wall, roof with a rim, stairs and a hatch."""
    for step in np.linspace(radius * 0.15, radius * 0.5, 5):
        c.disc(x + step, y + step, radius, (12, 16, 20), 55)
    c.disc(x, y, radius, shade(colour, 0.66))
    c.disc(x - radius * 0.07, y - radius * 0.07, radius * 0.92, colour)
    c.disc(x - radius * 0.07, y - radius * 0.07, radius * 0.8, shade(colour, 1.07))
    for angle in (0, 60, 120):
        spoke = turn([(-radius * 0.78, 0), (radius * 0.78, 0)], angle, (x - radius * 0.07, y - radius * 0.07))
        c.line(spoke, shade(colour, 0.86), 0.8)
    c.disc(x - radius * 0.07, y - radius * 0.07, radius * 0.14, shade(colour, 0.72))
    c.line(arc(x, y, radius * 1.02, radius * 1.02, 200, 250), DARK, 1.2)


def pool(c: Canvas, x: float, y: float, angle: float) -> None:
    """A swimming pool with a light rim."""
    c.polygon(rectangle(x, y, 16, 10, angle), (222, 218, 206))
    c.polygon(rectangle(x, y, 12.5, 6.8, angle), (64, 172, 208))


def court(c: Canvas, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    """A sports court: coloured ground with white lines."""
    c.polygon(rectangle(x, y, width, height), shade(colour, 0.8))
    inner = rectangle(x, y, width - 5, height - 5)
    c.polygon(inner, colour)
    c.line([*inner, inner[0]], WHITE, 0.9)
    c.line([(x, y - height / 2 + 2.5), (x, y + height / 2 - 2.5)], WHITE, 0.9)
    c.line(arc(x, y, height * 0.17, height * 0.17), WHITE, 0.9)


def pitch(c: Canvas, x: float, y: float, width: float, height: float) -> None:
    """A football field: mown stripes and white lines."""
    colour, stripes = c.paint("green", 12), 8
    for number in range(stripes):
        at = x + (number + 0.5 - stripes / 2) * width / stripes
        c.polygon(rectangle(at, y, width / stripes + 0.5, height), shade(colour, 1.12 if number % 2 else 0.98))
    edge = rectangle(x, y, width - 3, height - 3)
    c.line([*edge, edge[0]], WHITE, 1)
    c.line([(x, y - height / 2 + 1.5), (x, y + height / 2 - 1.5)], WHITE, 1)
    c.line(arc(x, y, height * 0.16, height * 0.16), WHITE, 1)
    for end in (-1, 1):
        box = rectangle(x + end * (width / 2 - width * 0.075), y, width * 0.12, height * 0.5)
        c.line([*box, box[0]], WHITE, 1)


def stalls(c: Canvas, y: float, left: float, right: float, depth: float = 15, pitch: float = 8) -> list[float]:
    """A row of parking stalls between two x coordinates; returns the centre of each."""
    edges = np.arange(left, right + 0.1, pitch)
    for x in edges:
        c.line([(float(x), y - depth / 2), (float(x), y + depth / 2)], WHITE, 0.8, 190)
    return [float(x) + pitch / 2 for x in edges[:-1]]


# --- the strip along one side of a scene ----------------------------------------------------------------

NEIGHBOURS = {
    "trees": "(some green trees/a row of trees/many trees)",
    "road": "(a road/a straight road)",
    "buildings": "(several buildings/some buildings)",
    "river": "(a river/a narrow river)",
    "lot": "(a parking lot/a car park)",
}
"""Neighbours of a scene, and their names in captions."""


def neighbour(c: Canvas, *kinds: str) -> dict[str, str]:
    """Draw one of the kinds of `NEIGHBOURS` along the lower side of the canvas (y from 96).

    Returns:
        the slots `beside` (its name) and `near` (the name after a preposition).
    """
    kind = c.pick(*kinds)
    y = 113.0
    if kind == "trees":
        trees(c, 110, (-180, 100, 180, 150), 7.5)
    elif kind == "road":
        road(c, [(-185, y - 4), (185, y - 4)], 15)
        for x in c.rng.uniform(-100, 100, 4):
            car(c, float(x), y - 4 + c.pick(-4, 4), 0, c.paint(c.pick("white", "gray", "black")), 9)
    elif kind == "buildings":
        for x in np.arange(-160, 161, 42):
            building(
                c, float(x), y + 3, c.between(26, 36), c.between(20, 30), 0, c.paint(c.pick("concrete", "gray"), 22)
            )
    elif kind == "river":
        c.texture(c.paint(c.pick("green water", "blue water")), 0.06, band(winding(c.rng, 7, y + 4), 30))
    else:
        c.polygon(rectangle(0, y + 3, 364, 34), c.paint("asphalt"))
        for row in (y - 5, y + 11):
            for x in stalls(c, row, -176, 176):
                if c.rng.random() < 0.7:
                    car(c, x, row, 90, c.paint(c.pick("white", "gray", "black", "red", "blue"), 14), 10)
    return {"beside": NEIGHBOURS[kind], "near": f"(near/beside/next to) {NEIGHBOURS[kind]}"}
