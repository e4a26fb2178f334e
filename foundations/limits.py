"""The largest valid values of hyperparameters that cost memory, processes or folders. A larger value is a typing error."""

EXAMPLES = 10**9  # of a batch, or queries in total: they are in memory as a whole
LEVELS = 10_000  # each level is a training run with a folder of its own
RUNS = 10_000  # of one command: each run has a folder of its own
PROCESSES = 1_000
ITERATIONS = 10**6  # of a step of pruning: each one is a pass over the network
POINTS = 10_000  # on a line between networks: each one is evaluated on the whole dataset
