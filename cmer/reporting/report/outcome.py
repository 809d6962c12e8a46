"""What came out on each dataset, in sentences for readers who know no metric."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cmer.reporting.comparison import compare
from cmer.reporting.measured import NOTES, TRANSDUCTIVE, Measured, number
from cmer.reporting.report.runs import RunPage
from cmer.retrieval.evaluate import read_hits

PLAIN = "none"
"""Label protocol of the captions as they are."""


def outcomes(pages: Sequence[RunPage]) -> list[Markup]:
    """A paragraph per dataset: its best run, the runner-up, and whether their difference exceeds the noise.

    Runs are compared under plain queries; on a dataset without these, under the first protocol of its first run. A
    difference is within the noise where its paired bootstrap interval includes zero, as in the tables.

    Raises:
        UserError: the ranks of a run are missing, or the test splits of two runs differ.
    """
    by_dataset: dict[str, list[RunPage]] = {}
    for page in pages:
        by_dataset.setdefault(page.run.dataset, []).append(page)
    return [_outcome(group) for group in by_dataset.values()]


def _outcome(pages: Sequence[RunPage]) -> Markup:
    found = [row.protocol for page in pages for row in page.recalls]
    protocol = PLAIN if PLAIN in found else found[0]
    rows = [(page, row) for page in pages for row in page.recalls if row.protocol == protocol]
    (first, best), *others = sorted(rows, key=lambda one: -one[1].mr)
    place = Markup("On {}, {}").format(first.run.dataset_title, _link(first))
    score = f"mR\u00a0{_score(best)} {_circumstances(best)}"
    if not others:
        return place + f" is the only system: {score}. There is none to compare it with."
    won = f" scores highest among {len(rows)} systems at finding the right image or caption: {score}."
    return place + won + _runner_up(best, others)


def _runner_up(best: Measured, others: Sequence[tuple[RunPage, Measured]]) -> Markup:
    """The sentence on the first of the other runs, which are in order."""
    page, row = others[0]
    lead, *further = [compare(best, other) for _, other in others]
    if lead.supported:
        verdict = f"the difference of {number(lead.estimate)} points exceeds the noise"
        if len(best.seeds) == 1:
            verdict += " of the test images, but there is only one seed, and another may differ"
    else:
        close = sum(not one.supported for one in further)
        verdict = "the difference is within the noise"
        verdict += f", as {'are those' if close > 1 else 'is that'} from {close} more" * (close > 0)
    return Markup(" The runner-up is {} ({}); {}.").format(_link(page), _score(row), verdict)


def _score(row: Measured) -> str:
    return number(row.mr) if row.mr_std is None else f"{number(row.mr)}\u00a0±\u00a0{number(row.mr_std)}"


def _circumstances(row: Measured) -> str:
    seeds, images = len(row.seeds), len(read_hits(row.ranks[0], row.protocol).ids)
    queries = "with plain captions" if row.protocol == PLAIN else f"under label protocol {row.protocol}"
    facts = [f"{seeds} seed{'s' * (seeds > 1)}", f"{images:,} test image{'s' * (images > 1)}"]
    facts += [NOTES[row.protocol]] if row.protocol in NOTES else []
    facts += [TRANSDUCTIVE] if row.run.reranker and row.run.reranker.transductive else []
    return f"{queries} ({', '.join(facts)})"


def _link(page: RunPage) -> Markup:
    return Markup('<a href="#{}">{}</a>').format(page.run.anchor, page.run.name)
