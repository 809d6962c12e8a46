"""Scenes of transport: airport, bridge, parking, port, railway station."""

from __future__ import annotations

import numpy as np

from cmer.scenes.canvas import Canvas, band, rectangle, shade, winding
from cmer.scenes.captions import Facts, scene
from cmer.scenes.objects import (
    WHITE,
    boat,
    building,
    bus,
    car,
    dashes,
    neighbour,
    plane,
    road,
    stalls,
    train,
    trees,
)


@scene(
    exact=(
        "{n} {c} [plane|planes] (beside/next to/near) the {runway} runway",
        "{n} {c} ([airplane|airplanes]/[plane|planes]) [is|are] parked (on the apron/on the tarmac) {terminal}",
        "there [is|are] {n} {c} [plane|planes] in (this/the) airport with a {runway} runway",
        "a {runway} runway lies on the {ground} and {n} {c} [plane stands|planes stand] beside it",
        "an airport with {n} {c} [airplane|airplanes] and {ground} around the runway",
        "{n} {c} [plane is|planes are] in the {side} part of the airport",
        "(the/this) airport has {n} {c} [aircraft|aircrafts] {terminal}",
    ),
    vague=(
        "it is surrounded by {ground}",
        "{some} {c} [plane|planes] can be seen from above",
        "{some} [plane is|planes are] parked in an airport",
        "{some} [plane|planes] near a runway in an airport",
        "a runway and {some} [airplane|airplanes] on {ground}",
    ),
)
def airport(c: Canvas) -> Facts:
    """A runway, a taxiway, and planes on an apron with or without a terminal."""
    ground, tone = c.pick("grass", "dry grass"), c.pick("gray", "black")
    colour, terminal = c.pick("white", "red", "blue", "yellow"), c.pick(True, False)
    c.texture(c.paint(ground), 0.13)
    tarmac = shade(c.paint("concrete"), 0.74)
    runway = c.paint("gray") if tone == "gray" else shade(c.paint("black"), 1.35)
    c.polygon(rectangle(0, -24, 364, 13), tarmac)
    for link in (-95, 95):
        c.polygon(rectangle(link, -48, 13, 60), tarmac)
    c.line([(-182, -24), (182, -24)], (214, 178, 60), 1)
    c.polygon(rectangle(0, 44, 290, 96), tarmac)
    c.polygon(rectangle(0, -75, 364, 36), shade(runway, 1.2))
    c.polygon(rectangle(0, -75, 364, 31), runway)
    dashes(c, [(-182, -75), (182, -75)], 1.8, 10)
    for stripe in range(-87, -62, 4):
        c.polygon(rectangle(-105, stripe, 20, 2), WHITE)
    if terminal:
        building(c, 0, 82, 150, 24, 0, c.paint("white"))
        for gate in (-54, -18, 18, 54):
            c.polygon(rectangle(gate, 66, 5, 18), c.paint("gray"))
    for x, y in c.spots(c.count(5), 43, (-88, 6, 88, 44)):
        plane(c, x, y, c.pick(90, 90, -90) + c.between(-12, 12), c.paint(colour))
        c.mark(x, y)
    words = {"runway": tone, "ground": "(green/) grass" if ground == "grass" else "(dry/yellow) grass"}
    return Facts(colour, words | {"terminal": "near a (white/) terminal" if terminal else "away from any building"})


@scene(
    exact=(
        "{n} {c} [bridge is|bridges are] over a {water} river with {banks} on (two/both) sides",
        "a {water} river is crossed by {n} {c} [bridge|bridges]",
        "{n} {c} ([bridge|bridges]) (across/over) the {width} {water} river",
        "there [is|are] {n} [bridge|bridges] on a {width} river and {banks} on the banks",
        "{n} {c} [bridge connects|bridges connect] {banks} on the two banks of the {water} river",
        "the {width} river between {banks} has {n} {c} [bridge|bridges]",
    ),
    vague=(
        "{banks} beside {water} water",
        "{some} [bridge is|bridges are] over a river",
        "{some} [bridge|bridges] on a {width} river",
        "{banks} are on two sides of a river with {some} [bridge|bridges]",
    ),
)
def bridge(c: Canvas) -> Facts:
    """A river between two banks, crossed by one to three bridges."""
    water, banks = c.pick("green", "blue", "brown"), c.pick("trees", "buildings", "farmland")
    colour, width = c.pick("white", "gray", "brown"), c.pick(58, 92)
    river = winding(c.rng, 14)
    c.texture(c.paint("soil" if banks == "farmland" else "grass"), 0.14)
    if banks == "farmland":
        _strips(c)
    c.texture(c.paint("dry grass"), 0.1, band(river, width + 9))
    c.texture(c.paint(f"{water} water"), 0.07, band(river, width))
    if banks == "trees":
        trees(c, 150, (-180, -170, 180, -width / 2 - 24), 7)
        trees(c, 150, (-180, width / 2 + 24, 180, 170), 7)
    elif banks == "buildings":
        for distance in range(width // 2 + 24, 180, 36):
            _blocks(c, -distance)
            _blocks(c, distance)
    for x in c.pick((0,), (-40, 40), (-62, 0, 62)):
        _bridge(c, x + c.between(-14, 14), width, colour)
    words = {"water": water, "width": "(wide/broad)" if width > 60 else "narrow"}
    return Facts(colour, words | {"banks": {"trees": "(green/many/) trees"}.get(banks, banks)})


def _blocks(c: Canvas, y: float) -> None:
    for x in range(-165, 166, 40):
        building(c, x + c.between(-4, 4), y, 27, 23, 0, c.paint(c.pick("concrete", "gray", "brown"), 20))


def _bridge(c: Canvas, x: float, width: float, colour: str) -> None:
    road(c, [(x, -185), (x, 185)], 13)
    deck = c.paint(colour)
    c.shadow(rectangle(x, 0, 18, width + 26), 8)
    c.polygon(rectangle(x, 0, 19, width + 28), shade(deck, 1.06))
    c.polygon(rectangle(x, 0, 13, width + 28), shade(deck, 0.84))
    dashes(c, [(x, -width / 2 - 12), (x, width / 2 + 12)], 1.1)
    for y in c.rng.uniform(-width / 2, width / 2, 2):
        car(c, x + c.pick(-3, 3), float(y), 90, c.paint(c.pick("black", "red", "white")), 8)
    c.mark(x, 0)


def _strips(c: Canvas) -> None:
    for left in np.arange(-182, 182, 36):
        shadeful = shade(c.paint(c.pick("green", "dry grass", "soil", "grass"), 14), 0.95)
        c.texture(shadeful, 0.12, rectangle(float(left) + 18, 0, 33, 364))


@scene(
    exact=(
        "{n} {c} [bus is|buses are] parked in a (full/crowded) parking lot {near}",
        "(many/lots of) cars and {n} {c} [bus|buses] in the parking lot",
        "there [is|are] {n} {c} [bus|buses] among the cars of this parking lot",
        "a parking lot {near} holds many cars and {n} {c} [bus|buses]",
        "{n} {c} [bus|buses] and rows of cars {near}",
        "{n} {c} [bus stands|buses stand] in the {side} part of a parking lot",
    ),
    vague=(
        "{beside} can be seen on one side",
        "{some} {c} [bus|buses] can be seen from above",
        "many cars are parked in a parking lot",
        "(rows of cars/many cars) are in the parking lot {near}",
        "many cars and {some} [bus|buses] in a parking lot",
    ),
)
def parking(c: Canvas) -> Facts:
    """Rows of parked cars, and one row where a few buses stand."""
    colour, paint = c.pick("red", "blue", "yellow", "green"), c.paint("asphalt")
    c.texture(paint, 0.07)
    near = neighbour(c, "trees", "road", "buildings")
    bay = c.pick(-66, -18, 30)
    for y in np.arange(-162, 88, 24):
        if abs(y + 6 - bay) < 26:
            continue
        for x in stalls(c, float(y), -180, 180, 16):
            if c.rng.random() < 0.78:
                car(c, x, float(y), 90, c.paint(c.pick("white", "gray", "black", "gray", "white", "brown"), 16), 11.5)
    places = stalls(c, bay, -91, 91, 34, 14)
    for number in c.rng.permutation(len(places))[: c.count(5)]:
        bus(c, places[number], bay, 90, c.paint(colour))
        c.mark(places[number], bay)
    for x in (-120, -40, 40, 120):
        trees(c, 3, (x - 8, bay + 22, x + 8, bay + 25), 4.5)
    return Facts(colour, near)


@scene(
    exact=(
        "{n} {c} [boat is|boats are] {where} in the {water} water of the port",
        "there [is|are] {n} {c} ([boat|boats]/[ship|ships]) {where} in this port",
        "a port with {piers} and {n} {c} [boat|boats] {where}",
        "{n} {c} [boat|boats] {where} near {land}",
        "{n} {c} [boat|boats] in the {side} part of the {water} harbor",
        "the harbor has {piers} , {n} {c} [ship|ships] and {land}",
        "{land} on the shore and {n} {c} [boat|boats] {where}",
    ),
    vague=(
        "{land} beside {water} water",
        "{some} {c} [boat|boats] can be seen from above",
        "{some} [boat is|boats are] in a port",
        "{some} [boat|boats] and {land} in the port",
        "the water of the port is {water}",
    ),
)
def port(c: Canvas) -> Facts:
    """Water with one or two piers, boats moored or sailing, and warehouses or containers on the quay."""
    water, colour = c.pick("blue", "green"), c.pick("white", "red", "orange", "yellow", "black")
    land, moored, piers = c.pick("warehouses", "containers"), c.pick(True, False), c.pick((-4,), (-52, 52))
    c.texture(c.paint(f"{water} water"), 0.07)
    concrete = c.paint("concrete")
    c.shadow(rectangle(0, 122, 364, 150), 5)
    c.texture(concrete, 0.05, rectangle(0, 125, 364, 150))
    for pier in piers:
        c.shadow(rectangle(pier, -8, 11, 124), 4)
        c.polygon(rectangle(pier, -8, 12, 126), shade(concrete, 0.92))
    _quay(c, land)
    slots = [(float(pier + dx), float(y)) for pier in piers for dx in (-15, 15) for y in (-56, -22, 12)]
    count = c.count(5)
    if moored:
        for number in c.rng.permutation(len(slots))[:count]:
            x, y = slots[number]
            boat(c, x, y, c.pick(90, -90), c.paint(colour))
            c.mark(x, y)
    else:
        for x, y in c.spots(count, 40, (-95, -112, 95, -86) if count < 3 else (-112, -112, 112, -80)):
            boat(c, x, y, c.pick(0, 180) + c.between(-25, 25), c.paint(colour), wake=True)
            c.mark(x, y)
    where = "(moored/lying) (at/beside) the pier" if moored else "(sailing/moving) away from the pier"
    words = {"water": water, "land": f"(many/some/) {land}", "where": where}
    return Facts(colour, words | {"piers": "(a/one) pier" if len(piers) == 1 else "(two/2) piers"})


def _quay(c: Canvas, land: str) -> None:
    if land == "warehouses":
        for x in (-130, -66, 0, 66, 130):
            building(c, x, 90, 52, 34, 0, c.paint(c.pick("concrete", "gray", "brown"), 18))
        return
    for left in range(-165, 166, 17):
        for y in (74, 83, 92, 107, 116):
            if c.rng.random() < 0.85:
                c.shadow(rectangle(left, y, 15, 7), 2)
                c.polygon(rectangle(left, y, 15, 7), c.paint(c.pick("red", "blue", "orange", "green", "gray"), 16))


@scene(
    exact=(
        "{n} {c} [train|trains] in a railway station {roof}",
        "{n} {c} [train is|trains are] on the (rails/tracks/railways) {near}",
        "there [is|are] {n} {c} [train|trains] on the parallel railways of the station",
        "a railway station {roof} and {n} {c} [train|trains]",
        "{n} {c} [train stops|trains stop] at the railway station {near}",
        "the railway station has {n} {c} [train|trains] and {tracks} tracks",
        "{tracks} tracks are laid side by side and {n} of them [carries a|carry] {c} [train|trains]",
    ),
    vague=(
        "{beside} can be seen on one side",
        "{some} {c} [train|trains] can be seen from above",
        "{some} [train is|trains are] in a railway station",
        "a railway station is near {beside}",
        "many parallel rails are in the railway station",
    ),
)
def railwaystation(c: Canvas) -> Facts:
    """Parallel tracks on ballast with trains, and platforms with or without a roof."""
    colour, roof = c.pick("white", "red", "blue", "green", "yellow"), c.pick("white", "blue", "brown", "")
    tracks = c.pick(5, 6, 7)
    c.texture(c.paint("dry grass"), 0.12)
    middle = -20.0
    ys = [middle + (number - (tracks - 1) / 2) * 17 for number in range(tracks)]
    c.texture(shade(c.paint("brown"), 0.95), 0.1, rectangle(0, middle, 364, tracks * 17 + 6), 40)
    for y in ys:
        for x in np.arange(-182, 182, 5.5):
            c.line([(float(x), y - 4.4), (float(x), y + 4.4)], (78, 66, 56), 1.6)
        for rail in (-2.8, 2.8):
            c.line([(-182, y + rail), (182, y + rail)], (196, 192, 186), 1)
    for number in c.rng.permutation(tracks)[: c.count(min(5, tracks - 1))]:
        x = c.between(-34, 34)
        train(c, x, ys[number], c.pick(72, 96, 120), c.paint(colour))
        c.mark(x, ys[number])
    edge = middle + tracks * 8.5 + 12
    c.polygon(rectangle(0, edge, 250, 15), c.paint("concrete"))
    if roof:
        c.shadow(rectangle(0, edge, 180, 14), 6)
        c.polygon(rectangle(0, edge, 180, 15), c.paint(roof))
        c.line([(-90, edge), (90, edge)], shade(c.paint(roof), 0.8), 1.5)
    near = neighbour(c, "trees", "road", "buildings", "lot")
    number = {5: "(five/5)", 6: "(six/6)", 7: "(seven/7)"}[tracks]
    words = {"roof": f"with a {roof} roof" if roof else "without a roof", "tracks": number}
    return Facts(colour, words | near)
