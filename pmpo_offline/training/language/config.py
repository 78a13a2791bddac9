"""What a trainer of responses is told, beside what every trainer of transformers is: more fields of its arguments.

>>> from pmpo_offline.training.language import PMPOConfig, PMPOTrainer
>>> args = PMPOConfig("results", beta="1.05x", per_device_train_batch_size=8, max_steps=100)
>>> trainer = PMPOTrainer(model, args=args, train_dataset=dataset, processing_class=tokenizer, peft_config=LoraConfig())
>>> trainer.train()
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError


@dataclass
class ResponseConfig(TrainingArguments):  # type: ignore[misc]
    """Any objective on responses. `per_device_train_batch_size` counts rows, pairs or groups of one prompt.

    Mixed precision, FSDP, DeepSpeed and 8-bit optimizers are the options of `TrainingArguments` and of `accelerate
    launch`, and go the same way through the code as what is tested; but they need a GPU, and none of them was run here.
    """

    objective: str = "pmpo"
    """A name in `objectives.OBJECTIVES`."""
    settings: dict[str, Any] | str | None = field(default_factory=dict)
    """The objective's hyperparameters, over its defaults; where it has a bound on β, `"1.05x"` is a multiple of it."""
    rows: Literal["all", "accepted", "balanced", "top", "pairs", "candidates"] = "all"
    """What a batch is made of: rows in the shares of the data, the accepted ones, as many accepted as rejected ones,
    the best tenth by score; pairs of an accepted and a rejected response to one prompt; groups of scored ones."""
    reduction: Literal["sum", "mean"] = "sum"
    """How the tokens of a response count, in log-probabilities and divergences alike."""
    policy_kl: Literal["exact", "mismatched"] = "exact"
    """KTO's reference point: over the vocabulary at the recorded places, or from mismatched responses as TRL has it."""
    max_length: int | None = 1024
    """The most tokens of a prompt and its completion: a longer completion is cut, a longer prompt an error. None: as
    many as the model has positions for."""
    reference_cache: str | None = None
    """Folder of what the reference says of every row, shared by all trainings; default `.reference` beside datasets."""
    cut: int = 0
    """Layers below it are not trained, and their states are kept in the cache, so that only those above it are run."""
    shuffle_labels: bool = False
    """Permute labels and scores among all rows: a control that has nothing to learn from."""
    logging_steps: float = 10
    """Updates between two lines of the log."""
    logging_nan_inf_filter: bool = False
    """Leave losses that are no numbers out of the log; better not: a collapse would look like success."""

    @property
    def algorithm(self) -> AlgorithmDeclaration:
        """The declaration of what is trained."""
        settings = self.settings if isinstance(self.settings, dict) else {}
        return AlgorithmDeclaration(
            name=self.objective,
            family="language",
            title=self.objective,
            objective=self.objective,
            rows=self.rows,
            start="reference",
            settings=settings,
        )


@dataclass
class PMPOConfig(ResponseConfig):
    """PMPO: `objectives.pmpo`, with what a language model hands it as its divergence."""

    alpha: float = 0.5
    """Weight of the accepts, in [0, 1]; 1 learns from accepts only, 0 from rejects only."""
    beta: float | str | None = 1.0
    """Weight of the divergence: a number, or a multiple of the least stable one such as `"1.05x"`. Below that bound
    the loss has no minimum; that is allowed, warned about, and kept as `PMPOTrainer.beta_bound`."""
    normalize: Literal["joint", "set"] = "joint"
    """Average each class over its own rows ("set"), or divide both sums by the number of labelled rows."""
    divergence: Literal["behavior", "forward", "reverse", "alpha", "renyi"] = "forward"
    """From the reference, exact over the vocabulary; "behavior": -log pi of the data itself, which needs none."""
    order: float = 0.5
    """Of the alpha- and Renyi divergence, in [0, 1]."""
    over: Literal["all", "labelled"] = "all"
    """The rows that the divergence runs over."""
    reject_mass: float | str | None = 1.0
    """P_r, by which β is divided; "dataset" for that of the data."""
    floor: float = 0.0
    """A probability: rejects less likely than this are pushed no further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        own = ("alpha", "beta", "normalize", "divergence", "order", "over", "reject_mass", "floor")
        if self.objective != "pmpo":
            raise UserError(f"PMPOConfig is for the objective pmpo: take ResponseConfig for {self.objective}")
        given = self.settings if isinstance(self.settings, dict) else {}
        chosen = {name: _number(getattr(self, name)) for name in own}
        self.settings = {**{name: value for name, value in chosen.items() if value is not None}, **given}


def _number(value: Any) -> Any:
    """Return the number that a command line wrote as a text; any other value as it is.

    `HfArgumentParser` reads what may be a number, a text or None as a text, and only then lets "1.05x" through.
    """
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
