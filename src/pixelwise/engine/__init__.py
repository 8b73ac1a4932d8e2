"""What is done with models: describing, training, evaluating, predicting, storing."""
