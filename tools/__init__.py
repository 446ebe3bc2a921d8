"""What writes the data files of the package: run from the top of the repository."""
