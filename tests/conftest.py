"""Fixtures that several packages' tests share."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# No deadline, since kernels compile during the first example. The examples are the same ones at every run of continuous
# integration, so that a change is judged by itself; at a desk they are new each time.
settings.register_profile("tercet", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tercet")

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
            from sentence_transformers.sentence_transformer.modules import (
                Dense,
                Normalize,
                Pooling,
                Transformer,
            )

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
def tiny_codes(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random book of 12 codes and 16 features for the tiny BERT."""
    from retrieval.encoders.codes.book import CodeBook, CodeSettings
    from retrieval.encoders.transformer.checkpoint import read_checkpoint
    from retrieval.encoders.transformer.identity import checkpoint_digest

    rng, n_pieces = np.random.default_rng(4), len(VOCABULARY)
    codes = rng.normal(size=(12, 8))
    counts = np.array([piece.isalpha() and piece not in ("the", "a", "of", "and") for piece in VOCABULARY])
    digest = checkpoint_digest(read_checkpoint(tiny_bert.resolve()))
    book = CodeBook(
        CodeSettings(str(tiny_bert), digest, words=6, document_codes=3, document_features=4, token_codes=2),
        projection=rng.normal(size=(32, 8)).astype(np.float16),
        codes=(codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float16),
        feature_directions=rng.integers(-127, 128, (16, 32)).astype(np.int8),
        feature_scales=rng.uniform(0.005, 0.01, 16).astype(np.float16),
        feature_bias=rng.normal(0, 0.1, 16).astype(np.float32),
        feature_mean=rng.normal(0, 0.05, 32).astype(np.float16),
        word_idf=rng.uniform(1, 9, 1024).astype(np.float16),
        piece_idf=(counts * rng.uniform(1, 9, n_pieces)).astype(np.float16),
        static_codes=rng.integers(0, 12, (n_pieces, 2)).astype(np.int16),
        static_code_weights=rng.uniform(0, 1, (n_pieces, 2)).astype(np.float16),
        static_signs=rng.integers(0, 256, (n_pieces, 4)).astype(np.uint8),
        static_scales=rng.uniform(0.02, 0.1, n_pieces).astype(np.float16),
        static_matrix=rng.normal(0, 0.3, (32, 32)).astype(np.float16),
        static_mean=rng.normal(0, 0.1, 32).astype(np.float16),
        names=tuple(f"~ {number}" for number in range(28)),
    )
    folder = tmp_path_factory.mktemp("codes")
    book.save(folder)
    return folder


@pytest.fixture(scope="session")
def with_heads(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that puts heads behind the tiny BERT, trained as it were, and returns the folder."""

    def make(kind: type, seed: int = 5, **arguments: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from sentence_transformers import SentenceTransformer

            torch.manual_seed(seed)
            heads = kind(32, 32, **arguments)
            with torch.no_grad():
                for parameter in heads.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
            modules = [*SentenceTransformer(str(tiny_bert), device="cpu").children(), heads]
            folder = tmp_path_factory.mktemp("heads")
            model = SentenceTransformer(modules=modules, similarity_fn_name="dot", device="cpu")
            model.save(str(folder), create_model_card=False)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_multivariate(with_heads: Callable[..., Path]) -> Path:
    """A random multivariate model of 7 dimensions."""
    from retrieval.encoders.transformer.gaussian_heads import GaussianHeads

    return with_heads(GaussianHeads, dim=7)


@pytest.fixture(scope="session")
def tiny_hypencoder(with_heads: Callable[..., Path]) -> Path:
    """A random hypencoder whose networks have two hidden layers in the paper's form."""
    from retrieval.encoders.transformer.hyper_heads import HyperHeads

    return with_heads(HyperHeads, layers=2)


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


class EmbeddingsServer(ThreadingHTTPServer):
    """A loopback stand-in for an OpenAI-compatible embeddings endpoint.

    Attributes:
        width: of the vectors it answers with; the vector of a text depends on the text alone.
        requests: (headers, body) of every request.
        script: what to do instead of answering, one entry a request: (status, headers, body).
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, width: int) -> None:
        super().__init__(("127.0.0.1", 0), EmbeddingsHandler)
        self.width = width
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.script: list[tuple[int, dict[str, str], Any]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def vector(self, text: str, width: int) -> list[float]:
        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4])
        return np.random.default_rng(seed).normal(size=width).tolist()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that gave up waiting


class EmbeddingsHandler(BaseHTTPRequestHandler):
    server: EmbeddingsServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((dict(self.headers), body))
        status, headers, answer = 200, {}, None
        if self.path != "/v1/embeddings":
            status, answer = 404, {"error": {"message": "no such page"}}
        elif self.server.script:
            status, headers, answer = self.server.script.pop(0)
        if answer is None:
            width = body.get("dimensions", self.server.width)
            data = [
                {"index": i, "embedding": self.server.vector(text, width)}
                for i, text in enumerate(body["input"])
            ]
            answer = {"data": data[::-1], "usage": {"total_tokens": 3 * len(data)}}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def embeddings_server() -> Iterator[Callable[..., EmbeddingsServer]]:
    """A function that starts an embeddings endpoint on a free port; all stop with the test."""
    running: list[tuple[EmbeddingsServer, threading.Thread]] = []

    def start(width: int = 16) -> EmbeddingsServer:
        server = EmbeddingsServer(width)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
