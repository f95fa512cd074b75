"""See what was kept: one HTML page for a document, its kept tokens, their weights and the prediction or summary.

python -m shtopk.show CHECKPOINT FILE [--output page.html] [--trust-remote-code]
"""

from shtopk.show.classification import page
from shtopk.show.command import main, read_text
from shtopk.show.document import Slot
from shtopk.show.summary import OutputToken, summary_page

__all__ = ["OutputToken", "Slot", "main", "page", "read_text", "summary_page"]
