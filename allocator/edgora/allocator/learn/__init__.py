"""What learners share, and no more: replay, schedules, intervals, runs that resume, weights that work without torch.

problem      what a room with learners offers: train, evaluate, and the records they return
run          the folder of a training run: log.jsonl, checkpoint.npz, policy.npz; kill it and it goes on as if nothing was
replay       a ring of transitions, and sums that are sampled from it
schedules    how epsilon falls
network      multi-layer perceptrons in numpy, for policies that run without torch
weights      arrays with a JSON header in one .npz, never pickled
intervals    means and ratios with 95 % confidence intervals
torch_state  a module's and an Adam's numbers as arrays, and back; the only module here that imports torch

An algorithm itself is one file of its problem's room and reads from top to bottom.
"""

from edgora.allocator.learn.problem import Evaluation, Learning, Progress, Statistic, Trained

__all__ = ["Evaluation", "Learning", "Progress", "Statistic", "Trained"]
