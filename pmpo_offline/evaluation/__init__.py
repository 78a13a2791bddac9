"""How good a policy is: rollouts, scores and statistics."""
