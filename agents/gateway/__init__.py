"""The site's Envoy: its configuration (pure), its process, what it counts and what it logs."""
