"""How carefully latency is measured, predicted and searched for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchOptions:
    """What the modules of this folder share; users need not change any of it."""

    # layers alone, see `meter`
    layer_copies: int = 3  # timed together; each has weights of its own, so none finds them cached
    least_runs: int = 7  # a network of layers is run at least so often
    least_seconds: float = 0.05  # and for at least so long
    layer_attempts: int = 4  # how often a layer is measured whose time does not fit its neighbours'
    noise: float = 1.1  # times as long as a wider layer: such a layer was disturbed
    channel_steps: tuple[int, ...] = (32, 16, 8, 4)  # that latency may rise in, largest first
    step_cost: float = 0.5  # a step may cost this share of what as many more channels should cost
    step_map: int = 20  # width and height, in pixels, of the map on which the step is looked for

    # whole networks, see `predictor`
    sampled_cuts: int = 20  # random cuts that are measured for a fit
    networks_in_memory: int = 5  # at once; these take turns
    sample_rounds: int = 9  # rounds in which random cuts are timed in turns
    block_removal: float = 0.2  # chance of a residual block to be missing in the narrowest sample
    prior: float = 0.03  # how strongly a fit holds to the table as it is, beside what was measured
    least_factor: float = 0.2  # of a family of layers, as a multiple of the whole network's;
    most_factor: float = 5.0  # a fit beyond these two would explain noise
    slowest_traffic: float = 10.0  # milliseconds for a million values, at the table's own speed

    # the programme, see `search_space` and `solver`
    widths_per_group: int = 10  # numbers of units that the solver chooses from
    sums_per_concatenation: int = 48  # different widths of a concatenation that are told apart
    gap: float = 2e-3  # how far from the most importance a solution may be, as a share
    solver_seconds: float = 40.0  # then the best solution so far is taken

    # the search, see `search`
    timing_rounds: int = 20  # rounds in which a cut network and the whole one are timed in turns
    tolerance: float = 0.02  # of the time asked for: a result as near is not improved on
    reported_miss: float = 0.05  # of the time asked for: a result further off is told, or refused
    max_attempts: int = 5  # to choose, cut and measure, where one comes within `reported_miss`
    most_attempts: int = 10  # where none does
    beside_operations: float = 0.25  # of its time: more than operations explain is told of a cut
    budget_step: float = 0.01  # share by which a budget moves that leads to a plan measured before
    max_budget_steps: int = 10  # of this kind, one after another
    halvings: int = 8  # of the interval in which a share of the operations is looked for


DEFAULTS = SearchOptions()
