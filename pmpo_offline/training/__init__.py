"""From a dataset and an algorithm to a trained policy: runs, checkpoints, and a diagnosis before anything is trained.

`control` trains stacks of policies on transitions, `language` language models on responses, `critics` estimates values.
`evaluation` measures how good the result is, and `benchmark` compares it with others.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: torch takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
