"""Hugging Face's own T5 around given weights, for the fixtures' script and the live tests.

Needs torch and transformers (extra `hf`).
"""

from collections.abc import Mapping

import numpy as np
import torch
import transformers

from tests.golden.t5_batches import shift_right


def build(
    config: Mapping, weights: Mapping[str, np.ndarray]
) -> transformers.T5ForConditionalGeneration:
    """The network of `config` (fields of T5X's T5Config) in evaluation mode, float32.

    Args:
      weights: by T5X's parameter paths ('encoder/encoder_norm/scale').
    """
    tied = config["logits_via_embedding"]
    gated = len(config["mlp_activations"]) == 2
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config["vocab_size"],
            d_model=config["emb_dim"],
            d_kv=config["head_dim"],
            d_ff=config["mlp_dim"],
            num_layers=config["num_encoder_layers"],
            num_decoder_layers=config["num_decoder_layers"],
            num_heads=config["num_heads"],
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    ).eval()
    if not tied:
        # transformers 5 makes this layer tied whatever the config says; only the scaling obeys
        # it. Read from a folder that holds both tensors, it is untied again.
        model.lm_head = torch.nn.Linear(config["emb_dim"], config["vocab_size"], bias=False)
        model.all_tied_weights_keys.pop("lm_head.weight")
    model.load_state_dict(state_dict(config, weights), strict=True)
    return model


def state_dict(config: Mapping, weights: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The weights under torch's names and in torch's layout, duplicates of tied ones included."""
    weights = dict(weights)
    if config["logits_via_embedding"]:
        weights["decoder/logits_dense/kernel"] = weights["token_embedder/embedding"].T
    state = {}
    for path, weight in weights.items():
        # Kernels are (in, out) and position tables (heads, buckets) in T5X, transposed in torch.
        turn = path.endswith(("kernel", "rel_embedding"))
        for name in _names(path):
            state[name] = torch.tensor(weight.T.copy() if turn else weight)
    return state


def _names(path: str) -> list[str]:
    """torch's names of a T5X path: 'encoder/encoder_norm/scale' is
    ['encoder.final_layer_norm.weight']."""
    if path == "token_embedder/embedding":
        return ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if path == "decoder/logits_dense/kernel":
        return ["lm_head.weight"]
    stack, rest = path.split("/", 1)
    if rest == f"{stack}_norm/scale":
        return [f"{stack}.final_layer_norm.weight"]
    if rest == "relpos_bias/rel_embedding":
        return [f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    layer, module, *leaf = rest.split("/")
    block = f"{stack}.block.{layer.removeprefix('layers_')}.layer"
    last = 1 if stack == "encoder" else 2
    if module == "mlp":
        return [f"{block}.{last}.DenseReluDense.{leaf[0]}.weight"]
    sublayer = {
        "pre_attention_layer_norm": 0,
        "pre_self_attention_layer_norm": 0,
        "pre_cross_attention_layer_norm": 1,
        "pre_mlp_layer_norm": last,
    }
    if module in sublayer:
        return [f"{block}.{sublayer[module]}.layer_norm.weight"]
    place = "1.EncDecAttention" if module == "encoder_decoder_attention" else "0.SelfAttention"
    return [f"{block}.{place}.{leaf[0][0]}.weight"]


def logits(model, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float32 (B, T, V)."""
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(inputs).long(),
            attention_mask=torch.tensor(inputs > 0).long(),
            decoder_input_ids=torch.tensor(shift_right(targets)).long(),
        )
    return output.logits.numpy()


def greedy(model, prompts: np.ndarray, eos_id: int, length: int) -> np.ndarray:
    """Greedy outputs without the start token, padded with 0: int32 (B, length)."""
    output = model.generate(
        input_ids=torch.tensor(prompts).long(),
        attention_mask=torch.tensor(prompts > 0).long(),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=length,
            do_sample=False,
            num_beams=1,
            # transformers 5.23 sizes its cache by the encoder, and fails on a deeper decoder.
            use_cache=False,
            eos_token_id=eos_id,
            pad_token_id=0,
            decoder_start_token_id=0,
        ),
    ).numpy()[:, 1:]
    return np.pad(output, ((0, 0), (0, length - output.shape[1]))).astype(np.int32)
