"""Training the network: settings, batches, losses, the loop, what it keeps. Notebook 04."""
