"""A small DeepSeek-V4: generated data, model, training, measuring and export."""
