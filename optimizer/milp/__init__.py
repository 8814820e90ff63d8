"""The formulation: the only place that knows Pyomo and HiGHS."""
