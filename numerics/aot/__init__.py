"""Update rules and a training step, compiled for TPUs and GPUs that need not be there."""
