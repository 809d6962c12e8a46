"""Profiles of the tiny backbone."""

from functools import cache

import torch

from cmer.config.base import validate
from cmer.profiling.spec import ProfileSpec
from cmer.profiling.step import Model, Step

TINY = {"kind": "tiny", "printed": "tiny"}
SMALL = {"hidden": 24, "heads": 2}


def spec(*methods, backbone=TINY, count_only=False, **options):
    rows = [{"run": f"tiny.{m}", "method": m, "options": SMALL if m == "cmer" else {}} for m in methods]
    profile = {"batches": [2, 4], "threads": 1} | options
    given = {"name": "tiny", "backbone": backbone, "rows": rows, "profile": profile, "count_only": count_only}
    return validate(ProfileSpec, given, "spec")


@cache
def model_of(method):
    torch.set_num_threads(1)
    asked = spec(method)
    return Model.build(asked, asked.rows[0])


def step_of(method, setting="today", size=2):
    asked = spec(method)
    return Step(model_of(method), asked, asked.rows[0], setting, size)
