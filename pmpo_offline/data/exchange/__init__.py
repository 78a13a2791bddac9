"""Datasets of other libraries, in and out: readers of trajectories, forms of texts, and writers, each a registry."""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
