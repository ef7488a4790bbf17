#!/usr/bin/env python3
"""Times one training step of CORR+RECORDS on the CPU: PyTorch at its best against `records bench step`.

PyTorch runs twin.py with all processors, once with contiguous and once with channels-last images, and keeps the faster
of the two. Then PyTorch and records take turns, so that a slow spell of the machine falls on both. A step is the forward
pass over 2B rows, loss, confidence update, backward pass and SGD; images are ready in memory for both.

Exit status: 0; 1 if --require is given and not met; 2 if something is missing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

GET_TORCH = "get it with `apt-get install python3-torch` (Debian) or `pip install torch` (PyPI)"


def stop(message):
    """Ends with one line and exit status 2."""
    print("bench_step: " + message, file=sys.stderr)
    raise SystemExit(2)


def parse_arguments():
    parser = argparse.ArgumentParser(description="time a training step: PyTorch at its best against records")
    parser.add_argument("--records", default="target/release/records", metavar="FILE", help="the binary (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs a step, two images each (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the result there")
    parser.add_argument("--require", type=float, metavar="RATIO",
                        help="exit 1 if records' images/s are under this multiple of PyTorch's")
    parser.add_argument("--pytorch-only", action="store_true", help="only find PyTorch's best setting")
    arguments = parser.parse_args()
    for name in ("batch_size", "width", "rounds", "steps"):
        if getattr(arguments, name) < 1:
            parser.error("--%s must be at least 1" % name.replace("_", "-"))
    return arguments


def processors():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class PyTorchBench:
    """A PyTorch run that can be timed a few steps at a time."""

    def __init__(self, twin, torch, a, memory_format):
        classes, samples = 10, max(256, a.batch_size)
        generator = torch.Generator().manual_seed(0)
        model = twin.ResNet18(a.width, classes)
        twin.he_initialise(model, 0)
        candidates = torch.rand(samples, classes, generator=generator) < 0.3
        candidates[torch.arange(samples), torch.arange(samples) % classes] = True
        confidence = candidates / candidates.sum(dim=1, keepdim=True)
        self.trainer = twin.Trainer(model, candidates, confidence, lr=0.01, weight_decay=1e-3, debias="records",
                                    memory_format=getattr(torch, memory_format))
        pair = [torch.randn(a.batch_size, 3, 32, 32, generator=generator) for _ in range(2)]
        self.images = self.trainer.images(pair)
        self.index = torch.randperm(samples, generator=generator)[:a.batch_size]

    def seconds(self, steps):
        """Seconds of each of `steps` steps."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.trainer.step(self.images, self.index, True)
            times.append(time.perf_counter() - start)
        return times


def records_seconds(a):
    """One turn of `records bench step`: its median seconds a step."""
    command = [a.records, "bench", "step", "--device", "cpu", "--batch-size", str(a.batch_size), "--width",
               str(a.width), "--steps", str(a.steps), "--json"]
    shown = " ".join(command)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    except OSError as error:
        stop("cannot run `%s`: %s" % (shown, error))
    if done.returncode != 0:
        stop("`%s` ended with status %d: %s" % (shown, done.returncode, done.stderr.strip()))
    try:
        line = json.loads(done.stdout.strip().splitlines()[-1])
        seconds = float(line["seconds_per_step_median"])
        if (line["device"], line["batch_size"], line["width"]) != ("cpu", a.batch_size, a.width) or not seconds > 0:
            raise ValueError("it timed something else: %s" % line)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        stop("`%s` did not print the expected JSON line (%s)" % (shown, error))
    return seconds


def main():
    a = parse_arguments()
    try:
        import torch
        import twin
    except ImportError as error:
        stop("%s; PyTorch is needed: %s" % (error, GET_TORCH))
    if not a.pytorch_only and not os.path.isfile(a.records):
        stop("%s: no such file; build it with `cargo build --release` or name it with --records" % a.records)
    threads, images = processors(), 2 * a.batch_size
    torch.set_num_threads(threads)
    print("%s, %d threads, PyTorch %s, width %d, %d images a step" % (
        processor_name(), threads, torch.__version__, a.width, images))

    settings, best = {}, None
    for memory_format in ("contiguous_format", "channels_last"):
        bench = PyTorchBench(twin, torch, a, memory_format)
        bench.seconds(1)
        settings[memory_format] = statistics.median(bench.seconds(a.steps))
        print("PyTorch %-18s %8.3f s/step %8.1f images/s" % (
            memory_format, settings[memory_format], images / settings[memory_format]))
        if best is None or settings[memory_format] < settings[best[0]]:
            best = (memory_format, bench)
    result = {
        "cpu": processor_name(), "threads": threads, "torch": torch.__version__, "batch_size": a.batch_size,
        "width": a.width, "images_per_step": images, "pytorch_settings_seconds_per_step": settings,
        "pytorch_setting": best[0],
    }
    ratio = None
    if not a.pytorch_only:
        turns = {"PyTorch": [], "records": []}
        for _ in range(a.rounds):
            turns["PyTorch"].append(statistics.median(best[1].seconds(a.steps)))
            # PyTorch's threads spin for a moment after their last work; they must not do so during records' turn.
            time.sleep(0.3)
            turns["records"].append(records_seconds(a))
        median = {name: statistics.median(times) for name, times in turns.items()}
        ratio = median["PyTorch"] / median["records"]
        print("\n%-10s %10s %10s %10s %12s" % ("", "s/step", "least", "most", "images/s"))
        for name, times in turns.items():
            print("%-10s %10.3f %10.3f %10.3f %12.1f" % (
                name, median[name], min(times), max(times), images / median[name]))
        print("records / PyTorch, images/s: %.3f (median of %d turns of %d steps)" % (ratio, a.rounds, a.steps))
        result.update({
            "rounds": a.rounds, "steps": a.steps, "pytorch_seconds_per_step": turns["PyTorch"],
            "records_seconds_per_step": turns["records"], "pytorch_images_per_second": images / median["PyTorch"],
            "records_images_per_second": images / median["records"], "ratio": ratio,
        })
    if a.json:
        with open(a.json, "w") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    if a.require is not None and ratio is not None and ratio < a.require:
        print("bench_step: %.3f is under the required %.3f" % (ratio, a.require), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
