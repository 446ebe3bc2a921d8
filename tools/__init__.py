"""Tools that write the data files of the package and check its prose. Run them from the top of the repository."""
