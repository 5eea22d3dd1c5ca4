"""One vector a token on our own engine: the last hidden states, and what a late-interaction model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.sparse_rows import row_offsets
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import QUERY_WEIGHTS
from retrieval.encoders.transformer.attention import TokenRun
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.direct import lay_out, run_batches
from retrieval.encoders.transformer.late_recipe import LateRecipe
from retrieval.encoders.transformer.pooling import load_projection
from retrieval.encoders.transformer.query_weights import QueryTokenWeights
from retrieval.encoders.transformer.token_reader import TokenReader
from retrieval.encoders.transformer.tokens import Piece
from retrieval.values import MultiVector

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenEngine:
    """A BERT-like model; texts in, ragged token vectors out.

    Attributes:
        readers: texts to ids, by task.
        bert: ids to hidden states.
        steps: what follows, each (T, D) float32 to (T, D').
        query_weights: what a query's vectors are scaled by, or None.
        width: of the vectors.
        device: torch device name.
    """

    readers: Mapping[str, TokenReader]
    bert: Bert
    steps: tuple[Step, ...]
    query_weights: QueryTokenWeights | None
    width: int
    device: str

    def encode(self, texts: Sequence[str], tally: Tally, task: str) -> MultiVector:
        """One row a text, of float32 vectors; long texts are cut and counted, fillers are not counted."""
        apply_threads()
        reader = self.readers[task]
        tokens = reader(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        windows = reader.windows(tokens)
        batches, parts = run_batches(windows.tokens, self.device, lambda ids: self._forward(ids, task))
        found = MultiVector.concat(parts).take(np.argsort(np.concatenate(batches)))
        return MultiVector(found.indptr[windows.starts], found.values)

    def pieces(self, text: str, task: str) -> list[Piece]:
        """What the vectors of a text stand for, one for each."""
        return self.readers[task].pieces(text)

    def _forward(self, ids: list[NDArray[np.int32]], task: str) -> MultiVector:
        """Rows of texts that are sorted by descending length."""
        reader = self.readers[task]
        kept = [reader.kept(part) for part in ids]
        with torch.inference_mode():
            flat, runs = lay_out([reader.fill(part) for part in ids], self.device)
            seen = (
                runs if reader.rules.attends else attend_first(runs, [len(part) for part in ids], self.device)
            )
            hidden = self.bert(flat, seen)
            padded = runs[0].mask()
            if padded is not None:
                hidden = hidden[padded.view(-1)]
            chosen = torch.from_numpy(np.concatenate(kept)).to(self.device)
            x = hidden[chosen].float()
            for step in self.steps:
                x = step(x)
            if self.query_weights is not None and task == "query":
                read = torch.from_numpy(np.concatenate([reader.fill(part) for part in ids])).to(self.device)
                x = x * self.query_weights.scales(read[chosen].long()).unsqueeze(1)
            values: NDArray[np.float32] = x.cpu().numpy()
        return MultiVector(row_offsets([int(keep.sum()) for keep in kept]), values)


def attend_first(runs: Sequence[TokenRun], lengths: Sequence[int], device: str) -> list[TokenRun]:
    """The runs such that of every text only so many first tokens are attended to, by all of its tokens."""
    changed: list[TokenRun] = []
    row = 0
    for run in runs:
        own = lengths[row : row + run.n]
        row += run.n
        if min(own) < run.length:
            run = replace(run, lengths=torch.tensor(own, device=device))
        changed.append(run)
    return changed


def load_token_engine(recipe: LateRecipe, *, device: str, dtype: str) -> TokenEngine:
    """Read weights and tokenizer.

    Raises:
        ConfigError: queries are to be filled up, but the tokenizer has no token for that.
        CorruptError: a file is damaged.
    """
    checkpoint = recipe.checkpoint
    bert = load_bert(checkpoint.transformer, checkpoint.config, device, dtype)
    lower_case = bool(checkpoint.wrapper.get("do_lower_case", False))
    rules = {"query": recipe.query, "document": recipe.document}
    return TokenEngine(
        readers={task: TokenReader(checkpoint.transformer, rule, lower_case) for task, rule in rules.items()},
        bert=bert,
        steps=_load_steps(checkpoint, device) if recipe.trained else (_normalize,),
        query_weights=_load_query_weights(checkpoint, device) if recipe.trained else None,
        width=recipe.width or bert.width,
        device=device,
    )


def _load_steps(checkpoint: Checkpoint, device: str) -> tuple[Step, ...]:
    """The modules behind the transformer that change vectors, in their order."""
    projections = iter(checkpoint.projections)
    steps: list[Step] = []
    for kind in checkpoint.types:
        if kind == "Dense":
            steps.append(load_projection(next(projections), device))
        elif kind == "Normalize":
            steps.append(_normalize)
    return tuple(steps)


def _load_query_weights(checkpoint: Checkpoint, device: str) -> QueryTokenWeights | None:
    places = [folder for kind, folder, _ in checkpoint.modules if kind == QUERY_WEIGHTS]
    return QueryTokenWeights.load(str(places[0])).to(device) if places else None


def _normalize(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)
