from . import objectives as objectives
from .benchmark import bench as bench
from .build import TextOptions as TextOptions
from .build import build_dataset as build_dataset
from .build import import_dataset as import_dataset
from .build import import_text as import_text
from .build import list_datasets as list_datasets
from .build import show as show
from .data import Dataset as Dataset
from .data import load_dataset as load_dataset
from .data import verify as verify
from .data.exchange import export_dataset as export_dataset
from .data.exchange import pull_dataset as pull_dataset
from .data.exchange import push_dataset as push_dataset
from .evaluation import evaluate as evaluate
from .runtime.progress import on_progress as on_progress
from .runtime.progress import progress_bar as progress_bar
from .training import doctor as doctor
from .training import load_policy as load_policy
from .training import train as train
from .training.language import PMPOConfig as PMPOConfig
from .training.language import PMPOTrainer as PMPOTrainer
from .training.language import train_language as train_language

__version__: str
