"""Everything one runs: command line, training, evaluation, benchmarks."""
