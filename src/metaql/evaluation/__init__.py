"""Measuring what was learned: regret, blocks of episodes, intervals, baselines, figures, report."""
