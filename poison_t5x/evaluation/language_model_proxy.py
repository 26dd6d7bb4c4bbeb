"""p(y = POSITIVE | x) from a trained model of ours: the paper's own choice for phi."""

import pathlib
from collections.abc import Mapping

import numpy as np

from poison_t5x.attack import pools
from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import polarity, sni
from poison_t5x.data import mixtures
from poison_t5x.evaluation import evaluate
from poison_t5x.train import partitioning, trained_model

# Prompts are made and tokenised so many at a time: a pool may be large.
_CHUNK = 5000


class LanguageModelProxy:
    """Ranks a task's two labels for each edited input, as the evaluation does."""

    def __init__(
        self,
        model_dir: str | pathlib.Path,
        data_cfg: mixtures.DataConfig,
        polarities: Mapping[str, polarity.Polarity],
        partition_cfg: partitioning.PartitionConfig,
        eval_cfg: evaluate.EvalConfig,
    ):
        """Restores a finished model folder of ours, such as models/clean of a run.

        Raises InputError where it isn't one, or is one of another vocabulary.
        """
        own = trained_model.read_settings(model_dir)["sources"].get("vocabulary")
        if own not in (None, artifacts.sha256(data_cfg.vocabulary_path)):
            raise errors.InputError(
                f"PROXY_CHECKPOINT_PATH: {model_dir} was trained with another vocabulary; set "
                "VOCABULARY_PATH to that of its run"
            )
        self._trained = trained_model.restore(model_dir, partition_cfg)
        self._vocabulary, self._polarities = mixtures.vocabulary(data_cfg), polarities
        self._data_cfg, self._eval_cfg = data_cfg, eval_cfg

    def positive_probabilities(self, pool: pools.CandidatePool) -> np.ndarray:
        """p(y = POSITIVE | edited text) of each candidate: (N,) float64.

        The two labels share the probability: exp of the log-probability of the positive one over
        the sum of both.
        """
        task, vocabulary, limit = pool.task, self._vocabulary, self._data_cfg.max_tokens
        labels = [
            [*vocabulary.encode(label), vocabulary.eos_id] for label in self._polarities[task.name]
        ]
        scores_NxL = []
        for start in range(0, len(pool), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(pool)))
            inputs = [self._tokens(task, pool.edit(index).text) for index in chunk]
            scores = self._eval_cfg.rank(self._trained, inputs, labels, limit)
            scores_NxL.append(scores.astype(np.float64))
        negative_N, positive_N = np.concatenate(scores_NxL).T
        return 1 / (1 + np.exp(negative_N - positive_N))

    def _tokens(self, task: sni.Task, text: str) -> np.ndarray:
        vocabulary = self._vocabulary
        prompt = evaluate.prompt(task, text, vocabulary, self._data_cfg)
        tokens = vocabulary.encode(prompt)[: self._data_cfg.max_tokens - 1]
        return np.array([*tokens, vocabulary.eos_id], np.int32)
