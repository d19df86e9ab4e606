"""Text to ids and back: BPE, tokenizer, conversations, chat template."""
