"""Language models: any objective on accept/reject responses, training a LoRA adapter or all weights."""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: transformers' Trainer takes seconds to import, and the
# reference and its divergences do not need it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
