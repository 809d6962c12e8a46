"""Display of cards on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from cmer.backbones.open_clip.cards import NOT_STATED, Card, UrlWeights

NAMES = {"gelu": "GELU", "quick_gelu": "QuickGELU"}


def cards_table(cards: Mapping[str, Card]) -> Table:
    """One row per card."""
    table = Table(box=box.SIMPLE_HEAD, caption="`cmer backbones NAME` prints a card in full, with its sources.")
    table.add_column("backbone", no_wrap=True)
    table.add_column("M", justify="right")
    for name in ("activation", "licence", "trained on", "test data that it may have seen"):
        table.add_column(name)
    for name, card in cards.items():
        seen = "; ".join(f"{dataset}: {what}" for dataset, what in card.seen.items()) or NOT_STATED
        millions = f"{card.parameters / 1e6:.1f}"
        table.add_row(name, millions, NAMES[card.activation], card.licence, card.trained_on, seen)
    return table


def card_lines(card: Card) -> list[str]:
    """Everything on a card."""
    megabytes = NOT_STATED if card.megabytes is None else f"{card.megabytes:,.0f} MB"
    checksum = card.weights.sha256 if isinstance(card.weights, UrlWeights) else None
    return [
        f"{card.title}: {card.model} of open_clip, {card.parameters:,} parameters",
        f"weights: {card.weights.named()}; {megabytes}; SHA-256 {checksum or NOT_STATED}",
        f"activation: {NAMES[card.activation]} ({card.evidence})",
        f"licence: {card.licence}",
        f"trained on: {card.trained_on}",
        *(f"{dataset}: {card.seen.get(dataset, NOT_STATED)}" for dataset in ("rsicd", "rsitmd", "ucm", "sydney")),
        f"paper: {card.citation}",
        *(f"source: {fact}" for fact in card.facts),
    ]
