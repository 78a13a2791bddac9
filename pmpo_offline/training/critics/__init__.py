"""Critics: cross-fitted ones that label a dataset, and those that learn beside a policy."""
