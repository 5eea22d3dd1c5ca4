"""Writes docs/commands.md from the commands' own help: `python docs/make_commands.py` (or `make docs`)."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import VERBS, tercet

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """The reference as Markdown."""
    settings = {**tercet.context_settings, "max_content_width": 100, "terminal_width": 100}
    top = click.Context(tercet, info_name="tercet", **settings)
    parts = ["# Commands\n", f"```\n{tercet.get_help(top)}\n```\n"]
    for verb in VERBS:
        command = tercet.get_command(top, verb)
        if command is None:
            raise LookupError(verb)
        context = click.Context(
            command, info_name=verb, parent=top, max_content_width=100, terminal_width=100
        )
        parts.append(f"## tercet {verb}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
