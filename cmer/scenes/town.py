"""Scenes of towns: baseball field, dense and sparse residential, playground, stadium, storage tanks."""

from __future__ import annotations

import numpy as np

from cmer.scenes.canvas import Canvas, arc, blob, rectangle, shade, turn, winding
from cmer.scenes.captions import Facts, scene
from cmer.scenes.objects import (
    WHITE,
    bus,
    car,
    court,
    house,
    neighbour,
    pitch,
    pool,
    road,
    stalls,
    tank,
    trees,
)


@scene(
    exact=(
        "{n} baseball [field|fields] with {c} (soil/dirt/infield[|s]) {near}",
        "there [is|are] {n} baseball [field|fields] with {c} (soil/dirt) on the {grass} grass",
        "{n} {c} and green baseball [field is|fields are] {near}",
        "{n} fan-shaped baseball [field|fields] on {grass} grass {near}",
        "{n} baseball [diamond|diamonds] with {c} (dirt/soil)",
        "{beside} and {n} {c} baseball [field|fields] side by side",
    ),
    vague=(
        "{beside} can be seen on one side",
        "it is surrounded by {grass} grass",
        "{some} baseball [field is|fields are] {near}",
        "{some} baseball [field|fields] on {grass} grass",
        "{some} fan-shaped baseball [field|fields]",
    ),
)
def baseballfield(c: Canvas) -> Facts:
    """One to four diamonds on grass."""
    colour, grass, count = c.pick("brown", "red", "yellow"), c.pick("green", "yellow"), c.count(4)
    c.texture(c.paint("grass" if grass == "green" else "dry grass"), 0.12)
    near = neighbour(c, "trees", "road", "buildings", "lot")
    pinwheel = [(-7, -25, 180, 74), (7, -25, -90, 74), (-7, -11, 90, 74), (7, -11, 0, 74)]
    places = {1: [(0, 68, -135, 128)], 2: [(-58, 48, -135, 86), (58, 48, -135, 86)]}.get(count, pinwheel[:count])
    for x, y, angle, radius in places:
        _diamond(c, x, y, angle, radius, colour)
        middle = turn([(radius * 0.5, radius * 0.5)], angle, (x, y))[0]
        c.mark(*middle)
    return Facts(colour, {"grass": grass} | near)


def _diamond(c: Canvas, x: float, y: float, angle: float, radius: float, soil: str) -> None:
    """A diamond with home plate at (x, y), whose right angle starts at `angle`."""
    dirt = {"brown": (158, 116, 78), "red": (176, 92, 62), "yellow": (206, 172, 108)}[soil]
    green = c.paint("green", 10)
    for number in range(8):
        reach = radius * (1 - number / 8)
        c.polygon([(x, y), *arc(x, y, reach, reach, angle, angle + 90)], shade(green, 1.14 if number % 2 else 1.02))
    c.line(arc(x, y, radius, radius, angle, angle + 90), dirt, 3.5)
    c.polygon([(x, y), *arc(x, y, radius * 0.55, radius * 0.55, angle, angle + 90)], dirt)
    side = radius * 0.36
    c.polygon(turn([(4, 4), (side, 4), (side, side), (4, side)], angle, (x, y)), shade(green, 1.08))
    c.disc(*turn([(side / 2, side / 2)], angle, (x, y))[0], radius * 0.05, dirt)
    c.disc(x, y, radius * 0.09, dirt)
    for end in ((radius, 0), (0, radius)):
        c.line([(x, y), turn([end], angle, (x, y))[0]], WHITE, 1.1)
    for base in ((side, 3), (side, side), (3, side)):
        c.polygon(rectangle(*turn([base], angle, (x, y))[0], 2.6, 2.6, angle), WHITE)


@scene(
    exact=(
        "many houses with {c} roofs and {n} swimming [pool|pools] in a dense residential area",
        "{n} blue [pool|pools] among (crowded/dense) houses with {c} roofs",
        "rows of {c} houses {roads} with {n} [pool|pools]",
        "a dense residential area {roads} has {c} roofs and {n} blue [pool|pools]",
        "(crowded/closely packed) {c} roofs {roads} , {n} [pool|pools] between them",
        "there [is|are] {n} swimming [pool|pools] in this area of dense {c} houses",
    ),
    vague=(
        "{c} houses beside a road",
        "many houses and trees",
        "many houses are arranged closely in a dense residential area",
        "many {c} houses in a dense residential area",
        "a dense residential area {roads}",
        "it is a dense residential area",
    ),
)
def denseresidential(c: Canvas) -> Facts:
    """Blocks of small houses in rows along streets, with a few pools in the yards."""
    colour, cross = c.pick("red", "gray", "brown", "white", "blue"), c.pick(True, False)
    c.texture(shade(c.paint("grass"), 0.9), 0.16)
    for y in (-130, -44, 42, 128):
        road(c, [(-185, y), (185, y)], 10)
    column = c.between(-20, 20)
    if cross:
        road(c, [(column, -185), (column, 185)], 13)
    places = [
        (float(x) + c.between(-2, 2), y + dy)
        for y in (-130, -44, 42, 128)
        for dy in (-18, 18)
        for x in np.arange(-170, 171, 22)
        if not cross or abs(x - column) > 19
    ]
    near = [number for number, (x, y) in enumerate(places) if np.hypot(x, y) < 95]
    pools = set(c.rng.choice(near, c.count(5), replace=False).tolist())
    for number, (x, y) in enumerate(places):
        if number in pools:
            pool(c, x, y, c.pick(0, 90))
            c.mark(x, y)
        else:
            house(c, x, y, c.between(16, 19), c.between(14, 18), c.pick(0, 90), c.paint(colour, 22))
    for y in (-87, -1, 85):
        trees(c, 26, (-180, y - 4, 180, y + 4), 4.5)
    for x, y in zip(c.rng.uniform(-120, 120, 12), c.rng.choice([-130, -44, 42, 128], 12), strict=True):
        car(c, float(x), float(y) + c.pick(-2.5, 2.5), 0, c.paint(c.pick("white", "black", "red")), 8)
    return Facts(colour, {"roads": "(with/beside) a crossroad" if cross else "along (straight/parallel) roads"})


@scene(
    exact=(
        "{n} [house|houses] with {c} [roof|roofs] in a sparse residential area {drive}",
        "{n} {c} [house is|houses are] surrounded by {ground} {drive}",
        "there [is|are] {n} {c} [villa|villas] among {ground}",
        "a sparse residential area with {n} {c} [roof|roofs] and {ground}",
        "{n} {c} [house stands|houses stand] apart {drive}",
        "{n} [house|houses] with {c} [roof|roofs] in the {side} part of {ground}",
    ),
    vague=(
        "{c} houses beside a road",
        "{some} {c} [house|houses] among trees",
        "many green trees can be seen from above",
        "{some} [house is|houses are] in a sparse residential area",
        "{some} [house is|houses are] surrounded by {ground}",
        "trees and a road are around {some} [house|houses]",
    ),
)
def sparseresidential(c: Canvas) -> Facts:
    """One to five houses with driveways to a winding road, on lawn or in a wood."""
    colour, wood = c.pick("red", "gray", "white", "blue", "brown"), c.pick(True, False)
    c.texture(c.paint("grass" if wood else "dry grass"), 0.18)
    line = winding(c.rng, 14, 88)
    spots = c.spots(c.count(5), 52, (-92, -88, 92, 50))
    trees(c, 260 if wood else 46, (-180, -178, 180, 66), 7.5)
    trees(c, 60, (-180, 106, 180, 170), 7.5)
    road(c, line, 12)
    for x, y in spots:
        end = min(line, key=lambda point: abs(point[0] - x))
        c.line([(x, y), (x + 6, (y + end[1]) / 2), end], (188, 180, 166), 4.5)
    for x, y in spots:
        c.texture(shade(c.paint("green"), 1.15), 0.08, blob(c.rng, x, y, 23, 0.12))
        angle = c.pick(0, 90, 20, -20)
        roof = c.paint(colour)
        house(c, x, y, 28, 17, angle, roof)
        house(c, *turn([(9, 10)], angle, (x, y))[0], 14, 12, angle + 90, roof)
        c.mark(x, y)
    ground = "(many/dense/) green trees" if wood else "(dry/yellow) grass"
    return Facts(colour, {"ground": ground, "drive": "(beside/near/along) a (winding/) road"})


@scene(
    exact=(
        "{n} {c} basketball [court|courts] (beside/next to/near) a playground with a {track} track",
        "a playground with a {track} track and {n} {c} [court|courts]",
        "there [is|are] {n} {c} basketball [court|courts] and a football field {near}",
        "the {track} track surrounds a green football field , {n} {c} [court lies|courts lie] beside it",
        "a playground {near} has {n} {c} basketball [court|courts]",
        "{n} {c} ([court|courts]) in the {side} part and a playground with {track} track",
    ),
    vague=(
        "{beside} can be seen on one side",
        "a green football field is {near}",
        "a playground is {near}",
        "a green football field is surrounded by a {track} track",
        "{some} basketball [court is|courts are] beside a playground",
    ),
)
def playground(c: Canvas) -> Facts:
    """A running track around a football field, and basketball courts beside it."""
    track, colour = c.pick("red", "blue"), c.pick("blue", "green", "orange", "red")
    c.texture(c.paint("grass"), 0.12)
    near = neighbour(c, "trees", "road", "buildings")
    paint = c.paint(track)
    c.polygon(_oval(0, -32, 168, 96), shade(paint, 0.96))
    for lane in range(1, 5):
        loop = _oval(0, -32, 168 - 6 * lane, 96 - 6 * lane)
        c.line([*loop, loop[0]], shade(WHITE, 0.9), 0.7)
    c.polygon(_oval(0, -32, 136, 64), c.paint("green"))
    pitch(c, 0, -32, 96, 56)
    count = c.count(4)
    for number in range(count):
        x = (number - (count - 1) / 2) * 42
        court(c, x, 54, 38, 25, c.paint(colour))
        c.mark(x, 54)
    return Facts(colour, {"track": track} | near)


def _oval(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    radius, straight = height / 2, width / 2 - height / 2
    right, left = arc(x + straight, y, radius, radius, -90, 90), arc(x - straight, y, radius, radius, 90, 270)
    return [*right, *left]


@scene(
    exact=(
        "a stadium with {seats} seats and {n} {c} [bus|buses] (outside/beside it)",
        "{n} {c} [bus is|buses are] parked beside a stadium with {seats} seats",
        "there [is|are] {n} {c} [bus|buses] (near/beside) the {shape} stadium",
        "a {shape} stadium with {seats} stands {near}",
        "the {shape} stadium has {seats} seats around a green field , {n} {c} [bus stands|buses stand] outside",
        "{n} {c} [bus waits|buses wait] near a {shape} stadium with {roof}",
        "a stadium with {roof} and {seats} seats {near}",
    ),
    vague=(
        "{beside} can be seen on one side",
        "a green football field is {near}",
        "{some} {c} [bus|buses] can be seen from above",
        "a {shape} stadium is {near}",
        "a stadium with {roof} and a green field in the middle",
        "{some} [bus|buses] near a stadium",
    ),
)
def stadium(c: Canvas) -> Facts:
    """Stands around a green field, open or under a ring-shaped roof, with buses outside."""
    seats, colour = c.pick("red", "blue", "yellow", "green"), c.pick("white", "red", "blue", "yellow")
    radii, open_top = c.pick((102, 72), (80, 76)), c.pick(True, False)
    c.texture(c.paint("concrete"), 0.06)
    trees(c, 60, (-180, -182, 180, -112), 6)
    near = neighbour(c, "trees", "road", "lot")
    y, paint = -26.0, c.paint(seats)
    for step in np.linspace(2, 9, 4):
        c.polygon(arc(step, y + step, *radii), (14, 18, 22), 60)
    c.polygon(arc(0, y, *radii), c.paint("gray" if open_top else "white"))
    for angle in range(0, 360, 12):
        rim = arc(0, y, *radii, angle, angle)[0]
        c.line([rim, (rim[0] * 0.8, y + (rim[1] - y) * 0.8)], (176, 178, 180), 0.9)
    inner = [radius - (8 if open_top else 20) for radius in radii]
    for ring in range(6):
        scale = 1 - ring * 0.065
        c.polygon(arc(0, y, inner[0] * scale, inner[1] * scale), shade(paint, 1.1 if ring % 2 else 0.84))
    field = (inner[0] * 0.64, inner[1] * 0.64)
    c.polygon(arc(0, y, *field), shade(c.paint("green"), 0.9))
    pitch(c, 0, y, field[0] * 1.45, field[1] * 1.2)
    places = stalls(c, 74, -77, 77, 34, 14)
    for number in c.rng.permutation(len(places))[: c.count(5)]:
        bus(c, places[number], 74, 90, c.paint(colour))
        c.mark(places[number], 74)
    words = {"seats": seats, "shape": "(oval/elliptical)" if radii[0] > 90 else "(round/circular)"}
    words |= {"roof": "(an open top/no roof)" if open_top else "a white roof"}
    return Facts(colour, words | near)


@scene(
    exact=(
        "{n} {c} storage [tank|tanks] on {ground} {near}",
        "there [is|are] {n} {size} {c} storage [tank|tanks] {near}",
        "{n} {c} cylindrical [tank stands|tanks stand] {order} on {ground}",
        "{n} {size} {c} [tank|tanks] {order}",
        "{n} {size} storage [tank|tanks] with {c} [roof|roofs] {near}",
        "the {c} storage [tank is|tanks are] in the {side} part of {ground}",
    ),
    vague=(
        "{beside} can be seen on one side",
        "it is surrounded by {ground}",
        "{some} storage [tank is|tanks are] {near}",
        "{some} {c} storage [tank|tanks]",
        "{some} {size} storage [tank|tanks] on {ground}",
    ),
)
def storagetanks(c: Canvas) -> Facts:
    """One to five cylindrical tanks, large or small, in a row or scattered."""
    colour, ground = c.pick("white", "gray", "green", "red"), c.pick("bare land", "grass", "concrete")
    large, row = c.pick(True, False), c.pick(True, False)
    c.texture(c.paint({"bare land": "soil"}.get(ground, ground)), 0.1)
    near = neighbour(c, "trees", "road", "river", "buildings")
    radius, count = (24 if large else 15), c.count(5)
    row = row and (count > 1) and not (large and count > 4)
    spots = c.spots(count, radius * 2.35 + 4, (-88, -88, 88, 58))
    if row:
        gap = radius * 2.25
        spots = [((number - (count - 1) / 2) * gap, -16.0) for number in range(count)]
    c.line([(-182, 78), (182, 78)], shade(c.paint("concrete"), 0.86), 7)
    for x, y in sorted(spots):
        c.line([(x, y), (x, 78)], (150, 148, 142), 2.2)
        c.disc(x, y, radius * 1.18, shade(c.paint("concrete"), 0.94))
    for x, y in sorted(spots):
        tank(c, x, y, radius, c.paint(colour))
        c.mark(x, y)
    order = "in a (straight/) row" if row else "apart from each other" if count > 1 else "alone"
    words = {"ground": "(green/) grass" if ground == "grass" else ground, "order": order}
    words |= {"size": "(large/big)" if large else "small"}
    return Facts(colour, words | near)
