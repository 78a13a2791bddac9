"""What can be built, run and learned with, declared in TOML: recipes, suites, algorithms, reference scores."""
