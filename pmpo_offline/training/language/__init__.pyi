from .config import LanguageSettings as LanguageSettings
from .config import PMPOConfig as PMPOConfig
from .config import ResponseConfig as ResponseConfig
from .run import TrainedLanguage as TrainedLanguage
from .run import train_language as train_language
from .trainer import PMPOTrainer as PMPOTrainer
from .trainer import ResponseTrainer as ResponseTrainer
