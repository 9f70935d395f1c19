"""Small models of every kind, a tokenizer of words and pieces, and the sample trees."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from talking_heads import GeneralBilinearAttention, TalkingHeadsAttention
from talking_heads.hf import convert

DATA = Path(__file__).parent / "data"
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
PIECES = [
    "the",
    "old",
    "dog",
    "chased",
    "a",
    "small",
    "red",
    "ball",
    ".",
    "she",
    "does",
    "n't",
    "sing",
    "and",
    "he",
    "whist",
    "##les",
    "bread",
    "was",
    "baked",
    "in",
    "village",
    "by",
    "two",
    "bro",
    "##thers",
    "thought",
    "very",
    "ti",
    "##red",
    "gar",
    "##den",
    "rye",
]
VOCABULARY = {x: i for i, x in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES])}


def tokenizer():
    """BERT's kind: lower case, pieces marked ##, [CLS] and [SEP]."""
    inner = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **names)


def _bert_like(kind, config, **more):
    return lambda: kind(config(vocab_size=len(VOCABULARY), **SIZES, **more))


def _t5(**more):
    options = {
        "d_model": 24,
        "d_kv": 6,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=len(VOCABULARY), **options, **more)
    )


def _bart():
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {
        "d_model": 24,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
    }
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(vocab_size=len(VOCABULARY), **sizes, **heads, **tokens)
    )


def _converted(make, **options):
    def made():
        model = make()
        convert(model, **options)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("_mix"):
                    p.add_(torch.randn(p.shape, generator=draw) * 0.3)
        return model

    return made


classifier = _bert_like(transformers.BertForSequenceClassification, transformers.BertConfig, pad_token_id=0)
MODELS = {
    "bert": classifier,
    "bert, talking": _converted(classifier),
    "bert, talking, 8 value heads": _converted(classifier, num_value_heads=8),
    "bert, talking, 8 softmax heads": _converted(classifier, num_heads=8),
    "bert, talking, dynamic": _converted(classifier, dynamic=["query_weights", "memory_weights"]),
    "t5": _t5,
    "t5, talking": _converted(_t5),
    "bart": _bart,
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(VOCABULARY), n_embd=24, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=3
        )
    ),
    "albert": _bert_like(
        transformers.AlbertModel, transformers.AlbertConfig, embedding_size=16, pad_token_id=0
    ),
    "mpnet": _bert_like(transformers.MPNetModel, transformers.MPNetConfig, pad_token_id=0),
    "deberta": _bert_like(transformers.DebertaV2Model, transformers.DebertaV2Config, pad_token_id=0),
}


def model(name, seed=0):
    transformers.set_seed(seed)
    made = MODELS[name]().eval()
    with torch.no_grad():  # as if trained: at random starts attention is all but uniform
        for key, p in made.named_parameters():
            if key.endswith("weight") and p.dim() == 2 and not key.endswith("_mix"):
                p.mul_(4)
    return made


def call(model, seed=1):
    """Two sentences of 9 and 6 tokens."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, len(VOCABULARY), (2, 9), generator=draw)
    mask = (torch.arange(9) < torch.tensor([[9], [6]])).long()
    batch = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = ids[:, :5]
    return batch


def output(model, **more):
    found = model(**call(model), **more)
    return next(x for x in found.values() if isinstance(x, torch.Tensor))


class Reads(torch.nn.Module):
    """A language model of one's own: tokens in, this package's and torch's layers inside."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body = torch.nn.Embedding(len(VOCABULARY), 12), Own()

    def forward(self, input_ids, attention_mask):
        return self.body(self.embedding(input_ids) * attention_mask[..., None])


class Own(torch.nn.Module):
    """A model of this package's layers and torch's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.talk = TalkingHeadsAttention(
            12, 4, num_key_heads=3, num_value_heads=2, head_dim=4, mix_init="random"
        )
        self.bilinear = GeneralBilinearAttention(12, 2)
        self.torch = torch.nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x):
        x = x + self.talk(x)
        x = x + self.bilinear(x)
        return x + self.torch(x, x, x, need_weights=False)[0]
