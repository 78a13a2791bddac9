"""Stacked training of control policies: minibatches, one loop for every objective, its reference."""
