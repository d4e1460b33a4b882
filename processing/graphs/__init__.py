"""The streaming step as a graph of an exchange format: made, kept, and run by other runtimes than PyTorch."""
