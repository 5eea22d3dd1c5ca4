"""A corpus, an endpoint that writes queries and misbehaves on request, and a tiny causal language model."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TEXTS = (
    "The river rises in the mountain and runs fast. Red fish swim there! A bird waits on the bank.",
    "An engine turns fuel into motion. The old engine of the boat was slow, the new one is quick.",
    "Search engines keep an index of words. A query looks its words up in the index and adds scores.",
    "Cats sleep most of the day. Dogs sleep less, and follow people where they go.",
    "Green leaves make sugar of light and water. Blue light is used best by the leaf.",
    "A vector has a length and a direction. Two vectors give a number, the inner product.",
)
TITLES = ("River", "Engine", "Search", "Animals", "Leaves", "Vectors")


def write_corpus(path: Path, texts: tuple[str, ...] = TEXTS, titles: tuple[str, ...] = TITLES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"_id": f"d{i}", "title": title, "text": text}
        for i, (title, text) in enumerate(zip(titles, texts, strict=True))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six documents, d0 to d5."""
    return write_corpus(tmp_path / "source" / "corpus.jsonl")


class CompletionsServer(ThreadingHTTPServer):
    """A loopback stand-in for an OpenAI-compatible server that chats and completes.

    Attributes:
        requests: (path, headers, body) of every request.
        script: what to do instead of answering, one entry a request: (status, headers, body).
        refusing: words; a request whose document holds one of them is answered with 400.
        choices: most choices of an answer, whatever is asked for.
        blocked: the requests from this number on wait for ``release``.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CompletionsHandler)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.refusing: tuple[str, ...] = ()
        self.choices = 100
        self.blocked: int | None = None
        self.release = threading.Event()
        self.held = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self) -> list[str]:
        """The last document of every request, by its first word."""
        return [document_of(body).split()[0] for _, _, body in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that gave up waiting


def document_of(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return re.findall(r"Document: (.*?)(?:\nQuery:|\Z)", said, flags=re.DOTALL)[-1]


class CompletionsHandler(BaseHTTPRequestHandler):
    server: CompletionsServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers), body))
            status, headers, answer = self.server.script.pop(0) if self.server.script else (200, {}, None)
        if self.server.blocked is not None and number >= self.server.blocked:
            self.server.held.set()
            self.server.release.wait(60)
        document = document_of(body)
        if any(word in document for word in self.server.refusing):
            status, answer = 400, {"error": {"message": "context too long"}}
        content = (
            answer
            if isinstance(answer, bytes)
            else json.dumps(answer or self._written(body, document)).encode()
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _written(self, body: dict[str, Any], document: str) -> dict[str, Any]:
        """As many queries as are asked for, each of another two words of the document, as the seed says."""
        words = document.split()
        n = min(body.get("n", 1), self.server.choices)
        starts = [(body["seed"] + 3 * i) % (len(words) - 1) for i in range(n)]
        texts = [
            f'Query: "what about {words[start]} {words[start + 1]}"\n\nI hope this helps.' for start in starts
        ]
        if self.path.endswith("/chat/completions"):
            choices = [{"message": {"role": "assistant", "content": text}} for text in texts]
        else:
            choices = [{"text": text} for text in texts]
        return {"choices": choices, "usage": {"prompt_tokens": len(words), "completion_tokens": 5 * n}}

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    """An endpoint on a free port."""
    running = CompletionsServer()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.release.set()
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that saves a random GPT-2 of two layers, with a tokenizer made of the texts above."""

    def make(chat_template: str | None = None, n_positions: int = 256) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
            from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

            folder = tmp_path_factory.mktemp("lm")
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=300,
                special_tokens=["<end>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            tokenizer.train_from_iterator([*TEXTS, "Document: Query:\n\n"], trainer)
            wrapped = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, eos_token="<end>", model_max_length=n_positions
            )
            wrapped.chat_template = chat_template
            wrapped.save_pretrained(folder)
            torch.manual_seed(5)
            config = GPT2Config(
                vocab_size=len(wrapped),
                n_positions=n_positions,
                n_embd=32,
                n_layer=2,
                n_head=2,
                initializer_range=0.3,
                bos_token_id=0,
                eos_token_id=0,
            )
            GPT2LMHeadModel(config).save_pretrained(folder)
        return folder

    return make
