"""The names of the figures of summaries, which `rouge.py` works out."""

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
DEGENERATION = ("prediction_words", "reference_words", "prediction_repeats", "reference_repeats", "empty", "distinct")
SUMMARIZATION_METRICS = (*(f"{name}{bound}" for name in ROUGE for bound in ("", "_low", "_high")), *DEGENERATION)
