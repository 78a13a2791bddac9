"""Datasets: schema, labels, storage in two forms, datasets as tensors and what is derived from them.

`exchange` reads and writes the formats of other libraries.
Not here: building datasets (`build`), and anything that learns, acts or evaluates.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: pyarrow and h5py take a second to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
