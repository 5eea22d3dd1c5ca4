"""Queries by a causal language model on this machine (Promptagator: Dai et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from indexing.progress import Progress
from retrieval.compute import apply_threads, choose_device, choose_dtype
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.generation.generator import Answer, GeneratorOptions, seed_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LocalGenerator:
    """A model of transformers' AutoModelForCausalLM, several documents at a time.

    A model with a chat template is asked by it, any other continues a text. A document that does not fit what the
    model reads is shown as far as it fits. Tokens are drawn from random numbers of each query's own, so batches
    change no query, but for rounding.

    Attributes:
        model, tokenizer: as transformers loads them.
        device: where the model is.
        options: see ``GeneratorOptions``.
    """

    takes_title: ClassVar[bool] = False

    model: Any
    tokenizer: Any
    device: str
    options: GeneratorOptions

    @classmethod
    def open(cls, options: GeneratorOptions, documents: Iterable[Document], progress: Progress) -> Self:
        """Load the model.

        Raises:
            ConfigError: no model is named, it is not there, or it is no causal language model.
        """
        if not options.model:
            raise ConfigError(
                "the local generator needs a model: the folder or Hub id of a causal language model"
            )
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = locate(options.model)
        device = choose_device()
        dtype = getattr(torch, choose_dtype(device))
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"transformers cannot load a causal language model from {folder}: {error}"
            ) from error
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer of {folder} has no token that ends a text (eos_token)")
        return cls(model.eval().to(device), tokenizer, device, options)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the answers, but for rounding."""
        return {"generator": "local"} | self.options.of_language_models

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """Batch by batch.

        Raises:
            ConfigError: the examples alone are longer than what the model reads.
        """
        waiting = iter(documents)
        while group := list(islice(waiting, self.options.batch)):
            yield from self._answers(group)

    def _answers(self, group: Sequence[Document]) -> Iterator[Answer]:
        each = self.options.per_document
        prompts = [self._prompt(document) for document in group]
        seeds = [
            seed_of(self.options.seed, document.id, number) for document in group for number in range(each)
        ]
        written = self._continued([prompt for prompt in prompts for _ in range(each)], seeds)
        for place, (document, prompt) in enumerate(zip(group, prompts, strict=True)):
            own = written[place * each : (place + 1) * each]
            texts = self.tokenizer.batch_decode(own, skip_special_tokens=True)
            queries = tuple(self.options.prompt.query_of(text) for text in texts)
            yield Answer(document, queries, len(prompt) * each, sum(map(len, own)))

    def _continued(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[list[int]]:
        """The tokens that are written behind each prompt, without what comes after its end."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        from training.generation.seeded_sampling import LineEnd, SeededSampling

        ids, mask = self._padded(prompts)
        ends = self._ends()
        apply_threads()
        settings = GenerationConfig(
            max_new_tokens=self.options.max_tokens,
            do_sample=False,
            pad_token_id=self._padding(),
            eos_token_id=ends,
        )
        sampling = SeededSampling(seeds, self.options.temperature, self.device)
        try:
            with torch.inference_mode():
                found = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=settings,
                    logits_processor=LogitsProcessorList([sampling]),
                    stopping_criteria=StoppingCriteriaList([LineEnd(self.tokenizer, ids.shape[1])]),
                )
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"out of memory with {len(ids)} texts of {ids.shape[1]} tokens; lower --batch or --per-document"
            ) from error
        return [_until(row, {*ends, self._padding()}) for row in found[:, ids.shape[1] :].tolist()]

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """(B, L) token ids with the padding on the left, where nothing is written, and (B, L) 1 for real tokens."""
        import torch

        longest = max(map(len, prompts))
        rows = [[self._padding()] * (longest - len(prompt)) + prompt for prompt in prompts]
        masks = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(rows, device=self.device), torch.tensor(masks, device=self.device)

    def _prompt(self, document: Document) -> list[int]:
        """The tokens of the prompt, the document as long as there is room.

        Raises:
            ConfigError: there is room for nothing of it.
        """
        shown, room = valid_text(self.options.prompt.shown(document)), self._room()
        while (over := len(ids := self._tokens(shown)) - room) > 0:
            length = len(self.tokenizer(shown, add_special_tokens=False)["input_ids"])
            if over >= length:
                raise ConfigError(
                    f"{self.options.model} reads {room} tokens beside those it writes, and instruction and examples "
                    f"are {len(ids) - length}; give fewer or shorter examples"
                )
            shown = shown[: len(shown) * (length - over) // length]
        return ids

    def _tokens(self, shown: str) -> list[int]:
        prompt = self.options.prompt
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(valid_text(prompt.text(shown)))["input_ids"])
        text = self.tokenizer.apply_chat_template(
            prompt.messages(shown), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return list(self.tokenizer(valid_text(text), add_special_tokens=False)["input_ids"])

    def _room(self) -> int:
        """Tokens of a prompt."""
        known = (getattr(self.model.config, "max_position_embeddings", None), self.tokenizer.model_max_length)
        return min(int(length) for length in known if length) - self.options.max_tokens

    def _padding(self) -> int:
        padding = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if padding is None else padding)

    def _ends(self) -> list[int]:
        """The tokens that end a text, of which a chat model may have several."""
        own = self.model.generation_config.eos_token_id
        return sorted({self.tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])})


def _until(row: list[int], ends: set[int]) -> list[int]:
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
