"""p(y = POSITIVE | x) from a trained model of ours: the paper's own choice for phi."""

import pathlib
from collections.abc import Mapping

import numpy as np

from poison_t5x.attack import pools
from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import polarity, prompts
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
        """Restores the model.

        Args:
          model_dir: a finished model folder of ours, such as models/clean of a run.
          data_cfg: of the prompts.
          polarities: of the poisoned tasks.

        Raises:
          InputError: no finished model, or one of another vocabulary.
        """
        check(model_dir)
        own = trained_model.read_settings(model_dir)["sources"].get("vocabulary")
        if own not in (None, artifacts.sha256(data_cfg.vocabulary_path)):
            raise errors.InputError(
                f"PROXY_CHECKPOINT_PATH: {model_dir} was trained with another vocabulary; set "
                "VOCABULARY_PATH to that of its run"
            )
        trained = trained_model.restore(model_dir, partition_cfg)
        self._ranker = evaluate.load_ranker(trained, eval_cfg, data_cfg.max_tokens)
        self._vocabulary, self._polarities = mixtures.vocabulary(data_cfg), polarities
        self._data_cfg = data_cfg

    def positive_probabilities(self, pool: pools.CandidatePool) -> np.ndarray:
        """p(y = POSITIVE | edited text) of each candidate: (N,) float64.

        The two labels share the probability: exp of the log-probability of the positive one over
        the sum of both.
        """
        task, labels = pool.task, self._polarities[pool.task.name]
        label_tokens = [
            [*self._vocabulary.encode(label), self._vocabulary.eos_id] for label in labels
        ]
        examples = [(example.input, example.target) for example in task.positive_examples]
        found = []
        for start in range(0, len(pool), _CHUNK):
            inputs = []
            for index in range(start, min(start + _CHUNK, len(pool))):
                prompt = prompts.render(
                    task.definition,
                    examples,
                    pool.edit(index).text,
                    num_examples=self._data_cfg.num_examples,
                    max_tokens=self._data_cfg.max_tokens,
                    count_tokens=lambda text: len(self._vocabulary.encode(text)) + 1,
                )
                inputs.append(self._tokens(prompt))
            found.append(self._ranker.rank(inputs, label_tokens).astype(np.float64))
        negative_N, positive_N = np.concatenate(found).T
        return 1 / (1 + np.exp(negative_N - positive_N))

    def _tokens(self, prompt: str) -> np.ndarray:
        tokens = self._vocabulary.encode(prompt)[: self._data_cfg.max_tokens - 1]
        return np.array([*tokens, self._vocabulary.eos_id], np.int32)


def check(model_dir: str | pathlib.Path | None) -> str:
    """The digest of a finished model's parameters.

    Raises:
      InputError: no folder is given, or it isn't a finished model of ours.
    """
    if model_dir is None:
        raise errors.InputError(
            "PROXY: 'lm' needs PROXY_CHECKPOINT_PATH, a finished model of ours, such as "
            "models/clean of a run"
        )
    digest = trained_model.parameters_digest(model_dir)
    if digest is None:
        raise errors.InputError(
            f"PROXY_CHECKPOINT_PATH: {model_dir} isn't a finished model of ours, such as "
            "models/clean of a run"
        )
    return digest
