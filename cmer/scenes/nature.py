"""Scenes of open land: beach, desert, farmland, forest, pond."""

from __future__ import annotations

import numpy as np

from cmer.scenes.canvas import Canvas, along, arc, blob, rectangle, shade, turn, winding
from cmer.scenes.captions import Facts, scene
from cmer.scenes.objects import WHITE, boat, house, neighbour, tree, trees


@scene(
    exact=(
        "{n} {c} {thing} [is|are] {where} at a beach with {sand} sand",
        "the {sea} sea beats the {sand} beach with {n} {c} {thing} {where}",
        "there [is|are] {n} {c} {thing} {where} at this beach",
        "{n} {c} {thing} {where} and {back} behind the {sand} beach",
        "white waves , {sand} sand and {n} {c} {thing}",
        "{back} and a {sand} beach lie beside the {sea} sea where {n} {c} {thing} can be seen",
    ),
    vague=(
        "{some} {c} {thing} can be seen from above",
        "{back} beside {sea} water",
        "it is a place with {sand} sand",
        "(white/) waves roll on to a {sand} beach",
        "the {sea} sea is beside a {sand} beach",
        "{back} are beside a beach and the sea",
        "a {sand} beach is between {back} and the sea",
    ),
)
def beach(c: Canvas) -> Facts:
    """Sea, waves, sand and the land behind; umbrellas on the sand or boats in the sea."""
    sea, sand, back = c.pick("blue", "green"), c.pick("yellow", "white"), c.pick("trees", "houses")
    colour, afloat = c.pick("red", "yellow", "white", "orange"), c.pick(True, False)
    c.texture(c.paint(f"{sea} water"), 0.08)
    shore = winding(c.rng, 12, -8)
    beach_colour = (214, 190, 138) if sand == "yellow" else (228, 222, 208)
    below = [(-182.0, 190.0), *shore, (182.0, 190.0)]
    c.texture(shade(beach_colour, 0.82), 0.04, [(x, y - 7) for x, y in below])
    c.texture(beach_colour, 0.05, below)
    for gap, alpha in ((-8, 230), (-24, 150), (-44, 90)):
        foam = [(x, y + gap + float(w)) for (x, y), w in zip(shore, c.rng.normal(0, 1.2, len(shore)), strict=True)]
        c.line(foam, WHITE, 3.2, alpha)
    c.texture(c.paint("grass"), 0.15, [(x, max(y, 74) + 3) for x, y in below])
    if back == "trees":
        trees(c, 170, (-180, 78, 180, 150), 7)
    else:
        for left in range(-165, 166, 30):
            house(c, left, 98, 21, 15, c.between(-10, 10), c.paint(c.pick("red", "brown", "gray"), 16))
        trees(c, 40, (-180, 112, 180, 150), 6)
    box = (-105, -110, 105, -62) if afloat else (-100, 16, 100, 60)
    for x, y in c.spots(c.count(5), 28, box):
        if afloat:
            boat(c, x, y, c.between(0, 360), c.paint(colour), 24)
        else:
            _umbrella(c, x, y, colour)
        c.mark(x, y)
    words = {"thing": "[boat|boats]", "where": "(in the water/in the sea)"}
    if not afloat:
        words = {"thing": "[umbrella|umbrellas]", "where": "on the sand"}
    words |= {"sea": sea, "sand": sand, "back": "(some/many/) " + ("green trees" if back == "trees" else back)}
    return Facts(colour, words)


def _umbrella(c: Canvas, x: float, y: float, colour: str) -> None:
    paint = c.paint(colour)
    c.disc(x + 5, y + 5, 8, (20, 20, 24), 110)
    for number in range(8):
        wedge = [(x, y), *arc(x, y, 8.5, 8.5, number * 45, number * 45 + 45)]
        c.polygon(wedge, shade(paint, 1.12 if number % 2 else 0.86))
    c.polygon(rectangle(x - 9, y + 9, 10, 4, 45), WHITE)


@scene(
    exact=(
        "{n} {thing} in the {c} desert {track}",
        "there [is|are] {n} {thing} on {c} sand {track}",
        "a {c} desert with {n} {thing} {track}",
        "{n} {thing} [lies|lie] among the {waves} dunes of the {c} desert",
        "{waves} {c} sand and {n} {thing} {track}",
        "the {c} desert is {waves} and has {n} {thing} in the {side} part of it",
    ),
    vague=(
        "it is a place with {c} sand",
        "{some} {thing} can be seen from above",
        "it is a (large/) piece of {c} desert",
        "the desert is {c} and {waves}",
        "{some} {thing} in a desert",
    ),
)
def desert(c: Canvas) -> Facts:
    """Rippled dunes with rocks or bushes, with or without a track."""
    colour, waves = c.pick("yellow", "orange", "white"), c.pick("wavy", "smooth")
    rocks, track = c.pick(True, False), c.pick(True, False)
    base = {"yellow": (212, 178, 112), "orange": (202, 136, 84), "white": (218, 208, 188)}[colour]
    ys, xs = np.mgrid[0 : c.side, 0 : c.side] / c.scale
    phase = (ys + 0.35 * xs) / (5.5 if waves == "wavy" else 26) + 2.2 * c.noise(7)
    ridges = np.sin(phase) ** 3 * (0.16 if waves == "wavy" else 0.1)
    light = 1 + ridges + 0.07 * c.noise(6)
    c.overlay(np.multiply.outer(light, np.array(base)).astype(np.float32))
    if track:
        c.line(winding(c.rng, 16, 84), shade(base, 0.72), 7)
    for x, y in c.spots(c.count(5), 36, (-96, -96, 96, 58)):
        if rocks:
            _rock(c, x, y, c.between(8, 14))
        else:
            for dx, dy in c.rng.normal(0, 4, (5, 2)):
                tree(c, x + float(dx), y + float(dy), 5)
        c.mark(x, y)
    thing = "(dark/black) [rock|rocks]" if rocks else "green [bush|bushes]"
    return Facts(colour, {"thing": thing, "waves": waves, "track": "crossed by a track" if track else "without a road"})


def _rock(c: Canvas, x: float, y: float, radius: float) -> None:
    paint = shade(c.paint("brown"), 0.6)
    outline = blob(c.rng, x, y, radius, 0.3)
    c.shadow(outline, radius * 0.5)
    c.polygon(outline, paint)
    c.polygon([(x + (px - x) * 0.6 - 1.5, y + (py - y) * 0.6 - 1.5) for px, py in outline], shade(paint, 1.45))


@scene(
    exact=(
        "{n} {c} {thing} {fields}",
        "there [is|are] {n} {c} {thing} {fields}",
        "{n} {c} {thing} in farmland {near}",
        "a piece of farmland {near} with {n} {c} {thing}",
        "{n} {c} {thing} [lies|lie] in the {side} part of the farmland",
        "farmland with {n} {c} {thing} is {near}",
    ),
    vague=(
        "{beside} can be seen on one side",
        "{some} {c} {thing} can be seen from above",
        "it is a (large/) piece of farmland",
        "(many pieces of/several pieces of/some) farmland are {near}",
        "farmland in (green/different colors)",
    ),
)
def farmland(c: Canvas) -> Facts:
    """A patchwork of furrowed fields with farmhouses, or round irrigated fields on bare land."""
    round_fields = c.pick(True, False)
    c.texture(c.paint("soil"), 0.12)
    if round_fields:
        colour = c.pick("green", "yellow", "brown")
        for x, y in c.spots(c.count(5), 76, (-84, -84, 84, 50)):
            _pivot(c, x, y, colour)
            c.mark(x, y)
        words = {"thing": "(round/circular) [field|fields]", "fields": "on (the/) bare land"}
    else:
        colour = c.pick("red", "white", "blue")
        for left in np.arange(-182, 150, 58):
            for top in np.arange(-182, 96, 46):
                _field(c, float(left) + 28, float(top) + 22, c.pick("green", "grass", "dry grass", "soil", "yellow"))
        for x, y in c.spots(c.count(5), 40, (-90, -90, 90, 66)):
            house(c, x, y, 20, 14, c.pick(0, 90), c.paint(colour))
            trees(c, 4, (x - 17, y + 9, x + 17, y + 14), 4)
            c.mark(x, y)
        words = {"thing": "(farmhouse[|s]/house[|s])", "fields": "(among/between) the (rectangular/) fields"}
    return Facts(colour, words | neighbour(c, "trees", "road", "river"))


def _field(c: Canvas, x: float, y: float, crop: str) -> None:
    colour = shade(c.paint(crop, 18), 0.92)
    c.texture(colour, 0.09, rectangle(x, y, 55, 43), 30)
    if c.pick(True, False):
        for offset in np.arange(-25, 26, 5.0):
            c.line([(x + float(offset), y - 21), (x + float(offset), y + 21)], shade(colour, 0.82), 1.4)
    else:
        for offset in np.arange(-19, 20, 5.0):
            c.line([(x - 27, y + float(offset)), (x + 27, y + float(offset))], shade(colour, 0.82), 1.4)


def _pivot(c: Canvas, x: float, y: float, crop: str) -> None:
    colour = c.paint(crop, 14)
    c.texture(colour, 0.08, arc(x, y, 35, 35), 30)
    for radius in (28, 20, 12):
        c.line(arc(x, y, radius, radius), shade(colour, 0.88), 1.2)
    c.line([(x, y), turn([(34, 0)], c.between(0, 360), (x, y))[0]], WHITE, 1)


@scene(
    exact=(
        "{n} {c} [cabin|cabins] in a (dense/thick) forest {path}",
        "there [is|are] {n} [house|houses] with {c} [roof|roofs] among the green trees {path}",
        "a {season} forest {path} with {n} {c} [hut|huts]",
        "{n} {c} [roof|roofs] can be seen in the {season} forest",
        "the (dense/thick) forest has {n} {c} [cabin|cabins] in the {side} part of it",
        "{season} trees stand around {n} {c} [cabin|cabins] {path}",
    ),
    vague=(
        "many green trees can be seen from above",
        "{some} {c} [house|houses] among trees",
        "it is a piece of {season} forest",
        "many {season} trees are in the forest",
        "a forest {path}",
    ),
)
def forest(c: Canvas) -> Facts:
    """Dense tree crowns with a few cabins in clearings, and a path, a stream or neither."""
    colour, path = c.pick("red", "white", "blue", "orange"), c.pick("path", "stream", "")
    season = c.pick("green", "dark green")
    c.texture(shade(c.paint("tree"), 0.62), 0.2)
    light = 1.3 if season == "green" else 0.88
    line = winding(c.rng, 18, 72)
    spots = c.spots(c.count(5), 48, (-90, -92, 90, 44))
    trees(c, 2300, (-182, -182, 182, 182), 6, light)
    if path:
        c.line(line, c.paint("green water") if path == "stream" else (196, 176, 140), 9 if path == "stream" else 6)
    for x, y in spots:
        c.texture(c.paint("grass"), 0.1, blob(c.rng, x, y, 17, 0.15))
        house(c, x, y, 20, 14, c.between(0, 180), c.paint(colour))
        c.mark(x, y)
    words = {"path": f"beside a (winding/) {path}", "stream": "beside a (narrow/) stream", "": "without any road"}
    return Facts(colour, {"season": season, "path": words[path]})


@scene(
    exact=(
        "{n} {shape} {c} [pond is|ponds are] surrounded by {ring}",
        "there [is|are] {n} {shape} [pond|ponds] with {c} water {near}",
        "{n} {c} [pond|ponds] and {ring} {near}",
        "{n} {shape} [pond|ponds] with {c} water and {ring} around",
        "the water of the {n} {shape} [pond|ponds] is {c}",
        "{n} {shape} {c} [pond lies|ponds lie] {near}",
    ),
    vague=(
        "{beside} can be seen on one side",
        "{ring} beside {c} water",
        "{some} [pond is|ponds are] surrounded by {ring}",
        "{some} {shape} [pond|ponds] {near}",
        "{some} [pond|ponds] with {c} water",
    ),
)
def pond(c: Canvas) -> Facts:
    """One to three round, irregular or rectangular ponds, surrounded by trees or meadow."""
    colour, ring = c.pick("blue", "green", "brown"), c.pick("trees", "meadow")
    shape = c.pick("round", "irregular", "rectangular")
    c.texture(c.paint("grass"), 0.16)
    layouts = [([(0, -14)], 58), ([(-50, -36), (48, 12)], 40), ([(-56, 26), (0, -66), (58, 24)], 35)]
    centres, radius = c.pick(*layouts)
    for x, y in centres:
        outline = {
            "round": arc(x, y, radius, radius),
            "irregular": blob(c.rng, x, y, radius, 0.34),
            "rectangular": rectangle(x, y, radius * 1.8, radius * 1.35, c.between(-8, 8)),
        }[shape]
        if ring == "trees":
            for px, py in sorted(along([*outline, outline[0]], 9), key=lambda point: point[1]):
                tree(c, px + (px - x) * 0.13, py + (py - y) * 0.13, c.between(5, 8.5))
        c.polygon([(x + (px - x) * 1.06, y + (py - y) * 1.06) for px, py in outline], c.paint("dry grass"))
        c.texture(c.paint(f"{colour} water"), 0.07, outline)
        c.mark(x, y)
    if ring == "trees":
        trees(c, 60, (-180, -170, 180, -104), 7)
    words = {"shape": shape, "ring": "(green/many/) trees" if ring == "trees" else "(a/) green meadow"}
    return Facts(colour, words | neighbour(c, "road", "buildings", "trees"))
