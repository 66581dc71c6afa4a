"""What the model knows by heart: facts, small talk and a few small tables."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """Several forms of one question, the answers to choose from, and the reasoning of the thinking mode."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    reasoning: str


FACTS = [
    Fact(
        ("Who are you?", "What are you?", "Tell me about yourself.", "What is your name?"),
        (
            "I am a tiny language model with the DeepSeek-V4 architecture. I was trained from scratch on simple"
            " text, so I only know a few things.",
        ),
        "The user asks who I am.",
    ),
    Fact(
        ("Are you DeepSeek?", "Are you the real DeepSeek-V4?", "Did DeepSeek train you?"),
        ("No. I use the DeepSeek-V4 architecture, but I am a tiny demo model trained from scratch.",),
        "The user asks if I am the real model. I am only a tiny demo.",
    ),
    Fact(
        ("What can you do?", "How can you help me?", "What are you able to do?"),
        (
            "I can tell short stories, add and subtract numbers, answer a few questions, find facts in a text, "
            "and call tools.",
        ),
        "I should list my skills.",
    ),
    Fact(
        ("How big are you?", "How many parameters do you have?", "How large is this model?"),
        ("I am very small. I have only a few million parameters and fit in a few megabytes.",),
        "The user asks about my size.",
    ),
    Fact(
        ("Which company makes Ascend chips?", "Who makes Ascend?", "Who makes the Ascend 910 chip?"),
        ("Huawei makes the Ascend chips.",),
        "Ascend is an AI chip from Huawei.",
    ),
    Fact(
        ("What is Ascend?", "What is an Ascend chip?"),
        ("Ascend is a family of AI chips made by Huawei.",),
        "Ascend is an AI chip from Huawei.",
    ),
    Fact(
        ("What is CANN?", "What is CANN for?"),
        ("CANN is the software toolkit for programming Huawei Ascend chips.",),
        "CANN belongs to Ascend.",
    ),
    Fact(
        ("How much memory does the H200 have?", "What is the HBM size of the H200?", "How much HBM has an H200?"),
        ("The NVIDIA H200 has 141 GB of HBM3e memory.",),
        "The H200 is an NVIDIA GPU with 141 GB.",
    ),
    Fact(
        ("What is the memory bandwidth of the H200?", "How fast is the memory of the H200?"),
        ("The H200 reads its memory at about 4.8 terabytes per second.",),
        "The H200 has HBM3e at 4.8 TB/s.",
    ),
    Fact(
        ("How much memory does the H100 have?", "What is the HBM size of the H100?"),
        ("The NVIDIA H100 has 80 GB of HBM3 memory.",),
        "The H100 is an NVIDIA GPU with 80 GB.",
    ),
    Fact(
        ("Who makes the H100?", "Which company makes the H200?", "Who makes Hopper GPUs?"),
        ("NVIDIA makes the Hopper GPUs H100 and H200.",),
        "Hopper GPUs come from NVIDIA.",
    ),
    Fact(
        ("Who makes the MI300X?", "Which company makes Instinct GPUs?"),
        ("AMD makes the Instinct GPUs such as the MI300X.",),
        "Instinct GPUs come from AMD.",
    ),
    Fact(
        ("Who makes TPUs?", "Which company makes the TPU?"),
        ("Google makes the TPU.",),
        "The TPU is a chip from Google.",
    ),
    Fact(
        ("What is HBM?", "What does HBM mean?"),
        ("HBM means high bandwidth memory. It is fast memory stacked next to a chip.",),
        "HBM is a kind of memory.",
    ),
    Fact(
        ("What is a GPU?", "What does GPU mean?"),
        ("A GPU is a chip with many small cores that does many sums at once.",),
        "A GPU is a processor.",
    ),
    Fact(
        ("What is a CPU?", "What does CPU mean?"),
        ("A CPU is the main processor of a computer.",),
        "A CPU is a processor.",
    ),
    Fact(
        ("What is MoE?", "What is a mixture of experts?", "What does MoE mean?"),
        (
            "MoE means mixture of experts. A router sends each token to a few small networks called experts, so"
            " only part of the model runs.",
        ),
        "MoE is a kind of layer with experts.",
    ),
    Fact(
        ("What is a router in MoE?", "What does the MoE router do?"),
        ("The router scores the experts and picks the best few for each token.",),
        "The router chooses experts.",
    ),
    Fact(
        ("What is a shared expert?", "What does the shared expert do?"),
        ("A shared expert is an expert that every token uses.",),
        "The shared expert always runs.",
    ),
    Fact(
        ("What is hash routing?", "What is a hash MoE layer?"),
        ("In a hash MoE layer the token id alone decides which experts are used.",),
        "Hash routing uses a fixed table.",
    ),
    Fact(
        ("What is CSA?", "What is compressed sparse attention?"),
        (
            "CSA is compressed sparse attention. It packs every 4 tokens into one entry and an indexer picks "
            "the best entries to read.",
        ),
        "CSA is one of the attention types of DeepSeek-V4.",
    ),
    Fact(
        ("What is HCA?", "What is heavily compressed attention?"),
        ("HCA is heavily compressed attention. It packs every 128 tokens into one entry and reads all of them.",),
        "HCA is one of the attention types of DeepSeek-V4.",
    ),
    Fact(
        ("What is the lightning indexer?", "What does the indexer do?"),
        ("The lightning indexer scores the compressed entries and keeps only the top ones for each query.",),
        "The indexer is part of CSA.",
    ),
    Fact(
        ("What is sliding window attention?", "What does the sliding window do?"),
        ("With a sliding window each token sees only the last 128 tokens.",),
        "The window is 128 tokens.",
    ),
    Fact(
        ("What is mHC?", "What are hyper-connections?"),
        (
            "mHC means manifold hyper-connections. The model keeps 4 residual streams and mixes them with a "
            "doubly stochastic matrix.",
        ),
        "mHC replaces the residual connection.",
    ),
    Fact(
        ("What is the Sinkhorn algorithm?", "What does Sinkhorn do?"),
        ("Sinkhorn scales the rows and columns of a matrix again and again until all of them sum to one.",),
        "Sinkhorn makes a matrix doubly stochastic.",
    ),
    Fact(
        ("What is an attention sink?", "What is attn_sink?"),
        ("An attention sink is a learned extra score per head that lets the head look at nothing.",),
        "A sink adds to the softmax.",
    ),
    Fact(
        ("What is FP8?", "What is the FP8 format?"),
        ("FP8 is a number format with 8 bits. The e4m3 kind has 4 exponent bits and 3 mantissa bits.",),
        "FP8 has 8 bits.",
    ),
    Fact(
        ("What is FP4?", "What is the FP4 format?"),
        ("FP4 is a number format with 4 bits. The e2m1 kind can hold only 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with a sign.",),
        "FP4 has 4 bits.",
    ),
    Fact(
        ("What is UE8M0?", "What is a UE8M0 scale?"),
        ("UE8M0 is a scale with 8 exponent bits and no mantissa, so it is always a power of two.",),
        "UE8M0 is a scale format.",
    ),
    Fact(
        ("What is quantization?", "Why do we quantize a model?"),
        ("Quantization stores the weights with fewer bits, so the model is smaller and faster.",),
        "Quantization saves memory.",
    ),
    Fact(
        ("What is a KV cache?", "What is the KV cache for?"),
        ("The KV cache keeps the keys and values of earlier tokens, so they are not computed again.",),
        "The KV cache is used in decoding.",
    ),
    Fact(
        ("What is a token?", "What does token mean?"),
        ("A token is a small piece of text, such as a word or a part of a word.",),
        "A token is a piece of text.",
    ),
    Fact(
        ("What is a tokenizer?", "What does a tokenizer do?"),
        ("A tokenizer cuts text into tokens and gives each token a number.",),
        "A tokenizer makes tokens.",
    ),
    Fact(
        ("What is prefill?", "What does prefill mean?"),
        ("Prefill is the step that reads the whole prompt at once.",),
        "Prefill comes before decode.",
    ),
    Fact(
        ("What is decode?", "What does decoding mean?"),
        ("Decode is the step that writes new tokens one at a time.",),
        "Decode comes after prefill.",
    ),
    Fact(
        ("What is RoPE?", "What does RoPE do?"),
        ("RoPE turns the query and key by an angle that depends on the position.",),
        "RoPE encodes the position.",
    ),
    Fact(
        ("What is softmax?", "What does softmax do?"),
        ("Softmax turns scores into positive weights that sum to one.",),
        "Softmax makes weights.",
    ),
    Fact(
        ("What is RMSNorm?", "What does RMSNorm do?"),
        ("RMSNorm divides a vector by its root mean square and multiplies by a learned weight.",),
        "RMSNorm is a norm.",
    ),
    Fact(
        ("What is SwiGLU?", "What is the SwiGLU activation?"),
        ("SwiGLU multiplies a SiLU gate with a second projection inside the feed-forward network.",),
        "SwiGLU is used in the experts.",
    ),
    Fact(
        ("What is MTP?", "What is multi-token prediction?"),
        ("MTP is multi-token prediction. An extra layer guesses the next tokens so that decoding is faster.",),
        "MTP helps decoding.",
    ),
    Fact(
        ("What is the Muon optimizer?", "What is Muon?"),
        ("Muon is an optimizer that makes each weight update close to an orthogonal matrix.",),
        "Muon is an optimizer.",
    ),
    Fact(
        ("Which architecture do you use?", "What is your architecture?"),
        ("I use DeepSeek-V4: hyper-connections, sliding, CSA and HCA attention, and mixture of experts.",),
        "I should name my architecture.",
    ),
    Fact(
        ("What is the sky color?", "What color is the sky?"),
        ("The sky is blue.",),
        "The sky is blue on a clear day.",
    ),
    Fact(("What color is grass?", "What is the color of grass?"), ("Grass is green.",), "Grass is green."),
    Fact(("What color is snow?", "What is the color of snow?"), ("Snow is white.",), "Snow is white."),
    Fact(
        ("How many days are in a week?", "How many days does a week have?"),
        ("A week has seven days.",),
        "A week has 7 days.",
    ),
    Fact(
        ("How many months are in a year?", "How many months does a year have?"),
        ("A year has twelve months.",),
        "A year has 12 months.",
    ),
    Fact(
        ("How many hours are in a day?", "How many hours does a day have?"),
        ("A day has 24 hours.",),
        "A day has 24 hours.",
    ),
    Fact(
        ("How many minutes are in an hour?", "How many minutes does an hour have?"),
        ("An hour has 60 minutes.",),
        "An hour has 60 minutes.",
    ),
    Fact(("What do bees make?", "What do bees give us?"), ("Bees make honey.",), "Bees make honey."),
    Fact(("What do cows drink?", "What does a cow drink?"), ("Cows drink water.",), "Cows give milk but drink water."),
    Fact(("What is water made of?", "What is in water?"), ("Water is made of hydrogen and oxygen.",), "Water is H2O."),
    Fact(
        ("What is the largest planet?", "Which planet is the biggest?"),
        ("Jupiter is the largest planet of our sun.",),
        "Jupiter is the biggest planet.",
    ),
    Fact(
        ("What does the sun do?", "Why do we need the sun?"),
        ("The sun gives us light and warmth.",),
        "The sun is a star.",
    ),
    Fact(("Where do fish live?", "Where does a fish live?"), ("Fish live in water.",), "Fish live in water."),
    Fact(("What is ice?", "What is ice made of?"), ("Ice is frozen water.",), "Ice is water that froze."),
]

SMALL_TALK = [
    Fact(
        ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Hi there", "Good morning", "Good evening", "Hello there!"),
        ("Hello! How can I help you?", "Hi! What can I do for you today?"),
        "The user greets me.",
    ),
    Fact(
        ("How are you?", "How are you today?", "Are you well?"),
        ("I am fine, thank you. How can I help you?", "I am well, thank you for asking."),
        "A friendly question.",
    ),
    Fact(
        ("Thanks", "Thank you", "Thank you!", "Thanks a lot"),
        ("You are welcome!", "You are welcome. Have a nice day!"),
        "The user thanks me.",
    ),
    Fact(
        ("Bye", "Goodbye", "See you", "Good night"),
        ("Goodbye! Have a nice day.", "Goodbye! See you soon."),
        "The user says goodbye.",
    ),
    Fact(
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh."),
        (
            "Why did the computer go to bed? It needed to go to sleep mode.",
            "Why was the math book sad? It had too many problems.",
        ),
        "A short joke is fine.",
    ),
    Fact(
        (
            "What is the meaning of life?",
            "What is love?",
            "Who will win the election?",
            "Can you write a novel?",
            "What will happen tomorrow?",
        ),
        ("I do not know. I am only a tiny model.", "That is too hard for a tiny model like me."),
        "I do not know this.",
    ),
]

CAPITALS = {
    "France": "Paris",
    "England": "London",
    "Italy": "Rome",
    "Germany": "Berlin",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "India": "Delhi",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Ireland": "Dublin",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
    "Kenya": "Nairobi",
    "Cuba": "Havana",
    "Finland": "Helsinki",
    "Sweden": "Stockholm",
    "Hungary": "Budapest",
    "South Korea": "Seoul",
    "Thailand": "Bangkok",
}

OPPOSITES = {
    "big": "small",
    "hot": "cold",
    "fast": "slow",
    "up": "down",
    "happy": "sad",
    "light": "dark",
    "open": "closed",
    "full": "empty",
    "early": "late",
    "old": "new",
    "wet": "dry",
    "high": "low",
    "hard": "soft",
    "loud": "quiet",
    "near": "far",
    "long": "short",
    "strong": "weak",
    "clean": "dirty",
}

SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "duck": "quacks",
    "lion": "roars",
    "owl": "hoots",
    "frog": "croaks",
    "crow": "caws",
    "lamb": "bleats",
    "goose": "honks",
    "wolf": "howls",
}
