"""One folder a question: the run, its config, its plot and its raw results. Never imported by the packages."""
