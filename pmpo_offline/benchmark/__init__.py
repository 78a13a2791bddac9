"""Many training runs, one table: suite → cells → executor → raw scores → table and report.

`html` makes pages of results and of datasets, `leaderboard` checks submissions.
How a cell is trained is in `training`, how its policies are scored in `evaluation`.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: what runs a benchmark takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
