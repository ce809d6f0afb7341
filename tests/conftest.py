"""For all tests: one thread for torch, as in every job of the workflow, so that bits can be compared."""

import torch

torch.set_num_threads(1)
