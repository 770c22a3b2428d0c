"""Methods: each a list of stages that reads like its paper."""
