"""Options of ``tercet generate`` that only generators with a language model read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexing.cli_options import named_values
from indexing.command_line import reading_options, refuse_given

if TYPE_CHECKING:
    from training.generation.generator import GeneratorOptions

OF_MODELS = (
    "model",
    "examples",
    "instruction",
    "document_label",
    "query_label",
    "document_words",
    "temperature",
    "max_tokens",
)
"""Parameters that both kinds of language models read."""
OF_ENDPOINTS = ("url", "api", "api_key_env", "concurrency", "timeout", "retries", "request")
OF_LOCAL = ("batch",)

_PROMPTS = (
    click.option("--model", help="endpoint: the name the server knows it by; local: a folder or Hub id."),
    click.option(
        "--examples",
        type=click.Path(dir_okay=False, path_type=Path),
        help='Up to 8 examples, JSON Lines with "document" and "query"; they decide what queries are like.',
    ),
    click.option("--instruction", help="What to write, in a sentence or two.  [default: a search query]"),
    click.option("--document-label", default="Document", show_default=True, help="Stands before documents."),
    click.option("--query-label", default="Query", show_default=True, help="Stands before queries."),
    click.option(
        "--document-words",
        type=click.IntRange(1),
        default=350,
        show_default=True,
        help="Words of a document that the model is shown.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(0),
        default=0.7,
        show_default=True,
        help="Of the tokens that are drawn; 0 takes the likeliest.",
    ),
    click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Of a query."),
)
_REQUESTS = (
    click.option(
        "--url",
        default="https://api.openai.com/v1",
        show_default=True,
        help="Address of the endpoint, with its /v1.",
    ),
    click.option(
        "--api",
        type=click.Choice(["chat", "completions"]),
        default="chat",
        show_default=True,
        help="A chat of turns, or a text to go on with (for models that were not taught to chat).",
    ),
    click.option(
        "--api-key-env",
        default="OPENAI_API_KEY",
        show_default=True,
        metavar="NAME",
        help="Environment variable with the key, which is sent where it is set.",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Requests under way at a time.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=120.0,
        show_default=True,
        help="Seconds that an answer may take.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=5,
        show_default=True,
        help="Further attempts after a passing failure, such as 429.",
    ),
    click.option(
        "--request",
        multiple=True,
        metavar="NAME=VALUE",
        help="Further key of every request, JSON or text; null takes one out (repeatable).",
    ),
)
_BATCHES = (
    click.option(
        "--batch",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Documents that a local model reads at a time.",
    ),
)


def language_model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of them, on a command."""
    for option in reversed((*_PROMPTS, *_REQUESTS, *_BATCHES)):
        command = option(command)
    return command


def refuse_useless(generator: str) -> None:
    """Refuse options of the running verb that this generator does not read.

    Raises:
        click.UsageError: one was given, or there is no such generator.
    """
    from retrieval.errors import unknown_name
    from training.generation.table import GENERATORS, LANGUAGE_MODELS

    if generator not in GENERATORS:
        with reading_options():
            raise unknown_name("generator", generator, GENERATORS)
    if generator not in LANGUAGE_MODELS:
        refuse_given(OF_MODELS, "goes with --with endpoint or --with local")
    if generator != "endpoint":
        refuse_given(OF_ENDPOINTS, "goes with --with endpoint")
    if generator != "local":
        refuse_given(OF_LOCAL, "goes with --with local")


def generator_options(given: Mapping[str, Any], per_document: int, seed: int) -> GeneratorOptions:
    """What a generator is opened with, of what ``language_model_options`` were given.

    Raises:
        FormatError: the examples are malformed; names file and line.
        click.BadParameter: a key of a request is no NAME=VALUE.
    """
    from training.generation.generator import GeneratorOptions
    from training.generation.prompts import INSTRUCTION, Prompt, read_examples

    prompt = Prompt(
        instruction=INSTRUCTION if given["instruction"] is None else given["instruction"],
        examples=read_examples(given["examples"]) if given["examples"] else (),
        document_label=given["document_label"],
        query_label=given["query_label"],
        words=given["document_words"],
    )
    alike = (
        "temperature",
        "max_tokens",
        "url",
        "api",
        "api_key_env",
        "concurrency",
        "timeout",
        "retries",
        "batch",
    )
    return GeneratorOptions(
        per_document=per_document,
        seed=seed,
        model=given["model"] or "",
        prompt=prompt,
        request=named_values(given["request"], "--request"),
        **{name: given[name] for name in alike},
    )
