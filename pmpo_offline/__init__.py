"""Datasets and an offline benchmark for learning from accept/reject feedback.

    from pmpo_offline import build_dataset, doctor, evaluate, train

    dataset = build_dataset("bandit/sphere-v0", imbalance=0.1)
    doctor(dataset, "pmpo")                          # can it learn, is β above its bound?
    trained = train(dataset, "pmpo", seeds=range(5))
    evaluate(trained.policy, "bandit/sphere")        # a polars frame of returns

Datasets: `list_datasets`, `show`, `build_dataset`, `import_dataset`, `import_text`, `load_dataset`, `verify`,
`export_dataset`, `push_dataset`, `pull_dataset`. Training: `doctor`, `train`, `load_policy`, `train_language`,
`PMPOTrainer`. Scores: `evaluate`, `bench`. Progress: `progress_bar`, `on_progress`. Losses: `objectives`.
"""

import lazy_loader

__version__ = "0.2.0"

# Names are imported on first use, as `__init__.pyi` lists them: torch and MuJoCo take seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
