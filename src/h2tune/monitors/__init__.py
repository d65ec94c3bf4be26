"""What watches a run: the terminal, a notebook, TensorBoard, Weights & Biases, and monitors of the user's own."""
