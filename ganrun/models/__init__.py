"""Network architectures, one file per family, and frozen feature extractors."""
