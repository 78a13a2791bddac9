"""Policies: stacked networks of control, with one leading dimension for all runs of a cell, and language models.

Nothing here knows a dataset, a task or an objective.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: processes that collect episodes do without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
