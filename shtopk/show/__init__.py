"""See what was kept: one HTML page for a document, its kept tokens, their weights and the prediction or summary.

shtopk show CHECKPOINT FILE [--output page.html]
"""

from shtopk.show.classification import page
from shtopk.show.document import Slot
from shtopk.show.summary import OutputToken, summary_page

__all__ = ["OutputToken", "Slot", "page", "summary_page"]
