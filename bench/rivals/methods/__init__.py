"""The methods that are compared, in the order of the tables."""

from .dbcache import DBCache, FBCache
from .delta_dit import DeltaDit
from .dicache import DiCache
from .fora import Fora
from .hydit import Hydit
from .plain import FewerSteps, Uncached
from .skip_cache import BlockReuse, SkipCache
from .taylorseer import TaylorSeer
from .teacache import TeaCache
from .tgate import TGate

ALL = (
    Hydit, SkipCache, BlockReuse, TeaCache, FBCache, DBCache, DiCache, TaylorSeer, Fora, DeltaDit, TGate, FewerSteps,
)
