"""What several tests share: small datasets, foreign files, tiny models."""
