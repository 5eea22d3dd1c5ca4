"""The `tercet` command: assembles the verbs that each package owns, importing a package only when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from indexing.command_line import HELP, run

VERBS = {
    "index": "indexing.cli:index_command",
    "search": "service.search_cli:search_command",
    "serve": "service.serve_cli:serve_command",
    "eval": "eval.cli:command",
    "add": "indexing.cli:add_command",
    "delete": "indexing.cli:delete_command",
    "compact": "indexing.cli:compact_command",
    "verify": "indexing.cli:verify_command",
    "info": "indexing.cli:info_command",
    "tune": "indexing.cli:tune_command",
    "upgrade": "indexing.cli:upgrade_command",
    "encode": "indexing.cli:encode_command",
    "warm": "indexing.cli:warm_command",
    "train": "training.cli:train_command",
    "generate": "training.generation.cli:generate_command",
    "demo": "service.demo_cli:demo_command",
}
"""Verb -> where its command is, in the order help lists them."""


class Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, most used first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a verb."""
        if name not in VERBS:
            return None
        module, attribute = VERBS[name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{VERBS[name]} is no click command")
        return command


ABOUT = """Index, search, serve and evaluate text with BM25, dense and hybrid retrieval.

\b
  tercet index corpus.jsonl -o my-collection
  tercet search my-collection "what you look for"
  tercet serve my-collection

Exit codes: 0 done, 1 data or runtime error, 2 wrong usage. --debug shows tracebacks.
"""


@click.group(
    cls=Verbs,
    help=ABOUT,
    context_settings={**HELP, "max_content_width": 110},
)
@click.version_option(package_name="tercet", prog_name="tercet")
def tercet() -> None:
    """The command that the verbs belong to."""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(tercet))


if __name__ == "__main__":
    main()
