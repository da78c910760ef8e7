"""Fine-tuning: from an encoder and pairs to an encoder that knows the corpus."""
