"""The paper's experiments, each defined as data and run by `training`."""
