from .export import export_dataset as export_dataset
from .export import left_out as left_out
from .hub import pull_dataset as pull_dataset
from .hub import push_dataset as push_dataset
