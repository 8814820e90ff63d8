"""Decides which model runs where and which traffic goes to which site. Pure."""
