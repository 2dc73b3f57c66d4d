"""Training without Ray: losses, data, optimiser, loop. `dinoidd.train` runs it on a cluster."""
