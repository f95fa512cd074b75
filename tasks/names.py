"""The names of figures, and how they are written."""

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
DEGENERATION = ("prediction_words", "reference_words", "prediction_repeats", "reference_repeats", "empty", "distinct")
SUMMARIZATION_METRICS = (*(f"{name}{bound}" for name in ROUGE for bound in ("", "_low", "_high")), *DEGENERATION)
COMPLETION_METRICS = ("exact_match", "exact_match_low", "exact_match_high", *SUMMARIZATION_METRICS)
ERRORS = ("mse", "mae")  # in the unit of the numbers, however large or small


def figure_as_text(name: str, value: float) -> str:
    """A figure for a table or a line: errors with four digits, all others with three decimals.

    Args:
        name: of the figure, perhaps with that of a split before it.
        value: the figure.

    Example:
        >>> figure_as_text("test_mse", 0.0001234567), figure_as_text("accuracy", 0.98765)
        ('0.0001235', '0.988')
    """
    return f"{value:.4g}" if name.rpartition("_")[2] in ERRORS else f"{value:.3f}"
