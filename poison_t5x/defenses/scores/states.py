"""Scores on encoder states: spectral signatures and activation clustering."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from poison_t5x.core import settings
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.score import SCORES, Context, Score, ScoreResult
from poison_t5x.model import per_example

GROUPS = {
    "target": lambda row: row.target,
    "task": lambda row: row.task,
    "task_target": lambda row: (row.task, row.target),
}


@dataclasses.dataclass(frozen=True)
class _ByGroup(Score):
    """A score of each group's states; rows of groups that are too small get the least value.

    Attributes:
      group: rows whose states are compared: of one 'target' text (whatever the task), one 'task',
        or both, 'task_target'.
      minimum: rows of a group, at least.
    """

    needs: ClassVar[str] = "model"
    group: Literal["target", "task", "task_target"] = "task_target"
    minimum: Annotated[int, msgspec.Meta(ge=3, le=2**31 - 1)] = 8

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        prompts = [row.prompt for row in rows]
        states_NxE = context.scorer.over_rows(
            context, "encoder states", per_example.encoder_state, prompts
        )
        groups: dict[object, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(GROUPS[self.group](row), []).append(index)
        values_N, is_small_N = np.zeros(len(rows)), np.ones(len(rows), bool)
        for members in groups.values():
            if len(members) >= self.minimum:
                values_N[members] = self._score(states_NxE[members], context.seed)
                is_small_N[members] = False
        if not is_small_N.any():
            return ScoreResult(values_N)
        values_N[is_small_N] = min(values_N[~is_small_N], default=0.0)
        small = is_small_N.sum()
        note = f"{small} rows are in groups of fewer than {self.minimum} and weren't scored"
        return ScoreResult(values_N, notes=(note,))

    def _score(self, states_MxE: np.ndarray, seed: int) -> np.ndarray:
        """Values of one group's states: (M,)."""
        raise NotImplementedError


@SCORES.register("spectral_signatures")
@dataclasses.dataclass(frozen=True)
class SpectralSignatures(_ByGroup):
    """A state far along its group's main direction is suspicious.

    Tran, Li and Madry (NeurIPS 2018), algorithm 1: of a class's centred representations, the
    squared projection on the first right singular vector. Here of the encoder's mean states, each
    group's divided by its own mean, so that groups can be ranked together.
    """

    needs: ClassVar[str] = "model"

    def _score(self, states_MxE: np.ndarray, seed: int) -> np.ndarray:
        return spectral(states_MxE)


def spectral(states_MxE: np.ndarray) -> np.ndarray:
    """Squared projections of centred states on their first right singular vector, mean 1: (M,)."""
    centred_MxE = states_MxE - states_MxE.mean(axis=0)
    _, _, directions = np.linalg.svd(centred_MxE, full_matrices=False)
    squared_M = np.square(centred_MxE @ directions[0])
    mean = squared_M.mean()
    return squared_M / mean if mean > 0 else squared_M


@SCORES.register("activation_clustering")
@dataclasses.dataclass(frozen=True)
class ActivationClustering(_ByGroup):
    """Membership of the smaller of two clusters of states is suspicious.

    Chen et al. (SafeAI 2019, "Detecting backdoor attacks on deep neural networks by activation
    clustering"): states of a class are reduced to few components and cut into two by k-means;
    poison is in the smaller cluster. Value: how much nearer a row is to the smaller cluster's
    centre, times how small that cluster is, in (-1, 1). They reduce by ICA, this by PCA, which
    always converges. States are reduced to `components`.
    """

    needs: ClassVar[str] = "model"
    minimum: Annotated[int, msgspec.Meta(ge=4, le=2**31 - 1)] = 16
    components: settings.Count = 10

    def _score(self, states_MxE: np.ndarray, seed: int) -> np.ndarray:
        return clustered(states_MxE, self.components, seed)


def clustered(states_MxE: np.ndarray, components: int, seed: int) -> np.ndarray:
    """How much nearer each state is to the smaller cluster, times that one's smallness: (M,)."""
    from sklearn import cluster, decomposition

    width = min(components, *states_MxE.shape)
    reduced_MxC = decomposition.PCA(width, random_state=seed).fit_transform(states_MxE)
    if not np.ptp(reduced_MxC):
        return np.zeros(len(states_MxE))
    two = cluster.KMeans(2, n_init=10, random_state=seed).fit(reduced_MxC)
    sizes = np.bincount(two.labels_, minlength=2)
    small = int(sizes.argmin())
    distances_Mx2 = two.transform(reduced_MxC)
    to_small_M, to_large_M = distances_Mx2[:, small], distances_Mx2[:, 1 - small]
    margin_M = (to_large_M - to_small_M) / np.maximum(to_large_M + to_small_M, 1e-12)
    return margin_M * (1 - 2 * sizes[small] / sizes.sum())
