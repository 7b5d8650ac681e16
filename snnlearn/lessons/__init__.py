"""What the tutorials show and ask: a module for each notebook, with its panels' plain functions and its exercises."""
