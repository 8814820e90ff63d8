"""Model servers' own metrics turned into the same few numbers; one file per server family."""
