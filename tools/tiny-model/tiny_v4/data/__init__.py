"""The generated documents: one module for each kind, `mixture` draws from all of them."""
