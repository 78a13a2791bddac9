from .categorical import Categorical as Categorical
from .categorical import CategoricalPolicy as CategoricalPolicy
from .function import Act as Act
from .function import FunctionPolicy as FunctionPolicy
from .function import Policy as Policy
from .mixture import Mixture as Mixture
from .mixture import MixturePolicy as MixturePolicy
