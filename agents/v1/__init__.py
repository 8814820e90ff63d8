"""Generated from proto/agents/v1; do not edit. `make proto` regenerates."""
