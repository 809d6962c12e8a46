"""The graph of the workflow's steps."""

import re
from itertools import combinations

from cmer.reporting.report.graph import HEIGHT, WIDTH, graph
from cmer.reporting.report.statistics import Phase

READS = {"data": [], "train": ["data"], "embed": ["data", "train"], "cost": [], "tables": ["embed", "cost"]}
PHASES = [Phase(title, reads, 2, 3.0, 4) for title, reads in READS.items()]


def test_every_step_is_above_those_that_read_it_and_no_box_covers_another() -> None:
    found = graph(PHASES)
    boxes = {one.phase.title: one for one in found.boxes}
    assert set(boxes) == set(READS)
    for title, reads in READS.items():
        assert all(boxes[source].y + HEIGHT < boxes[title].y for source in reads)
    for one, other in combinations(found.boxes, 2):
        assert one.y != other.y or abs(one.x - other.x) >= WIDTH
    assert boxes["cost"].y == boxes["embed"].y  # as late as it can be
    assert all(0 <= one.x <= found.width - WIDTH and 0 <= one.y <= found.height - HEIGHT for one in found.boxes)


def test_lines_join_boxes_without_detours() -> None:
    found = graph(PHASES)
    at_bottom = {(one.x + WIDTH / 2, one.y + HEIGHT): one.phase.title for one in found.boxes}
    at_top = {(one.x + WIDTH / 2, one.y): one.phase.title for one in found.boxes}
    joined = set()
    for line in found.lines:
        numbers = [float(number) for number in re.findall(r"[\d.]+", line)]
        joined.add((at_bottom[tuple(numbers[:2])], at_top[tuple(numbers[-2:])]))
    assert joined == {
        ("data", "train"),
        ("train", "embed"),
        ("embed", "tables"),
        ("cost", "tables"),
    }  # not data to embed
    assert graph([]) == (0, 0, [], [])


def test_a_line_past_a_layer_crosses_no_box() -> None:
    reads = {"train": [], "embed": ["train"], "bank": ["train"], "evaluate": ["embed", "bank"], "maps": ["train"]}
    reads["figures"] = ["evaluate", "maps"]
    found = graph([Phase(title, read, 1, 1.0, 1) for title, read in reads.items()])
    boxes = {one.phase.title: one for one in found.boxes}
    assert boxes["maps"].y == boxes["evaluate"].y > boxes["embed"].y
    (line,) = (line for line in found.lines if "V" in line)  # from train to maps
    x, bottom = map(float, re.search(r"([\d.]+) [\d.]+V([\d.]+)C", line).groups())
    assert bottom == boxes["embed"].y + HEIGHT
    assert not any(boxes[title].x <= x <= boxes[title].x + WIDTH for title in ("embed", "bank"))
    assert line.endswith(f" {boxes['maps'].x + WIDTH / 2:g} {boxes['maps'].y:g}")
    assert all(0 <= one.x <= found.width - WIDTH for one in found.boxes) and 0 <= x <= found.width
