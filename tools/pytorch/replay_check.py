#!/usr/bin/env python3
"""Compares `records replay` with PyTorch, tensor by tensor.

Writes a small case, lets the binary run it, runs the same steps with twin.py in float32 and float64, and prints each
tensor's error relative to float64: ||x - x64|| / ||x64||. A tensor fails above 4 times PyTorch-float32's own error plus
1e-5. PyTorch-float32's own error is the largest of several runs that differ in rounding only (memory format and the
order of the rows): one run alone is a single draw of a quantity that varies severalfold.

Exit status: 0 all within, 1 some not, 2 something is missing.
"""

import argparse
import glob
import os
import subprocess
import sys
import tempfile

GET_TORCH = "get it with `apt-get install python3-torch` (Debian) or `pip install torch` (PyPI)"
FACTOR, FLOOR = 4.0, 1e-5


def stop(message):
    """Ends with one line and exit status 2."""
    print("replay_check: " + message, file=sys.stderr)
    raise SystemExit(2)


def parse_arguments():
    parser = argparse.ArgumentParser(description="compare `records replay` with PyTorch, tensor by tensor")
    parser.add_argument("--records", default="target/release/records", metavar="FILE", help="the binary (%(default)s)")
    parser.add_argument("--device", help="passed on to the binary; left out, the binary chooses")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--samples", type=int, default=64, help="rows of the confidence matrix (%(default)s)")
    parser.add_argument("--debias", choices=("none", "records"), default="records", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the case (%(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="leave case.safetensors and result.safetensors there")
    parser.add_argument("--self-check", metavar="GOLDEN_DIR",
                        help="check twin.py itself against trajectory_*.safetensors there, and stop")
    arguments = parser.parse_args()
    for name in ("width", "batch_size", "steps", "classes", "samples"):
        if getattr(arguments, name) < 1:
            parser.error("--%s must be at least 1" % name.replace("_", "-"))
    if arguments.batch_size > arguments.samples:
        parser.error("--batch-size must not exceed --samples")
    return arguments


def relative_error(value, exact):
    """||value - exact|| / ||exact||, in float64; infinity where `value` is not finite."""
    value, exact = np.asarray(value, np.float64), np.asarray(exact, np.float64)
    if value.shape != exact.shape or not np.isfinite(value).all():
        return float("inf")
    return float(np.linalg.norm(value - exact) / max(np.linalg.norm(exact), 1e-30))


def make_case(a):
    """Tensors and metadata of a case: smooth-ish random images, candidate sets of about three classes."""
    generator = np.random.RandomState(a.seed)
    shape = (a.steps, a.batch_size, 3, 32, 32)
    labels = generator.randint(a.classes, size=a.samples)
    candidates = generator.uniform(size=(a.samples, a.classes)) < 0.3
    candidates[np.arange(a.samples), labels] = True
    model = twin.ResNet18(a.width, a.classes)
    twin.he_initialise(model, a.seed)
    tensors = {
        "batch.weak": generator.normal(size=shape).astype(np.float32),
        "batch.strong": generator.normal(size=shape).astype(np.float32),
        "batch.index": np.stack([generator.permutation(a.samples)[:a.batch_size] for _ in range(a.steps)]).astype(np.int64),
        "candidates": candidates.astype(np.uint8),
        "confidence": (candidates / candidates.sum(axis=1, keepdims=True)).astype(np.float32),
    }
    tensors.update({name: value.detach().numpy() for name, value in model.named_parameters()})
    metadata = {
        "arch": "resnet18", "width": a.width, "seed": a.seed, "method": "corr", "debias": a.debias, "lr": 0.002,
        "momentum": 0.9, "weight_decay": 0.001, "m": 0.9,
        "update": ",".join("false" if step == 0 else "true" for step in range(a.steps)),
    }
    return tensors, {key: str(value) for key, value in metadata.items()}


def run_twin(tensors, metadata, dtype, channels_last=False, reverse=False):
    """The tensors that `records replay` would write. `reverse` feeds every batch's rows in the opposite order, which
    changes nothing but rounding; logits are turned back."""
    model = twin.ResNet18(int(metadata["width"]), tensors["candidates"].shape[1])
    parameters = {name: torch.from_numpy(tensors[name]) for name, _ in model.named_parameters()}
    model.load_state_dict(parameters, strict=False)
    trainer = twin.Trainer(
        model, tensors["candidates"], tensors["confidence"], lr=float(metadata["lr"]),
        momentum=float(metadata["momentum"]), weight_decay=float(metadata["weight_decay"]), debias=metadata["debias"],
        prior_momentum=float(metadata["m"]), dtype=dtype,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    losses = []
    for step, update in enumerate(metadata["update"].split(",")):
        order = slice(None, None, -1) if reverse else slice(None)
        pair = [np.ascontiguousarray(tensors[name][step][order]) for name in ("batch.weak", "batch.strong")]
        index = torch.from_numpy(tensors["batch.index"][step][order].copy())
        losses.append(trainer.step(trainer.images(pair), index, update == "true"))
    result = trainer.state()
    if reverse:
        for name in ("logits.weak", "logits.strong"):
            result[name] = result[name][::-1]
    result["loss"] = np.array(losses)
    return result


def run_records(a, tensors, metadata, folder):
    """Runs the binary on the case and returns its tensors."""
    source, target = os.path.join(folder, "case.safetensors"), os.path.join(folder, "result.safetensors")
    twin.write_safetensors(source, tensors, metadata)
    command = [a.records, "replay", "--input", source, "--output", target]
    if a.device:
        command += ["--device", a.device]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode != 0:
        stop("`%s` ended with status %d: %s" % (" ".join(command), done.returncode, done.stderr.strip()))
    try:
        return twin.read_safetensors(target)[0]
    except (OSError, ValueError) as error:
        stop("cannot read what the binary wrote: %s" % error)


def compare(ours, exact, rough):
    """Prints the table; returns how many tensors are out of bounds. `rough` are PyTorch's float32 runs."""
    print("%-42s %10s %10s %10s" % ("tensor", "records", "PyTorch", "allowed"))
    failed = 0
    for name in sorted(exact):
        own = max(relative_error(run[name], exact[name]) for run in rough)
        allowed = 0.0 if name.endswith("num_batches_tracked") else FACTOR * own + FLOOR
        if name not in ours:
            failed += 1
            print("%-42s %10s %10.1e %10.1e  MISSING" % (name, "-", own, allowed))
            continue
        error = relative_error(ours[name], exact[name])
        verdict = "" if error <= allowed else "  TOO FAR"
        failed += error > allowed
        print("%-42s %10.1e %10.1e %10.1e%s" % (name, error, own, allowed, verdict))
    print("%d tensors, %d out of bounds" % (len(exact), failed))
    return failed


# ------------------------------------------------------------------------------------- the twin's own check


def hash_unit(number, count, seed):
    """`count` numbers in [-0.5, 0.5) of the golden files' hash fill, for parameter `number`."""
    mask = np.uint64(0xFFFFFFFF)
    offset = (number * 40503 + seed * 69069) & 0xFFFFFFFF
    x = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(offset)) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & mask
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2.0 ** 32 - 0.5


def hash_parameters(model, seed):
    """Every parameter of the hash fill, in state_dict order."""
    filled = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        shape = tuple(parameter.shape)
        values = hash_unit(number, parameter.numel(), seed)
        if len(shape) == 4:
            values = values * 12.0 ** 0.5 * (2.0 / (shape[0] * shape[2] * shape[3])) ** 0.5
        elif name.startswith("fc."):
            values = 2.0 * values / model.fc.in_features ** 0.5
        else:
            values = (1.0 if name.endswith("weight") else 0.0) + 0.4 * values
        filled[name] = values.astype(np.float32).reshape(shape)
    return filled


def self_check(folder):
    """Runs the golden trajectories in float64. The files hold float32, so that half a unit in the last place (6e-8) is
    the distance of an exact result; 1e-7 allows for it and for nothing else."""
    paths = sorted(glob.glob(os.path.join(folder, "trajectory_*.safetensors")))
    if not paths:
        stop("%s: no trajectory_*.safetensors there; name the folder of golden files" % folder)
    failed = 0
    for path in paths:
        tensors, metadata = twin.read_safetensors(path)
        metadata = dict(metadata, width="64", debias="records")
        model = twin.ResNet18(64, tensors["candidates"].shape[1])
        tensors.update(hash_parameters(model, int(metadata["seed"])))
        result = run_twin(tensors, metadata, torch.float64)
        print(path)
        for name in sorted(name for name in tensors if name.startswith("out64.")):
            error = relative_error(result[name[len("out64."):]], tensors[name])
            failed += error > 1e-7
            print("  %-44s %8.1e%s" % (name, error, "  TOO FAR" if error > 1e-7 else ""))
    print("twin.py agrees with the golden files" if not failed else "%d tensors out of bounds" % failed)
    return 1 if failed else 0


def main():
    global np, torch, twin
    a = parse_arguments()
    try:
        import numpy as np
        import torch
        import twin
    except ImportError as error:
        stop("%s; PyTorch is needed: %s" % (error, GET_TORCH))
    if a.self_check:
        return self_check(a.self_check)
    if not os.path.isfile(a.records):
        stop("%s: no such file; build it with `cargo build --release` or name it with --records" % a.records)
    tensors, metadata = make_case(a)
    folder = a.keep or tempfile.mkdtemp(prefix="records-replay-")
    os.makedirs(folder, exist_ok=True)
    try:
        ours = run_records(a, tensors, metadata, folder)
    finally:
        if not a.keep:
            for name in os.listdir(folder):
                os.remove(os.path.join(folder, name))
            os.rmdir(folder)
    exact = run_twin(tensors, metadata, torch.float64)
    variants = [(False, False), (True, False), (False, True), (True, True)]
    rough = [run_twin(tensors, metadata, torch.float32, last, reverse) for last, reverse in variants]
    return 1 if compare(ours, exact, rough) else 0


if __name__ == "__main__":
    sys.exit(main())
