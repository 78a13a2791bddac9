"""From a source to a stored dataset: raw experience or responses, scores, labels, balance, metadata, files.

`pipeline` is the one way there; sources simulate (`collect`), ask a language model (`sample`) or read files (`read`,
`read_text`); `verbs` makes datasets of stored ones. How datasets are stored, labelled and balanced is in `data`, what
is trained on them in `training`.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
