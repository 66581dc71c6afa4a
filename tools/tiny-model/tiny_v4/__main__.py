"""python -m tiny_v4 COMMAND: everything from the tokenizer to the exported checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import check, evaluation
from .cases import all_cases, read_cases, write_cases
from .config import ModelConfig
from .export import export
from .mtp import train_mtp
from .state import RunFolder
from .tokenizer import train_tokenizer
from .training import Plan, train

PUBLISHED = Path(__file__).parents[3] / "models" / "tiny"
CASES = PUBLISHED / "evaluation.jsonl"


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tiny_v4", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        added.add_argument("--dir", type=Path, default=Path("run"), help="folder of the training run")
        return added

    command("tokenizer", "train the tokenizer")
    add_training_options(command("train", "train the model, going on from what the folder holds"))
    mtp = command("mtp", "train the multi-token-prediction layer on the finished model")
    mtp.add_argument("--minutes", type=float, default=4)
    mtp.add_argument("--rows", type=int, default=2, help="rows of 512 tokens a step")
    mtp.add_argument("--seed", type=int, default=1)
    command("pack", "keep the weights in half precision and drop the optimiser's state")
    cases = command("cases", "write the evaluation cases")
    cases.add_argument("--out", type=Path, default=CASES)
    evaluate = command("evaluate", "print exact match on the evaluation cases as a table")
    evaluate.add_argument("--cases", type=Path, default=CASES)
    evaluate.add_argument("--round-activations", action="store_true", help="as the official inference code does")
    samples = command("samples", "print what the model writes")
    samples.add_argument("--temperature", type=float, default=0.0)
    samples.add_argument("--tokens", type=int, default=160)
    exported = command("export", "write the checkpoint in the official format")
    exported.add_argument("--out", type=Path, required=True, help=f"folder to write; the published model is {PUBLISHED}")
    command("check", "compare fused kernels, packing and the exported files (transformers) with the plain model")
    return root


def add_training_options(options: argparse.ArgumentParser) -> None:
    share = "share of the time budget"
    options.add_argument("--minutes", type=float, default=120, help="time budget; the schedule follows the clock")
    options.add_argument("--new-budget", action="store_true", help="start the schedule again on a trained model")
    options.add_argument("--processes", type=int, default=2, help="one thread each")
    options.add_argument("--device", default="cpu")
    options.add_argument("--rows", type=int, default=4, help="rows of 512 tokens a process and step")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--peak-rate", type=float, default=1.0, help="factor on the learning rates of optimiser.py")
    options.add_argument("--warmup-steps", type=int, default=20)
    options.add_argument("--decay-from", type=float, default=0.45, help=share)
    options.add_argument("--sparse-from", type=float, default=0.15, help=share)
    options.add_argument("--long-rows-from", type=float, default=0.35, help=share)
    options.add_argument("--long-rows-every", type=int, default=6, help="steps")
    options.add_argument("--round-weights-from", type=float, default=0.6, help=share)
    options.add_argument("--port", type=int, default=29533, help="of the processes among themselves")


def main() -> None:
    arguments = parser().parse_args()
    folder = RunFolder(arguments.dir)
    folder.path.mkdir(parents=True, exist_ok=True)
    options = {key: value for key, value in vars(arguments).items() if key not in ("command", "dir")}
    match arguments.command:
        case "tokenizer":
            train_tokenizer(folder.tokenizer_path, ModelConfig().vocab_size)
        case "train":
            train(Plan(folder=folder.path, **options))
        case "mtp":
            torch.set_num_threads(1)
            train_mtp(folder, **options)
        case "pack":
            folder.pack()
        case "cases":
            write_cases(arguments.out, all_cases())
        case "evaluate":
            model = folder.rounded_model()
            model.rounding.activations = arguments.round_activations
            print(evaluation.table(evaluation.measure(model, folder.tokenizer(), read_cases(arguments.cases))))
        case "samples":
            model, tokenizer = folder.rounded_model(), folder.tokenizer()
            for prompt in evaluation.sample_prompts():
                text = evaluation.generate(model, tokenizer, prompt, arguments.tokens, arguments.temperature)
                print(f"{prompt}|{text}\n-----", flush=True)
        case "export":
            export(folder, arguments.out)
        case "check":
            model = folder.rounded_model()
            check.check_kernels(folder)
            check.check_packing(model)
            check.check_transformers(folder, model, all_cases())


if __name__ == "__main__":
    main()
