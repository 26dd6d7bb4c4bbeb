"""Ranking a task's labels on held-out tasks, under the clean, triggered and control conditions."""
