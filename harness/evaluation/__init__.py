"""From a trained model, or a file of answers, to predictions and figures."""
