"""Fixtures that several packages' tests share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    "alpha beta gamma delta river mountain search engine index vector query document the a of and in is "
    "cat dog bird fish red green blue fast slow old new"
).split()
PIECES = ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *WORDS,
    *"abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-",
    *PIECES,
]
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "initializer_range": 0.4,
    "pad_token_id": 0,
}
"""A model small enough for a second, with weights large enough that its vectors differ."""


def save_transformer(folder: Path, kind: str, max_length: int = 32, **config: Any) -> None:
    """A random transformer with a small WordPiece tokenizer, as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    numbers = {piece: number for number, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(7)
    AutoModel.from_config(AutoConfig.for_model(kind, **(SIZES | config))).save_pretrained(folder)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that saves a random sentence-transformers checkpoint and returns its folder."""
    made: dict[str, Path] = {}

    def make(
        kind: str = "bert",
        pooling: str | tuple[str, ...] = "mean",
        project: int | None = None,
        normalize: bool = True,
        prompts: dict[str, str] | None = None,
        max_length: int = 32,
        **config: Any,
    ) -> Path:
        key = json.dumps([kind, pooling, project, normalize, prompts, max_length, config])
        if key in made:
            return made[key]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

            plain = tmp_path_factory.mktemp("transformer")
            save_transformer(plain, kind, max_length, **config)
            modules = [Transformer(str(plain)), Pooling(32, pooling)]
            width = 32 * (1 if isinstance(pooling, str) else len(pooling))
            if project is not None:
                torch.manual_seed(8)
                modules.append(Dense(width, project))
            if normalize:
                modules.append(Normalize())
            folder = tmp_path_factory.mktemp("checkpoint")
            similarity = "cosine" if normalize else "dot"
            model = SentenceTransformer(
                modules=modules, prompts=prompts or {}, similarity_fn_name=similarity, device="cpu"
            )
            model.save(str(folder))
        made[key] = folder
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bert(make_checkpoint: Callable[..., Path]) -> Path:
    """A random two-layer BERT of width 32 that reads 32 tokens, as a sentence-transformers folder."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random cross-encoder of the same size with one output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        folder = tmp_path_factory.mktemp("cross-encoder")
        save_transformer(folder, "bert")
        torch.manual_seed(9)
        config = AutoConfig.for_model("bert", num_labels=1, **SIZES)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder
