"""Everything that decides how a SPLADE encoder is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How the head is made and trained.

    Attributes:
        model: the dense model (see ``locate``).
        max_length: tokens of a text.
        batch: triplets in a step; all other documents of a batch are negatives of a query.
        encoder_lr, head_lr: AdamW's peaks, reached after ``warmup`` of the steps and falling linearly to 0.
        warmup: share of the steps.
        document_flops, query_flops: weights of the FLOPS regularisers, rising quadratically over the first third.
        document_terms, query_terms: texts with no more terms than that are not regularised; the former is also how
            many terms documents are pruned to, on average.
        fit_pairs: pairs of a query and its document that the head is initialised from.
        threshold: standard deviations above its mean at which a term's logit becomes positive.
        own_logit: mean positive logit of a token for its own term after initialisation.
        dev_queries: queries of each data set that are held out.
        dev_documents: documents of each data set that the held-out queries are searched in.
        seed: of every choice.
    """

    model: str = "default"
    max_length: int = 96
    batch: int = 32
    encoder_lr: float = 5e-5
    head_lr: float = 5e-4
    warmup: float = 0.06
    document_flops: float = 3e-3
    query_flops: float = 5e-3
    document_terms: int = 120
    query_terms: int = 30
    fit_pairs: int = 600
    threshold: float = 5.0
    own_logit: float = 3.0
    dev_queries: int = 50
    dev_documents: int = 500
    seed: int = 0
