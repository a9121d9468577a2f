"""The tokenizer: byte-level byte pairs as CLIP has them, learned from our own captions."""

import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import numpy as np

import scenes

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's words: contractions, letters, single digits, runs of anything else.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SIZE = 3072


def load_or_train(path, attributes, seed):
    """The tokenizer that is there, or a new one that is there from now on. The trainer breaks ties
    at random, so a second one would number some tokens otherwise than the weights have learned."""
    if not path.exists():
        train(attributes, seed).save(str(path), pretty=False)
    return Tokenizer.from_file(str(path))


def train(attributes, seed):
    """A tokenizer of at most SIZE tokens; the last two are START and END."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 2, initial_alphabet=sorted(alphabet), end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(attributes, seed), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (START, END)]
    )
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    return tokenizer


def corpus(attributes, seed):
    """Every name and keyword in every form, and what captions put around them."""
    rng = random.Random(seed)
    names = [pictogram.name for pictogram in attributes.vocabulary]
    for _ in range(4):
        yield from names
        yield from attributes.keywords
        yield from map(scenes.plural, names)
    row = np.zeros(attributes.count)
    for _ in range(3000):
        yield scenes.random_words(rng, attributes, row)
    for colour in scenes.COLOUR_NAMES * 50:
        yield f"on a {colour} background"
    yield from (f"{number} and" for number in list(scenes.NUMBERS.values()) * 50)


def encode(tokenizer, texts, length):
    """Token ids, int64 [texts, longest], padded with END and cut to `length`."""
    end = tokenizer.token_to_id(END)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    rows = [row if len(row) <= length else [*row[: length - 1], end] for row in rows]
    out = np.full((len(rows), max(map(len, rows))), end, dtype=np.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out
