"""Writes t5_logits.npz: logits and greedy outputs of Hugging Face's T5 on two tiny networks.

Needs torch and transformers (extra `hf`), which the tests don't. From the repository's root:

    python -m tests.golden.make_t5_logits

Inputs are longer than `max_distance` (128), so that every relative-position bucket is used.
"""

import pathlib

import numpy as np
import torch
import transformers

from tests.golden.t5_weights import T5_CONFIGS, draw_weights

FIXTURE = pathlib.Path(__file__).with_name("t5_logits.npz")
BATCH, INPUT_LENGTH, TARGET_LENGTH = 2, 149, 131
NUM_PROMPTS, PROMPT_LENGTH, MAX_NEW_TOKENS = 11, 19, 23


def hugging_face_model(config: dict) -> transformers.T5ForConditionalGeneration:
    """The same network in transformers, in evaluation mode."""
    tied = config["logits_via_embedding"]
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config["vocab_size"],
            d_model=config["emb_dim"],
            d_kv=config["head_dim"],
            d_ff=config["mlp_dim"],
            num_layers=config["num_encoder_layers"],
            num_decoder_layers=config["num_decoder_layers"],
            num_heads=config["num_heads"],
            feed_forward_proj="relu" if tied else "gated-gelu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    ).eval()
    if not tied:
        # transformers 5 ties this layer whatever the config says; only the scaling obeys it.
        model.lm_head = torch.nn.Linear(config["emb_dim"], config["vocab_size"], bias=False)
    # Kernels are (in, out) and position tables (heads, buckets) in T5X, transposed in torch.
    unfilled = set(model.state_dict())
    weights = draw_weights(config)
    if tied:
        weights["decoder/logits_dense/kernel"] = weights["token_embedder/embedding"].T
    state = {}
    for path, weight in weights.items():
        turn = path.endswith(("kernel", "rel_embedding"))
        for name in hugging_face_names(path):
            state[name] = torch.tensor(weight.T.copy() if turn else weight)
    missing = unfilled - set(state)
    if missing:
        raise ValueError(f"weights without a T5X path: {sorted(missing)}")
    model.load_state_dict(state, strict=True)
    return model


def hugging_face_names(path: str) -> list[str]:
    """`state_dict` names of a T5X path: 'encoder/encoder_norm/scale' is
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
        kind = "DenseReluDense"
        return [f"{block}.{last}.{kind}.{leaf[0]}.weight"]
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


def draw_tokens(rng: np.random.Generator, rows: int, length: int, vocab_size: int) -> np.ndarray:
    """Rows of tokens (int32, 2 and up); all but the first end in padding of various lengths."""
    tokens = rng.integers(2, vocab_size, (rows, length)).astype(np.int32)
    for row in range(1, rows):
        tokens[row, length - rng.integers(1, length // 2) :] = 0
    return tokens


def logits(model, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    decoder_inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(inputs).long(),
            attention_mask=torch.tensor(inputs > 0).long(),
            decoder_input_ids=torch.tensor(decoder_inputs).long(),
        )
    return output.logits.numpy()


def greedy(model, prompts: np.ndarray, eos_id: int) -> np.ndarray:
    """Greedy outputs without the start token, padded with 0 to MAX_NEW_TOKENS."""
    output = model.generate(
        input_ids=torch.tensor(prompts).long(),
        attention_mask=torch.tensor(prompts > 0).long(),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            # transformers 5.23 sizes its cache by the encoder, and fails on a deeper decoder.
            use_cache=False,
            eos_token_id=eos_id,
            pad_token_id=0,
            decoder_start_token_id=0,
        ),
    ).numpy()[:, 1:]
    return np.pad(output, ((0, 0), (0, MAX_NEW_TOKENS - output.shape[1]))).astype(np.int32)


def useful_eos(model, prompts: np.ndarray) -> int:
    """A token that as EOS ends about half of the rows, later than their first token."""
    free = greedy(model, prompts, eos_id=model.config.vocab_size)
    ends = [
        sum(token in row[1:] and row[0] != token for row in free) for token in range(free.max() + 1)
    ]
    return 2 + int(np.argmin([abs(count - NUM_PROMPTS / 2) for count in ends[2:]]))


def main() -> None:
    arrays = {
        "versions": np.array(
            f"transformers {transformers.__version__}, torch {torch.__version__}, "
            f"numpy {np.__version__}"
        )
    }
    for name, config in T5_CONFIGS.items():
        rng = np.random.default_rng(7)
        model = hugging_face_model(config)
        inputs = draw_tokens(rng, BATCH, INPUT_LENGTH, config["vocab_size"])
        targets = draw_tokens(rng, BATCH, TARGET_LENGTH, config["vocab_size"])
        prompts = draw_tokens(rng, NUM_PROMPTS, PROMPT_LENGTH, config["vocab_size"])
        eos_id = useful_eos(model, prompts)
        made = {
            "inputs": inputs,
            "targets": targets,
            "logits": logits(model, inputs, targets),
            "prompts": prompts,
            "eos_id": np.array(eos_id),
            "greedy": greedy(model, prompts, eos_id),
        }
        arrays |= {f"{name}/{key}": value for key, value in made.items()}
        print(name, "largest logit", np.abs(made["logits"]).max(), "std", made["logits"].std())
        print(eos_id, made["greedy"])
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE}: {FIXTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
