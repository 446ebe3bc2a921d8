"""One file a paper: a table of variants, the network, its named constructors. Importing them builds nothing."""
