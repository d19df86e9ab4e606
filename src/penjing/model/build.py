"""From a shape to the model that it describes, untrained."""

import torch

from penjing.config.model import ModelShape
from penjing.model.gpt2 import Gpt2
from penjing.model.language_model import LanguageModel
from penjing.model.racing import Racing
from penjing.model.transformer import Transformer


def build_model(shape: ModelShape, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model class of `shape.architecture`, its weights not initialized."""
    if shape.architecture == "gpt2":
        return Gpt2(shape, dtype=dtype)
    if shape.architecture == "racing":
        return Racing(shape, dtype=dtype)
    return Transformer(shape, dtype=dtype)
