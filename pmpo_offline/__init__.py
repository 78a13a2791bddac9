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

import _signal  # built in: `signal` imports enum, in which Ctrl-C ends in a traceback
import sys

_as_module = sys.argv[:1] == ["-m"] and "pmpo_offline" in sys.orig_argv
if (_as_module or sys.argv[0].endswith("pmpo-offline")) and _signal.getsignal(2) is _signal.default_int_handler:
    # The command line: until `cli.main` handles Ctrl-C (2, SIGINT), it ends the process at once.
    _signal.signal(2, _signal.SIG_DFL)

import lazy_loader  # noqa: E402

__version__ = "0.2.0"

# Names are imported on first use, as `__init__.pyi` lists them: torch and MuJoCo take seconds to import.
_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name in __all__:
        return _import(name)
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=2)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
