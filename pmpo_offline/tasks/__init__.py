"""What is to be solved: a task collects experience and scores a policy."""
