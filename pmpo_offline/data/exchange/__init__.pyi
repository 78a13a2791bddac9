from .export import export_dataset as export_dataset
from .export import left_out as left_out
