"""What runs a model on a site: one file per engine behind one port."""
