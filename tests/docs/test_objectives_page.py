"""docs/objectives.md says what the code does: its table, calls and links, and what it claims of the divergences."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES, divergences, pmpo, stability

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "objectives.md").read_text(encoding="utf-8")
FEEDBACK = {
    "none": set(),
    "labels": {"label"},
    "advantages": {"advantage"},
    "scored groups": {"group_logp", "group_score"},
    "pairs": {"logp_chosen", "logp_rejected"},
    "pairs, lengths": {"logp_chosen", "logp_rejected", "length_chosen", "length_rejected"},
    "a learned value": {"policy_value", "distance"},
    "labels, also as an input": {"label", "conditional_logp"},
    "labels of one context": {"label", "accept_rate"},
    "labels, a learned value": {"label", "state_value"},
    "labels, own outcomes": {"label", "own_logp"},
}
OURS = (
    *("pmpo", "bc", "bc_accepts", "binary_crr", "awr", "unlikelihood", "mpo"),
    *("dpo", "ipo", "ipo_length_normalized", "nca", "kto", "bco", "td3_bc"),
    *("apo_down", "apo_zero_unpaired", "sspo", "sppo_unpaired", "dro", "rpo", "aot_unpaired", "asymre"),
    *("weighted_reinforce", "topr", "npo", "d2o", "conditional"),
)
"""The objectives that the page compares; others may be declared without a place on it."""
REFERENCE = {"ref_logp", "ref_chosen", "ref_rejected", "own_ref_logp"}
DIVERGENCE = {"–": set(), "any": {"divergence"}, "KL(π‖π_ref)": {"policy_kl"}}

# A policy over four outcomes, the first two of which are accepted.
REFERENCE_LOGP = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
LABEL = torch.tensor([1.0, 1.0, -1.0, -1.0])
P_R = 0.7

LOG_RATIO = torch.linspace(-60, 60, 25, dtype=torch.float64)
"""Of the rows whose pushes are measured, in nats: far beyond where anything fades at beta = 1."""
REF_LOGP = -61.0  # so that all of them are log-probabilities, below 0


def table() -> dict[str, list[str]]:
    """The rows of the page's table by objective, their cells without footnotes."""
    section = PAGE.split("## The table")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| (.+) \|$", section, flags=re.MULTILINE)
    return {name: [re.sub("[¹²³⁴⁵⁶]", "", cell).strip() for cell in cells.split(" | ")] for name, cells in rows}


def test_the_table_names_every_objective_and_what_it_needs():
    assert set(OURS) == set(table()), "every objective, once"
    for name, (feedback, reference, divergence, *_) in table().items():
        needed = set(OBJECTIVES[name].inputs.values()) - {"logp"}
        claimed = FEEDBACK[feedback] | DIVERGENCE[divergence]
        assert needed - REFERENCE == claimed, name
        assert bool(needed & REFERENCE) == (reference == "yes"), name


def one_class(name: str, sign: float, logp: Tensor) -> Tensor:
    """The loss of batches of two rows of one class each, (N, 2), with all that the objective may ask for."""
    pairs, ref = logp.new_zeros(len(logp), 0), torch.full_like(logp, REF_LOGP)
    inputs = {
        "logp": logp,
        "ref_logp": ref,
        "label": torch.full_like(logp, sign),
        "advantage": torch.full_like(logp, sign),
        "divergence": logp.new_zeros(len(logp)),
        "policy_kl": logp.new_zeros(len(logp)),
        "group_logp": logp.unsqueeze(1),
        "group_score": torch.full_like(logp, sign).unsqueeze(1),
        "policy_value": torch.full_like(logp, sign),
        "conditional_logp": logp,
        "accept_rate": torch.full_like(logp, sign).clamp(min=0),
        "state_value": torch.full_like(logp, 0.5),
        **dict.fromkeys(("own_logp", "own_ref_logp"), ref.unsqueeze(-1)),
        "distance": -logp,  # of a Gaussian of one deviation, up to a factor and a constant
        **dict.fromkeys(FEEDBACK["pairs, lengths"] | {"ref_chosen", "ref_rejected"}, pairs),
    }
    return OBJECTIVES[name](inputs, **({"beta": 1.0} if "beta" in OBJECTIVES[name].settings else {}))[0]


def pushes(name: str, sign: float, at: Tensor = LOG_RATIO + REF_LOGP) -> Tensor:
    """-d loss / d logp of one of the two rows of a class, at each of its log-probabilities."""
    logp = at.unsqueeze(-1).repeat(1, 2).requires_grad_()
    loss = one_class(name, sign, logp)
    if not loss.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(loss.sum(), logp, allow_unused=True)
    return torch.zeros_like(at) if gradient is None else -gradient[:, 0]


def verify(statement: str, push: Tensor) -> None:
    """Compare a cell of the table with the pushes of rows of one class, ordered by their log-probability."""
    if statement == "nothing":
        assert not push.any()
        return
    verb, _, how = statement.partition("them")
    if verb == "draws ":
        assert push[0] > 0.01
        assert push[-1] < -0.01
        return
    up = {"clones": True, "raises": True, "lowers": False}[verb.strip()]
    assert ((push > 0) == up).logical_or(push.abs() < 1e-9).all()
    assert push.abs().max() > 0.01
    if how == ", fading":
        gone = push[-1] if up else push[0]  # where it pushes to
        assert gone.abs() < 1e-9
    else:
        assert how in ("", ", without end")
        torch.testing.assert_close(push, push[:1].expand_as(push))


@pytest.mark.parametrize("name", OURS)
def test_one_class_does_what_the_table_says(name: str):
    accepts, rejects = table()[name][3:5]
    verify(accepts, pushes(name, 1.0))
    verify(rejects, pushes(name, -1.0))


@pytest.mark.parametrize("name", OURS)
def test_bounded_is_what_the_table_says(name: str):
    statement = table()[name][5]
    logp = torch.tensor([-1e6, -1e3, -10.0, -1.0, -1e-3], dtype=torch.float64).unsqueeze(-1).expand(-1, 2)
    least = min(one_class(name, sign, logp).min().item() for sign in (1.0, -1.0))
    if statement.startswith("yes"):
        assert least >= (-OBJECTIVES[name].settings["alpha"] if "from −α" in statement else 0)
    elif statement.startswith("if V ≤ 0"):
        for baseline, bounded in ((-0.1, True), (0.0, True), (0.1, False)):
            loss, _ = objectives.asymre(logp, -torch.ones_like(logp), baseline=baseline, relative_to="zero")
            assert (loss.min() >= 0) == bounded
    else:
        assert statement.startswith("if β ≥ bound") or statement == "no"
        assert least < -1e5


def random_policies(claimed: Tensor) -> Tensor:
    """The claimed log-probabilities, (K,), a hundred near them, and a hundred anywhere, (201, K)."""
    noise = torch.randn(100, len(claimed), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([claimed.unsqueeze(0), claimed + 0.1 * noise, 3 * noise]).log_softmax(-1)


def shares(*mass: float) -> Tensor:
    """Log-probabilities in these proportions; what has none keeps one in a billion."""
    return (torch.tensor(mass, dtype=torch.float64) + 1e-9).log().log_softmax(-1)


ADVANTAGE = torch.tensor([2.0, 0.5, -0.5, -1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        # The rows are the outcomes in the reference's proportions .1 .2 .3 .4; the first two are accepted. PMPO's c(y)
        # at alpha = 1/2, beta = 0.8, joint, is .1 (.8 + .5), ..., .3 (.8 - .5), ....
        ("pmpo", shares(0.1 * 1.3, 0.2 * 1.3, 0.3 * 0.3, 0.4 * 0.3)),
        ("bc", shares(0.1, 0.2, 0.3, 0.4)),
        ("bc_accepts", shares(0.1, 0.2, 0, 0)),
        ("binary_crr", shares(0.1, 0.2, 0, 0)),
        ("awr", shares(*(torch.tensor([0.1, 0.2, 0.3, 0.4]) * ADVANTAGE.exp()).tolist())),
        ("unlikelihood", shares(0.1, 0.2, 0, 0)),
        ("topr", shares(0.1, 0.2, 0, 0)),
        ("conditional", shares(0.1, 0.2, 0.3, 0.4)),
        ("mpo", ADVANTAGE.log_softmax(-1)),
    ],
)
def test_the_minimum_over_policies(name: str, claimed: Tensor):
    logp = random_policies(claimed)
    rows = REFERENCE_LOGP.exp().expand_as(logp)
    inputs = {
        "logp": logp,
        "conditional_logp": logp,
        "ref_logp": REFERENCE_LOGP.expand_as(logp),
        "label": LABEL.expand_as(logp),
        "advantage": ADVANTAGE.expand_as(logp),
        "divergence": -(rows * logp).sum(-1),
        "group_logp": logp.unsqueeze(-2),
        "group_score": ADVANTAGE.expand_as(logp).unsqueeze(-2),
    }
    settings = {"beta": 0.8} if name == "pmpo" else {}
    weight = None if name == "mpo" else rows
    loss, _ = OBJECTIVES[name](inputs, weight=weight, **settings)
    assert (loss[1:] > loss[0] - 1e-7).all()


@pytest.mark.parametrize(
    ("name", "accepted", "rejected"),
    [
        ("dpo", 1e3, -1e3),
        ("ipo", 1.0, 0.5),  # a margin of 1/(2 beta) at beta = 1
        ("ipo_length_normalized", 8.0, 2.0),  # lengths of 8 and 4
        ("nca", math.log(2), -1e3),
        ("kto", 1e3, -1e3),
        ("bco", 1e3, -1e3),
        ("apo_zero_unpaired", 1e3, -1e3),
        ("sspo", 1e3, -1e3),
        ("aot_unpaired", 1e3, -1e3),
        ("sppo_unpaired", 0.5, -0.5),  # 1/(2 beta) at beta = 1
        ("rpo", 1 - math.log(0.5 + 0.5 * math.e), -math.log(0.5 + 0.5 * math.e)),  # R - V at T = 1
        ("dro", 0.5, -0.5),
    ],
)
def test_the_minimum_over_log_ratios(name: str, accepted: float, rejected: float):
    claimed = torch.tensor([accepted, rejected], dtype=torch.float64)
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r = torch.cat([claimed.unsqueeze(0), claimed + noise[:100], 5 * noise[100:]])
    zero = torch.zeros_like(r[:, :1])
    inputs = {
        **{"logp": r, "ref_logp": torch.zeros_like(r), "label": LABEL[1:3].expand_as(r), "policy_kl": zero[:, 0]},
        **{"logp_chosen": r[:, :1], "logp_rejected": r[:, 1:], "ref_chosen": zero, "ref_rejected": zero},
        **{"length_chosen": zero + 8, "length_rejected": zero + 4},
        **dict.fromkeys(("accept_rate", "state_value"), torch.full_like(r, 0.5)),
    }
    loss, _ = OBJECTIVES[name](inputs, **({"beta": 1.0} if "beta" in OBJECTIVES[name].settings else {}))
    assert (loss[1:] > loss[0] - 1e-9).all()


def test_bco_with_a_given_shift_fades():
    logp = (LOG_RATIO + REF_LOGP).unsqueeze(-1).requires_grad_()
    ref, shift = torch.full_like(logp, REF_LOGP), torch.zeros(len(logp))
    loss, _ = objectives.bco(logp, ref, torch.full_like(logp, -1), beta=1.0, shift=shift)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    verify("lowers them, fading", -gradient[:, 0])


# the page itself


def test_the_calls_run():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
        if loss := names.pop("loss", None):
            assert loss.numel() == 1
            assert loss.isfinite()


def test_the_links_and_pictures_exist():
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", PAGE, re.M)}
    links = re.findall(r"\]\((?!https:)([^)]+)\)", PAGE) + re.findall(r'src="([^"]+)"', PAGE)
    for link in links:
        path, _, anchor = link.partition("#")
        assert not path or (DOCS / path).exists(), link
        assert path or not anchor or anchor in headings, link
    for path in re.findall(r"`([\w/]+/\w+\.py)`", PAGE):
        assert (DOCS.parent / path).exists() or (DOCS.parent / "pmpo_offline" / path).exists(), path
    assert {f"pictures/{name}.png" for name in OURS} <= set(links)
    assert set(OURS) <= headings, "a section for every objective"


# what is said of the divergences: a policy over four outcomes


def falling(divergence: str, beta: float) -> Tensor:
    """The rejects-only loss of policies that give the last outcome ever less probability."""
    gap = torch.tensor([0.0, -20.0, -200.0, -2000.0], dtype=torch.float64)
    policy = torch.cat([REFERENCE_LOGP[:3].expand(4, 3), REFERENCE_LOGP[3] + gap.unsqueeze(-1)], -1).log_softmax(-1)
    reference = REFERENCE_LOGP.expand_as(policy)
    kl = {
        "forward": lambda: divergences.categorical_kl(reference, policy),
        "reverse": lambda: divergences.categorical_kl(policy, reference),
        "alpha": lambda: divergences.categorical_alpha(reference, policy, 0.5),
        "renyi": lambda: divergences.categorical_renyi(reference, policy, 0.5),
    }[divergence]()
    return pmpo(policy, LABEL, kl, alpha=0.0, beta=beta, normalize="set", weight=reference.exp())[0]


def test_the_forward_divergence_stops_the_fall_at_the_bound():
    bound = stability.beta_min(0.0, P_R, "set")
    assert falling("forward", 0.99 * bound).diff().lt(0)[1:].all()
    assert falling("forward", 1.01 * bound).diff().gt(0)[1:].all()


@pytest.mark.parametrize("divergence", ["reverse", "alpha", "renyi"])
def test_no_other_divergence_does_at_any_beta(divergence: str):
    assert falling(divergence, 100.0)[-1] < falling(divergence, 100.0)[1] - 500


@pytest.mark.parametrize(("beta", "fixed"), [(1.1, True), (1.1, False), (100.0, False), (0.9, True)])
def test_a_gaussian_and_the_reverse_divergence(beta: float, fixed: bool):
    """Bounded where the deviation is fixed at the reference's own and beta > 1 - alpha, unbounded where it is free."""
    away = torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    log_std = torch.zeros_like(away) if fixed else -away.log()
    rejects = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    scaled = (rejects - away.unsqueeze(-1)) / log_std.exp().unsqueeze(-1)
    logp = -scaled.square() / 2 - log_std.unsqueeze(-1)
    kl = divergences.gaussian_kl(away.unsqueeze(-1), log_std.unsqueeze(-1), *torch.zeros(2, 3, 1).double())
    loss, _ = pmpo(logp, -torch.ones_like(logp), kl, alpha=0.0, beta=beta)
    grows = fixed and beta > 1
    assert ((loss.diff() > 0) == grows).all()


def on_policy(normalize: str, alpha: float, beta: float = 0.3) -> Tensor:
    """The policy after training on rows redrawn from itself (in expectation) with the reverse divergence."""
    logits = REFERENCE_LOGP.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(500):
        logp = logits.log_softmax(-1)
        reverse = divergences.categorical_kl(logp, REFERENCE_LOGP)
        rows = logp.exp().detach()
        loss, _ = pmpo(logp, LABEL, reverse, alpha=alpha, beta=beta, normalize=normalize, weight=rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach().softmax(-1)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_rows_of_the_policy_itself_with_the_reverse_divergence(alpha: float):
    target = (REFERENCE_LOGP - (LABEL < 0) / 0.3).softmax(-1)
    torch.testing.assert_close(on_policy("joint", alpha), target, atol=1e-4, rtol=0)
    assert on_policy("set", alpha)[2:].sum() < 1e-9  # no minimum: it goes on falling


# what is said of the optimum


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_reject_mass_of_the_optimum(alpha: float):
    accept, reject = (LABEL > 0).double(), (LABEL < 0).double()
    p_a = 1 - P_R
    for normalize in ("set", "joint"):
        beta = 1.2 * stability.beta_min(alpha, P_R, normalize)
        policy = stability.optimal_policy(
            REFERENCE_LOGP.exp(), accept, reject, alpha=alpha, beta=beta, normalize=normalize
        )
        expected = {
            "set": (beta * P_R - (1 - alpha)) / (2 * alpha - 1 + beta),
            "joint": P_R * (beta - (1 - alpha)) / (beta + alpha * p_a - (1 - alpha) * P_R),
        }[normalize]
        assert policy[2:].sum().item() == pytest.approx(expected)


def test_what_a_reject_weighs_above_the_bound():
    label = torch.tensor([1.0, -1.0, -1.0, 0.0])
    for c in (1.0, 1.05, 2.0):
        logp = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        beta = c * stability.beta_min(0.5, 2 / 4, "joint", 2 / 3)
        pmpo(logp, label, -logp.mean(), alpha=0.5, beta=beta)[0].backward()
        assert -logp.grad[1] / -logp.grad[3] == pytest.approx((c - 1) / c)
        assert (-logp.grad >= -1e-12).all()
