"""Command that lists published weights."""

from __future__ import annotations

import typer

from cmer.errors import UserError

app = typer.Typer(no_args_is_help=True)


@app.command()
def backbones(
    name: str = typer.Argument("", help="Print this card alone, in full, e.g. georsclip_vit_b_32."),
) -> None:
    """List the published weights that a config can name: size, activation, licence, and what they were trained on.

    The column of test data says what the weights may have seen of RSICD, RSITMD, UCM-Captions and Sydney-Captions. What
    their authors do not state is not stated here.
    """
    from cmer.backbones.open_clip.cards import card, card_names
    from cmer.backbones.open_clip.show import card_lines, cards_table
    from cmer.progress import console

    if name:
        try:
            found = card(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        for line in card_lines(found):
            typer.echo(line)
        return
    terminal = console()
    (terminal if terminal.is_terminal else console(width=160)).print(cards_table({n: card(n) for n in card_names()}))
