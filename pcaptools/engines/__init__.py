"""Pure logic over batches and events; time is an argument."""
