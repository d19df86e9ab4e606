"""Bits per byte counts every byte of a document once, whatever rows it is cut into."""

import math

import numpy as np
import pytest
import torch

from penjing.config.model import ModelConfig
from penjing.data.batches import pad_rows
from penjing.evaluate.bits_per_byte import TextLoss, document_windows, text_loss
from penjing.model.initialization import initialize
from penjing.model.transformer import Transformer
from penjing.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = ("A small fox ran home.", "Das Öl ist heiß — 水も熱い。", "x" * 50)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    shape = ModelConfig(depth=2, hidden_size=32, head_dim=16, max_position_embeddings=16)
    built = Transformer(shape.shape(tokenizer.vocab_size))
    initialize(built, 1)
    torch.nn.init.normal_(built.head_weight)
    return built


def test_bytes_of_fully_scored_documents_are_the_bytes_of_their_text(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    documents = [tokenizer.encode(text) for text in TEXTS]
    windows = document_windows(documents, tokenizer.end_of_text, 16, rows=2)

    loss = text_loss(model, windows, tokenizer.byte_lengths())

    assert loss.num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert loss.tokens == sum(map(len, documents))


def test_a_model_that_knows_nothing_pays_the_entropy_of_the_vocabulary(
    tokenizer: Tokenizer,
) -> None:
    shape = ModelConfig(depth=1, hidden_size=32, head_dim=16).shape(tokenizer.vocab_size)
    uniform = Transformer(shape)  # all zero: every id is equally likely
    documents = [tokenizer.encode(text) for text in TEXTS]

    loss = text_loss(
        uniform,
        document_windows(documents, tokenizer.end_of_text, 16, rows=4),
        tokenizer.byte_lengths(),
    )

    bits = loss.tokens * math.log2(tokenizer.vocab_size)
    assert loss.bits_per_byte == pytest.approx(bits / loss.num_bytes, rel=1e-6)


def test_special_targets_and_untrained_targets_are_in_neither_sum(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    ids = [*tokenizer.encode("fox"), tokenizer.im_end, *tokenizer.encode(" home")]
    scored = pad_rows([(ids, [1.0] * len(ids))], tokenizer.end_of_text)
    unscored = pad_rows([(ids, [0.0] * len(ids))], tokenizer.end_of_text)
    lengths = tokenizer.byte_lengths()

    assert text_loss(model, [unscored], lengths) == TextLoss(0.0, 0, 0)
    assert text_loss(model, [scored], lengths).num_bytes == lengths[ids[1:]].sum()


def test_windows_begin_with_the_last_id_of_the_window_before() -> None:
    (batch,) = document_windows([list(range(1, 8))], 0, 3, rows=8)

    assert batch.tokens[:, :3].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert batch.targets[batch.loss_weights > 0].tolist() == list(range(1, 8))


def test_no_text_has_no_bits_per_byte() -> None:
    assert math.isnan(TextLoss(0.0, 0, 0).bits_per_byte)
    assert np.isfinite(TextLoss(1.0, 1, 1).bits_per_byte)
