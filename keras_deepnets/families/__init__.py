"""One module per paper: a table of variants, the network and its named constructors. Importing a module builds nothing."""
